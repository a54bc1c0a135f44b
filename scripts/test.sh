#!/usr/bin/env bash
# Everything that has to hold before a change lands. Sets up what it needs by itself.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source=scripts/toolchain.sh
. "$ROOT/scripts/toolchain.sh"
# shellcheck source=scripts/postgres.sh
. "$ROOT/scripts/postgres.sh"
# shellcheck source=scripts/s3.sh
. "$ROOT/scripts/s3.sh"
# shellcheck source=scripts/tensorrt.sh
. "$ROOT/scripts/tensorrt.sh"
# shellcheck source=scripts/cuda.sh
. "$ROOT/scripts/cuda.sh"

step() { printf '\n==> %s\n' "$*"; }

prepare_python() {
	"$ROOT/scripts/setup.sh"
	use_tensorrt_packages
	use_tensorflow_venv
	use_harness_venv
	use_test_venv
}

use_tensorflow_venv() {
	use_venv "$SLUICE_CACHE" convert-tensorflow "$ROOT/pipelines/convert/tensorflow/requirements.lock.txt" \
		"TensorFlow for the test of its converter (1.7 GB installed)" --no-deps --no-cache-dir
}

use_harness_venv() {
	use_venv "$SLUICE_CACHE" lm-eval "$ROOT/tests/python/lm_eval/requirements.lock.txt" \
		"lm-evaluation-harness for the test of the endpoints that it talks to (1 GB installed)" --no-deps --no-cache-dir
}

use_test_venv() {
	# Without pip's cache: 3 GB that would be kept twice.
	use_venv "$SLUICE_CACHE" tests "$ROOT/tests/python/requirements.lock.txt" \
		"the reference implementations and clients for the tests (3 GB, a few minutes)" --no-deps --no-cache-dir
}

rust_tests() {
	# The kernels are compiled as a server that was built without nvcc does when it starts.
	local -x LD_LIBRARY_PATH=$CUDA_COMPILERS/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} SLUICE_TEST_REQUIRE_NVRTC=1
	# The benches, too.
	"${LINTED[@]}" cargo build --workspace --all-targets --release --locked "${QUICKLY[@]}"
	if command -v cargo-nextest >/dev/null; then
		"${LINTED[@]}" cargo nextest run --workspace --release --locked --no-fail-fast "${QUICKLY[@]}"
	else
		"${LINTED[@]}" cargo test --workspace --release --locked --no-fail-fast "${QUICKLY[@]}"
	fi
}

python_tests() {
	local without=()
	if have_node; then
		# tests/python starts the server that tests/node talks to.
		(cd tests/node && npm ci --no-audit --no-fund --loglevel=error)
	else
		say "Node is not to be had: skipping the test of the Node client"
		without=(--ignore=tests/python/test_node.py)
	fi
	use_tensorflow_venv
	export SLUICE_TENSORFLOW_PYTHON=$VENV/bin/python
	use_harness_venv
	export SLUICE_LM_EVAL_PYTHON=$VENV/bin/python
	if use_prometheus; then
		export SLUICE_TEST_REQUIRE_PROMETHEUS=1
	elif [ "$(id -u)" = 0 ]; then
		die "Prometheus is needed for the tests; run: apt-get install prometheus"
	else
		say "Prometheus is not installed and this user cannot fetch it: skipping the tests that scrape with it"
	fi
	use_test_venv
	# Most of them wait for something most of the time. A file's tests share what they have started.
	"$VENV/bin/python" -m pytest -q -n 2 --dist loadfile "${without[@]}" tests/python pipelines
}

# The control plane against its own description.
api_tests() {
	use_venv "$SLUICE_CACHE" api-tests "$ROOT/tests/api/requirements.lock.txt" "the tester of the API" --no-deps
	"$VENV/bin/python" -m pytest -q tests/api
}

have_node() {
	command -v npm >/dev/null || apt_install "the Node client's test" nodejs npm
}

# Debian's package, unpacked but not installed: its service would take a port. Needs no root.
use_prometheus() {
	command -v prometheus >/dev/null && command -v promtool >/dev/null && return
	local folder=$SLUICE_CACHE/prometheus
	if [ ! -x "$folder/usr/bin/promtool" ]; then
		command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || return 1
		say "Fetching Prometheus for the tests that scrape with it (Debian's package, 38 MB)"
		unpack_package prometheus "$folder" || return 1
	fi
	export PATH=$folder/usr/bin:$PATH
}

# Whatever runs beside, and the servers for the tests, end with this script.
leave() {
	stop_beside
	stop_postgres
	stop_s3
}

cd "$ROOT"
require_toolchain
# Before anything is built, so that it is built once and with the shim to TensorRT.
fetch_tensorrt_headers

# The network and the disk work while the compiler does.
start_beside prepare_python
trap leave EXIT

step "Lint"
scripts/lint.sh --without-clippy
step "Kernels"
use_cuda_compilers
check_kernels
step "Build"
cargo build --release --locked --bin sluice

# What the tests of every language go by. The hub is out of reach on purpose: a test that
# would fetch a model must fail, not hang.
# The Rust tests leave the stand-ins for a GPU and TensorRT to those in Python.
export SLUICE_STANDINS=$TARGET_DIR/standins
export SLUICE_BIN=$BINARY HF_HUB_OFFLINE=1 LITELLM_LOCAL_MODEL_COST_MAP=True TOKENIZERS_PARALLELISM=false

step "Rust tests"
# Waits for the one that runs beside; they want the inference library, not the Python environment.
scripts/setup.sh
use_tensorrt_packages
start_postgres
start_s3
rust_tests
step "Waiting for the Python environment"
wait_beside
step "Python tests, and the Node client's"
python_tests
step "The API by its own description"
api_tests
step "All tests passed"
