#!/usr/bin/env bash
# Disassembles the library as it is compiled for release and fails if a loop that is meant to be vector code does not
# use the registers of the instruction set that it is compiled for: SSE2, AVX2 and AVX-512. Any x86-64 machine will do,
# since nothing is run; elsewhere there is nothing to look at. Arguments go to the check. Needs Python 3 and binutils.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ "$(uname -m)" != x86_64 ]; then
  echo "vector_code.sh: nothing checked: NEON is not looked at, and other instruction sets are x86-64's" >&2
  exit 0
fi
scripts/setup.sh --checks

# Flags from outside may compile everything for one processor. Names of functions must tell what they were made for.
unset RUSTFLAGS CARGO_ENCODED_RUSTFLAGS CARGO_BUILD_RUSTFLAGS
mangling=-Csymbol-mangling-version=v0
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

rustc --edition 2024 --crate-name control --crate-type lib --emit obj -O "$mangling" \
  -o "$scratch/control.o" scripts/vector_code/control.rs
cargo rustc --locked --release --lib --message-format json -- "$mangling" >"$scratch/messages"
libraries=$(python3 - "$scratch/messages" <<'PYTHON'
import json, sys
for line in open(sys.argv[1]):
    message = json.loads(line)
    if message["reason"] == "compiler-artifact" and message["target"]["name"] in ("divvy", "gemm_f32"):
        print(*(name for name in message["filenames"] if name.endswith(".rlib")))
PYTHON
)
# shellcheck disable=SC2086 # several paths
python3 scripts/vector_code/check.py "$scratch/control.o" $libraries -- src
