#!/usr/bin/env bash
# Sixteen threads on one runtime for SECONDS (600), while its GPU is destroyed, full or refuses work at random, and one part
# in twenty is verified on another device. Reports steps, faults, mismatches and the most memory that was taken.
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/setup.sh
export DIVVY_REQUIRE_GPU=${DIVVY_REQUIRE_GPU-1} DIVVY_PROFILE=off DIVVY_SOAK_SECONDS=${1:-600}
cargo test --locked --release --package divvy --test concurrency -- --ignored --exact soak --nocapture
