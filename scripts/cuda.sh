# shellcheck shell=bash
# NVIDIA's compilers from the package index, pinned and hashed, for machines without CUDA. Sourced
# after lib.sh.

# Sets CUDA_COMPILERS, a folder laid out as CUDA_HOME: nvcc in bin, NVRTC in lib.
use_cuda_compilers() {
	use_venv "$SLUICE_CACHE" kernels "$ROOT/kernels/requirements.lock.txt" \
		"NVIDIA's compilers for the check of the kernels (185 MB)" --no-deps --no-cache-dir
	CUDA_COMPILERS=$(echo "$VENV"/lib/python3*/site-packages/nvidia/cu13)
}

# Compiles every kernel for sm_80 and sm_90, GPU or not, by running the engine's own build script.
check_kernels() (
	work=$(mktemp -d)
	trap 'rm -rf "$work"' EXIT
	rustc --edition 2024 -o "$work/build" "$ROOT/build.rs"
	cd "$ROOT/engine" || exit
	CUDA_HOME=$CUDA_COMPILERS CARGO_MANIFEST_DIR=$PWD OUT_DIR=$work "$work/build" >/dev/null
	for kernel in "$ROOT"/kernels/*.cu; do
		name=$(basename "$kernel" .cu)
		[ -s "$work/$name.fatbin" ] || die "build.rs does not list kernels/$name.cu"
		say "$name: compiled for sm_80 and sm_90 ($(size_of "$work/$name.fatbin"))"
	done
)
