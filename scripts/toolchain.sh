# shellcheck shell=bash
# The Rust side of the scripts. Sourced after lib.sh.

# Cargo lets the user move its output; follow it.
TARGET_DIR=${CARGO_TARGET_DIR:-$ROOT/target}
case $TARGET_DIR in
/*) ;;
*) TARGET_DIR=$ROOT/$TARGET_DIR ;;
esac
# Read by the scripts that source this file.
# shellcheck disable=SC2034
BINARY=$TARGET_DIR/release/sluice

require_toolchain() {
	if ! command -v cargo >/dev/null && [ -x "${CARGO_HOME:-${HOME:-}/.cargo}/bin/cargo" ]; then
		# rustup was installed, but this shell was started before.
		PATH=${CARGO_HOME:-$HOME/.cargo}/bin:$PATH
	fi
	command -v cargo >/dev/null || die "cargo is missing; install Rust (rustup's stable toolchain) and try again"
	if ! command -v cc >/dev/null || ! command -v c++ >/dev/null; then
		apt_install "C and C++ compilers for the native parts" build-essential ||
			die "a C and C++ compiler is needed; run: sudo apt-get install build-essential"
	fi
}

# Options of cargo for building tests: with them the compiler would take longer than the tests do, so ours is less optimised, while
# what it stands on stays as it is built. Numbers are computed in two of the crates.
# shellcheck disable=SC2034
QUICKLY=()
for crate in sluice-control=0 sluice=0 sluice-gateway=1 sluice-engine=1; do
	QUICKLY+=(--config "profile.release.package.${crate%=*}.opt-level=${crate#*=}")
	QUICKLY+=(--config "profile.release.package.${crate%=*}.codegen-units=16")
done
unset crate

# Clippy is a compiler, too: it compiles the tests, and what it finds fails them. A pass of its own over all that they stand
# on would take another eight minutes. CLIPPY_ARGS is what `cargo clippy -- -D warnings` sets. Whoever builds tests has
# to build them by it, or they are built twice.
# shellcheck disable=SC2034
LINTED=(env RUSTC_WORKSPACE_WRAPPER=clippy-driver CLIPPY_ARGS=-D__CLIPPY_HACKERY__warnings__CLIPPY_HACKERY__)
