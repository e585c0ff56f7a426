#!/usr/bin/env bash
# Runs the unit tests of the modules that need no device under Miri, which finds undefined behaviour. Arguments choose other
# tests. Needs a nightly toolchain with Miri, which it installs.
#
# What stays out: whatever opens a Vulkan driver, locks files, or uses rayon, whose queues Miri refuses (crossbeam-epoch), and
# texts and mappings of a megabyte or more, which it takes minutes to fill.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! rustup run nightly cargo miri --version >/dev/null 2>&1 &&
  ! rustup toolchain install nightly --profile minimal --component miri --component rust-src; then
  echo "miri.sh: Miri is missing and cannot be installed: rustup toolchain install nightly --component miri" >&2
  exit 1
fi
rooms=(array:: checkpoint:: device::region::)
if [ $# -gt 0 ]; then
  rooms=("$@")
fi
# Files and the clock are the host's; where pointers come from is checked as strictly as it can be.
export MIRIFLAGS="-Zmiri-disable-isolation -Zmiri-strict-provenance ${MIRIFLAGS:-}"
export PROPTEST_CASES=${PROPTEST_CASES:-8} PROPTEST_FAILURE_PERSISTENCE=off
cargo +nightly miri test --package divvy --lib -- "${rooms[@]}" --skip absurd_sizes --skip memory_is_zeroed \
  --skip an_unsavable_value_is_an_error
