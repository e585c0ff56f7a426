#!/usr/bin/env bash
# Installs what the tests need besides a Rust toolchain: Mesa's software Vulkan adapter and the Vulkan loader. With
# --checks, also what the checks of CI need: objdump and Python 3. Does nothing if they are there.
# Debian and Ubuntu; elsewhere it says what to install.
set -euo pipefail

# Debian keeps ldconfig where only root looks.
PATH=$PATH:/usr/sbin:/sbin

have_adapter() {
  ldconfig -p | grep 'libvulkan\.so\.1' >/dev/null &&
    { compgen -G '/usr/share/vulkan/icd.d/*.json' || compgen -G '/etc/vulkan/icd.d/*.json'; } >/dev/null
}

packages=()
if [ "$(uname -s)" = Linux ] && ! have_adapter; then
  packages+=(libvulkan1 mesa-vulkan-drivers)
fi
if [ "${1-}" = --checks ]; then
  command -v objdump >/dev/null || packages+=(binutils)
  command -v python3 >/dev/null || packages+=(python3)
fi
if [ ${#packages[@]} = 0 ]; then
  exit 0
fi
if ! command -v apt-get >/dev/null; then
  echo "setup.sh: install what these Debian packages have: ${packages[*]}" >&2
  echo "setup.sh: any Vulkan driver will do; without one, GPU tests cannot run" >&2
  exit 0
fi
sudo=
if [ "$(id -u)" != 0 ]; then
  sudo=sudo
fi
$sudo apt-get update
$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${packages[@]}"
