#!/usr/bin/env bash
# Tries what reads files and sources of others with random ones: scripts/fuzz.sh TARGET SECONDS.
#
# Targets: wgsl, profile, machine, checkpoint, range_set. Needs a nightly toolchain and cargo-fuzz, which it installs, and a
# C++ compiler. What was found to be worth trying is kept in fuzz/corpus, what fails in fuzz/artifacts.
set -euo pipefail
cd "$(dirname "$0")/.."

target=${1:?name a target: wgsl, profile, machine, checkpoint or range_set}
seconds=${2:-600}
case $target in
  wgsl) seeds=shaders ;;
  machine) seeds=benches/machines ;;
  *) seeds=fuzz/seeds/$target ;;
esac
if [ ! -f "fuzz/fuzz_targets/$target.rs" ]; then
  echo "fuzz.sh: there is no target $target; there are wgsl, profile, machine, checkpoint and range_set" >&2
  exit 2
fi

if ! rustup run nightly rustc --version >/dev/null 2>&1 &&
  ! rustup toolchain install nightly --profile minimal; then
  echo "fuzz.sh: a nightly toolchain is missing and cannot be installed: rustup toolchain install nightly" >&2
  exit 1
fi
if ! cargo fuzz --version >/dev/null 2>&1 && ! cargo install cargo-fuzz --locked; then
  echo "fuzz.sh: cargo-fuzz is missing and cannot be installed: cargo install cargo-fuzz" >&2
  exit 1
fi

mkdir -p "fuzz/corpus/$target"
# An input that takes more than 2 GiB or 60 s is a finding.
cargo +nightly fuzz run "$target" "fuzz/corpus/$target" "$seeds" -- \
  -max_total_time="$seconds" -max_len=16384 -timeout=60 -rss_limit_mb=2048 -print_final_stats=1
