#!/usr/bin/env bash
# Compiles every kernel, GPU or not: with nvcc for sm_80 and sm_90, by running the engine's own build
# script, and leaves in KERNEL_COMPILER where NVRTC is for the test that compiles them as the server
# does when it starts. Both compilers come from the package index, pinned and hashed.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source=scripts/toolchain.sh
. "$ROOT/scripts/toolchain.sh"

check_kernels() {
	use_venv "$SLUICE_CACHE" kernels "$ROOT/kernels/requirements.lock.txt" \
		"NVIDIA's compilers for the check of the kernels (185 MB)" --no-deps --no-cache-dir
	local work cuda binary
	cuda=$(echo "$VENV"/lib/python3*/site-packages/nvidia/cu13)
	work=$(mktemp -d)
	# shellcheck disable=SC2064
	trap "rm -rf '$work'" EXIT
	rustc --edition 2024 -o "$work/build" "$ROOT/build.rs"
	(cd "$ROOT/engine" && CUDA_HOME=$cuda CARGO_MANIFEST_DIR=$PWD OUT_DIR=$work "$work/build" >/dev/null)
	for binary in "$work"/*.fatbin; do
		say "$(basename "$binary"): $(size_of "$binary") for sm_80 and sm_90"
	done
	[ "$(grep -c 'binary: Some' "$work/images.rs")" = "$(ls "$ROOT"/kernels/*.cu | wc -l)" ] ||
		die "build.rs does not list every kernel of kernels/"
}

require_toolchain
check_kernels
