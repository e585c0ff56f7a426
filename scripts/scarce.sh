#!/usr/bin/env bash
# Runs what takes minutes of the tests of GPUs with too little memory: a matrix product of 4096 and 262,144 bodies in
# 64 MiB, and 100,000 calls of mixed sizes. Prints how long they take, and how much memory is used.
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/setup.sh
export DIVVY_REQUIRE_GPU=${DIVVY_REQUIRE_GPU-1} DIVVY_PROFILE=off
cargo test --locked --release --package divvy --test memory_large -- --include-ignored --nocapture --test-threads 1
DIVVY_TEST_CALLS=${DIVVY_TEST_CALLS-100000} \
  cargo test --locked --release --package divvy --test many_calls -- --nocapture
