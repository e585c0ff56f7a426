#!/usr/bin/env bash
# Compiles every built-in shader for AMD GPUs that are not there (Mesa's RADV needs none) and fails if one spills registers,
# uses scratch memory or cannot be compiled. Prints a table for each family; with --keep, also writes them to docs/results.
# Linux on x86-64 with mesa-vulkan-drivers (scripts/setup.sh). Elsewhere nothing is checked, which CI (CI=1) does not accept.
set -euo pipefail
cd "$(dirname "$0")/.."

families=(--family navi21 --family gfx1100)

keep=()
case ${1-} in
  '') ;;
  --keep) keep=(--output "docs/results/gpu-static-{family}-$(date +%F).md") ;;
  *)
    echo "gpu_static.sh: expected --keep or nothing, found $1" >&2
    exit 2
    ;;
esac

missing() {
  echo "gpu_static.sh: NOT CHECKED: $1" >&2
  if [ -n "${CI:-}" ]; then
    exit 1
  fi
  exit 0
}

if [ "$(uname -s) $(uname -m)" != 'Linux x86_64' ]; then
  missing "this is $(uname -s) on $(uname -m), expected Linux on x86-64"
fi
if ! { compgen -G '/usr/share/vulkan/icd.d/radeon_icd*.json' || compgen -G '/etc/vulkan/icd.d/radeon_icd*.json'; } >/dev/null; then
  missing "there is no Mesa RADV; on Debian or Ubuntu: apt install mesa-vulkan-drivers"
fi

package=(--locked --manifest-path tools/gpu-static/Cargo.toml --target-dir target)
# Also shows that shaders which spill are refused.
cargo test --quiet "${package[@]}"
cargo run --quiet "${package[@]}" -- "${families[@]}" "${keep[@]}"
