#!/usr/bin/env bash
# What can be said about the code without running it. `--without-clippy` leaves out what the build of the tests says, too.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

cargo fmt --all --check
if [ "${1:-}" != --without-clippy ]; then
	# Release, so that the dependencies' build scripts are shared with a build.
	cargo clippy --workspace --all-targets --release --locked -- -D warnings
fi

# These two are used where they are installed and never installed from here.
if command -v cargo-deny >/dev/null; then
	cargo deny --log-level error check
else
	echo "cargo-deny is not installed: skipping the dependency policy (deny.toml)"
fi
if command -v shellcheck >/dev/null; then
	shellcheck -x scripts/*.sh .ci/run
else
	echo "shellcheck is not installed: skipping the shell scripts"
fi
