#!/usr/bin/env bash
# Checks and measures everything on a GPU, with nothing but what is carried along.
#
#   benches/gpu.sh prepare [DIR] [MIB]   on a machine that can build and fetch: makes what is to be sent
#   benches/gpu.sh run [DIR] [OPTION…]   on the machine with the GPU: puts them together and measures
#   benches/gpu.sh try                   both on this machine, small, on the CPU: that the script works
#
# DIR is out/gpu when not given, or the folder of this script where that was carried along. Options of `run`: --only PART,… --small --device cpu --out DIR --minutes N
#
# Examples
#   benches/gpu.sh prepare                            # out/gpu: the scripts, and folders of at most 60 MiB each in pieces/
#   benches/gpu.sh prepare out/gpu 14                 # of at most 14 MiB, where less can be sent at once
#   benches/gpu.sh run out/gpu --only kernels,sampling
#   /copied/gpu/gpu.sh run                            # the folder alone, without the repository
#   PYTHON=/opt/torch/bin/python benches/gpu.sh run   # a Python with PyTorch 2.6 or newer
#
# The machine with the GPU needs a driver for CUDA 13 and a Python with PyTorch for CUDA 13, whose cuBLAS, cuDNN
# and runtime are used; no registry, no compiler, no Rust.
set -euo pipefail
SELF=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
if [ -e "$SELF/lib.sh" ]; then
	# Carried along, without the repository.
	SLUICE_DATA=${SLUICE_DATA:-$SELF/work}
	# shellcheck source=scripts/lib.sh
	. "$SELF/lib.sh"
	DEFAULT=$SELF
else
	# shellcheck source=scripts/lib.sh
	. "$SELF/../scripts/lib.sh"
	DEFAULT=$ROOT/out/gpu
fi
HERE=$ROOT/benches/gpu

usage() { sed -n '2,/^set -/{/^set -/d;s/^# \{0,1\}//;p;}' "$0"; }

# Everything that runs there, laid out in $1/kit. `small` takes a tiny model and the CPU's library.
make_kit() { # DIR small|full
	local kit=$1/kit
	rm -rf "$kit"
	mkdir -p "$kit/bin" "$kit/lib" "$kit/models"
	if [ "$2" = full ]; then
		# shellcheck source=scripts/cuda.sh
		. "$ROOT/scripts/cuda.sh"
		use_cuda_compilers
		# Machine code ahead of time: the other machine may have no compiler at all.
		export CUDA_HOME=$CUDA_COMPILERS
	fi
	# shellcheck source=scripts/toolchain.sh
	. "$ROOT/scripts/toolchain.sh"
	say "Building"
	# All packages, where their tests are built anyway: one package alone would be built anew with its own features.
	local scope=(-p sluice-engine)
	local by=()
	[ "$2" = full ] || { scope=(--workspace "${QUICKLY[@]}") by=("${LINTED[@]}"); }
	(cd "$ROOT" && cargo build --release --locked --quiet --bin sluice &&
		"${by[@]}" cargo test --release --locked --quiet "${scope[@]}" --no-run --message-format=json) |
		python3 "$HERE/programs.py" "$kit/bin"
	cp "${CARGO_TARGET_DIR:-$ROOT/target}/release/sluice" "$kit/bin"
	strip "$kit"/bin/*
	if [ "$2" = full ]; then full_parts "$1"; else small_parts "$1"; fi
}

full_parts() { # DIR
	local kit=$1/kit wheel
	say "Fetching ONNX Runtime with its CUDA provider (256 MB)"
	use_venv "$SLUICE_CACHE" tests "$ROOT/tests/python/requirements.lock.txt" "the ONNX exporter" --no-deps --no-cache-dir
	wheel=$1/wheel
	rm -rf "$wheel" && mkdir -p "$wheel"
	"$VENV/bin/python" -m pip download --quiet --no-deps --only-binary :all: --require-hashes -r "$HERE/requirements.lock.txt" -d "$wheel"
	"$VENV/bin/python" -m zipfile -e "$wheel"/*.whl "$wheel/files"
	local capi=$wheel/files/onnxruntime/capi
	cp "$capi"/libonnxruntime.so.* "$kit/lib/libonnxruntime.so"
	cp "$capi"/libonnxruntime_providers_shared.so "$kit/lib"
	"$VENV/bin/python" "$HERE/slim.py" "$capi/libonnxruntime_providers_cuda.so" \
		"$kit/lib/libonnxruntime_providers_cuda.so" --keep "${GPU_ARCHITECTURE:-90}"
	strip "$kit"/lib/libonnxruntime.so
	rm -rf "$wheel"
	"$VENV/bin/python" "$HERE/graph.py" "$kit/tiny" --small --dtype fp16 --provider cuda >"$1/export.log" 2>&1 ||
		die "the export failed; see $1/export.log"
	for dtype in fp16 bf16; do
		say "Exporting the graph of a model of 1.5 billion parameters in $dtype (some minutes)"
		"$VENV/bin/python" "$HERE/graph.py" "$kit/models/$dtype" --dtype "$dtype" --provider cuda >"$1/export.log" 2>&1 ||
			die "the export failed; see $1/export.log"
	done
}

small_parts() { # DIR
	"$ROOT/scripts/setup.sh" >/dev/null
	cp -L "$SLUICE_DATA/lib/libonnxruntime.so" "$1/kit/lib"
	use_venv "$SLUICE_CACHE" tests "$ROOT/tests/python/requirements.lock.txt" "the ONNX exporter" --no-deps --no-cache-dir
	"$VENV/bin/python" "$HERE/graph.py" "$1/kit/models/fp32" --small --dtype fp32 --provider cpu >"$1/export.log" 2>&1 ||
		die "the export failed; see $1/export.log"
	cp -r "$1/kit/models/fp32" "$1/kit/tiny"
}

prepare() { # DIR small|full [MIB]
	[[ ${3:-60} =~ ^[1-9][0-9]*$ ]] || die "\`$3\` is no number of MiB; write for example 60"
	mkdir -p "$1"
	make_kit "$1" "$2"
	cp "$HERE"/{llama,run,pieces}.py "$ROOT/benches/gpu.sh" "$ROOT/scripts/lib.sh" "$1"
	python3 "$HERE/pieces.py" split "$1/kit" "$1/pieces" "${3:-60}"
	rm -rf "$1/kit"
}

run() { # DIR OPTION…
	local dir=$1 out=${OUT:-$1/results}
	shift
	rm -rf "$dir/kit"
	"${PYTHON:-python3}" "$dir/pieces.py" join "$dir/pieces" "$dir/kit"
	"${PYTHON:-python3}" "$dir/run.py" --kit "$dir/kit" --work "$dir/work" --out "$out" "$@"
	say "Results: $out/gpu.md and $out/gpu.json"
}

try_it() {
	local dir
	dir=$(mktemp -d)
	trap 'rm -rf "$dir"' EXIT
	prepare "$dir" small
	PYTHON=$VENV/bin/python run "$dir" --device cpu --small --out "${OUT:-$dir/results}" "$@"
}

verb=${1:-help}
shift || true
dir=$DEFAULT
case ${1:-} in '' | --*) ;; *) dir=$1 && shift ;; esac
case $verb in
prepare) prepare "$dir" full "$@" ;;
run) run "$dir" "$@" ;;
try) try_it "$@" ;;
help | -h | --help) usage ;;
*) usage >&2 && die "there is no \`$verb\`" ;;
esac
