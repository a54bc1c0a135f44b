#!/usr/bin/env bash
# Measures embeddings, generation and gateway overhead beside peers, and writes docs/benchmarks.md.
#   scripts/bench.sh [embed] [generate] [gateway]      all three by default
# BENCH_ROUNDS (3) and BENCH_SECONDS (10) set how long; everything comes from package registries.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source=scripts/toolchain.sh
. "$ROOT/scripts/toolchain.sh"

HARNESS=$ROOT/benches/harness
WORK=$SLUICE_CACHE/bench
ROUNDS=${BENCH_ROUNDS:-3}
SECONDS_EACH=${BENCH_SECONDS:-10}

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

prepare_llama() { # a random-weight model in every peer's format
	local folder
	folder=$WORK/llama-$(digest_of "$HARNESS/random_llama.py")
	LLAMA=$folder
	[ -e "$folder/.complete" ] && return
	say "Making a random-weight Llama"
	"$BENCH_PYTHON" "$HARNESS/random_llama.py" "$folder"
	"$TESTS_VENV/bin/python" -m onnxruntime_genai.models.builder -i "$folder/hf" -o "$folder/onnx" \
		-p fp32 -e cpu -c "$folder/cache" >"$folder/builder.log" 2>&1 || die "the ONNX export failed; see $folder/builder.log"
	touch "$folder/.complete"
}

bench_embed() { harness embed; }

bench_generate() {
	use_venv "$SLUICE_CACHE" tests "$ROOT/tests/python/requirements.lock.txt" "the ONNX exporter" --no-deps --no-cache-dir
	TESTS_VENV=$VENV
	prepare_llama
	harness generate --models "$LLAMA"
}

bench_gateway() {
	need_commands nginx:nginx-light haproxy:haproxy
	use_venv "$WORK" litellm "$HARNESS/requirements-litellm.lock.txt" "LiteLLM's proxy" --no-deps
	harness gateway --mock "$TARGET_DIR/release/examples/mock-upstream" --litellm "$VENV/bin/litellm"
}

cd "$ROOT"
require_toolchain
mkdir -p "$WORK"
need_commands wrk:wrk taskset:util-linux
"$ROOT/scripts/setup.sh"
cargo build --release --locked --bin sluice --example mock-upstream
use_venv "$WORK" harness "$HARNESS/requirements.lock.txt" "the peers" --no-deps
BENCH_PYTHON=$VENV/bin/python
for part in "${@:-embed generate gateway}"; do
	for name in $part; do
		say "==> $name"
		"bench_$name"
	done
done
"$BENCH_PYTHON" "$HARNESS/report.py" "$WORK" docs/benchmarks.md
