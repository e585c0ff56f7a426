#!/usr/bin/env bash
# Runs every test, on the CPU and on a software Vulkan adapter if there is no GPU. Arguments go to `cargo test`.
#
# A missing adapter fails here instead of skipping: set DIVVY_REQUIRE_GPU=0 to run without one.
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/setup.sh
export DIVVY_REQUIRE_GPU=${DIVVY_REQUIRE_GPU-1}
# Tests must neither read what is known of this machine nor write to it.
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
export DIVVY_PROFILE=$scratch/profile.json
cargo test --locked --workspace "$@"
