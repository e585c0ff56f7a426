#!/usr/bin/env bash
# Installs what the tests need besides a Rust toolchain: Mesa's software Vulkan adapter and the Vulkan loader.
# Debian and Ubuntu; elsewhere it says what to install. Does nothing if they are there.
set -euo pipefail

# Debian keeps ldconfig where only root looks.
PATH=$PATH:/usr/sbin:/sbin

have_adapter() {
  ldconfig -p | grep 'libvulkan\.so\.1' >/dev/null &&
    { compgen -G '/usr/share/vulkan/icd.d/*.json' || compgen -G '/etc/vulkan/icd.d/*.json'; } >/dev/null
}

if [ "$(uname -s)" != Linux ] || have_adapter; then
  exit 0
fi
if ! command -v apt-get >/dev/null; then
  echo "setup.sh: install the Vulkan loader and a driver (Mesa's lavapipe will do); GPU tests need them" >&2
  exit 0
fi
sudo=
if [ "$(id -u)" != 0 ]; then
  sudo=sudo
fi
$sudo apt-get update
$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
  libvulkan1 mesa-vulkan-drivers
