#!/usr/bin/env bash
# Checks that the oldest Rust that Cargo.toml promises, its `rust-version`, compiles the whole workspace with tests and benches.
#
# rustup installs that toolchain if it is missing. Where it cannot be had, the script says so and checks what another toolchain
# can: that nothing of the standard library is newer (clippy's `incompatible_msrv`).
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/setup.sh --checks

# Prints the version, and fails if the packages of the workspace state several or a dependency asks for more.
msrv=$(cargo metadata --locked --format-version 1 | python3 -c '
import json, sys

def number(version):
    return tuple(int(part) for part in (version + ".0.0").split(".")[:3])

metadata = json.load(sys.stdin)
members = set(metadata["workspace_members"])
ours = {package["rust_version"] for package in metadata["packages"] if package["id"] in members}
if len(ours) != 1 or None in ours:
    sys.exit(f"msrv.sh: each package needs `rust-version.workspace = true`, but they state {ours}")
(msrv,) = ours
needed = [
    "{name} {version} needs Rust {rust_version}".format_map(package)
    for package in metadata["packages"]
    if package["rust_version"] and number(package["rust_version"]) > number(msrv)
]
if needed:
    sys.exit(f"msrv.sh: Cargo.toml promises Rust {msrv}, but " + ", ".join(sorted(needed)))
print(msrv)
')

if ! grep -q "Rust $msrv " README.md; then
  echo "msrv.sh: README.md must name the oldest Rust, which is $msrv" >&2
  exit 1
fi

if rustup run "$msrv" rustc --version >/dev/null 2>&1 ||
  rustup toolchain install "$msrv" --profile minimal >/dev/null 2>&1; then
  rustup run "$msrv" cargo check --locked --workspace --all-targets
  echo "msrv.sh: Rust $msrv compiles everything"
else
  echo "msrv.sh: Rust $msrv cannot be installed here; checked are the dependencies' rust-version and clippy's incompatible_msrv"
  cargo clippy --locked --workspace --all-targets -- -D clippy::incompatible_msrv
fi
