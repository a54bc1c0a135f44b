#!/usr/bin/env bash
# Resolves each requirements.txt into the hash-pinned lock beside it, for every supported
# Python and processor at once. No index address gets into a lock: pip uses the one it is set up for.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

command -v uv >/dev/null || {
	echo "error: uv is needed to resolve lock files; run: pip install uv" >&2
	exit 1
}

lock() { # REQUIREMENTS LOCK [OPTION...]
	local requirements=$1 lock=$2
	shift 2
	UV_CUSTOM_COMPILE_COMMAND="make lock" uv pip compile --quiet --universal --python-version 3.11 \
		--generate-hashes --no-emit-index-url --no-emit-find-links "$@" "$requirements" --output-file "$lock"
	echo "$lock: $(grep -c '==' "$lock") packages"
}

# `--no-deps`: these lists name all that is used, and leave out what is not.
lock scripts/requirements/onnxruntime.txt scripts/requirements/onnxruntime.lock.txt --no-deps
lock pipelines/convert/requirements.txt pipelines/convert/requirements.lock.txt --no-deps
# PyTorch from the index is the CUDA build. It runs on a CPU without these, which are a fifth of it.
unused=(triton nvidia-cusolver nvidia-nvtx nvidia-cuda-cccl cuda-bindings cuda-pathfinder cuda-toolkit)
lock tests/python/requirements.txt tests/python/requirements.lock.txt "${unused[@]/#/--no-emit-package=}"
lock benches/harness/requirements.txt benches/harness/requirements.lock.txt
lock benches/harness/requirements-litellm.txt benches/harness/requirements-litellm.lock.txt
