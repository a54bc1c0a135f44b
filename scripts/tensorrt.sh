#!/usr/bin/env bash
# What engine/tensorrt needs to be built and tested.
#   scripts/tensorrt.sh headers   fetches the vendor's headers (1 MB) to data/tensorrt/include
#   scripts/tensorrt.sh bindings  writes engine/tensorrt/src/bindings.rs anew
#   scripts/tensorrt.sh test      runs the crate's tests with everything they can use
#   scripts/tensorrt.sh rtx       runs those that want the builder of TensorRT-RTX (95 MB, 350 MB installed)
# Also sourced, after lib.sh and toolchain.sh, for its functions.
# The headers stand under Apache-2.0 and are in no package of their own; a crate of bindings carries them. Cargo
# fetches that crate without its dependencies, and nothing of it is compiled.
if [ "${BASH_SOURCE[0]}" = "$0" ]; then
	set -euo pipefail
	# shellcheck source=scripts/lib.sh
	. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
	# shellcheck source=scripts/toolchain.sh
	. "$ROOT/scripts/toolchain.sh"
fi

HEADERS_CRATE=trtx-sys
HEADERS_VERSION=0.9.1
HEADERS_FILE=$HEADERS_CRATE-$HEADERS_VERSION+rtx1.7
HEADERS_SHA256=5480ee056292951daa1bc74532162d6cb75190f091e45d7d97c0c356916ae171
# Beside the sources rather than in $SLUICE_DATA: cargo looks there, whoever calls it.
HEADERS=$ROOT/data/tensorrt

fetch_tensorrt_headers() {
	unpack_tensorrt_headers include TRT-Enterprise-11.4
}

unpack_tensorrt_headers() { # NAME FOLDER: a folder of the crate to one of $HEADERS
	local target=$HEADERS/$1 crate work
	[ -f "$target/.stamp" ] && [ "$(<"$target/.stamp")" = "$HEADERS_SHA256" ] && return
	mkdir -p "$HEADERS"
	exec 7>"$HEADERS/.lock"
	flock 7
	crate=$(headers_crate_file)
	if [ -z "$crate" ]; then
		say "Fetching TensorRT's headers (1 MB)"
		# Outside the workspace, which knows nothing of this crate. Asking about a crate is how cargo
		# fetches one without what it depends on.
		(cd / && cargo info --quiet "$HEADERS_CRATE@$HEADERS_VERSION" >/dev/null)
		crate=$(headers_crate_file)
	fi
	[ -n "$crate" ] || die "cargo fetched $HEADERS_CRATE $HEADERS_VERSION, but not to its registry's cache"
	say "$HEADERS_SHA256  $crate" | sha256sum --check --status ||
		die "$crate is not the crate that was looked at: its SHA-256 is not $HEADERS_SHA256"
	work=$(mktemp -d "$HEADERS/.work.XXXXXX")
	tar -xzf "$crate" -C "$work" --strip-components=2 "$HEADERS_FILE/TensorRT-Headers/cuda_runtime_api.h"
	tar -xzf "$crate" -C "$work" --strip-components=3 "$HEADERS_FILE/TensorRT-Headers/$2"
	chmod 755 "$work"
	say "$HEADERS_SHA256" >"$work/.stamp"
	rm -rf "$target"
	mv "$work" "$target"
	exec 7>&-
	# So that a build made without them looks again.
	touch -c "$ROOT/kernels/tensorrt_shim.h"
}

headers_crate_file() { # → where cargo keeps it; empty if it does not
	local file
	for file in "${CARGO_HOME:-${HOME:-}/.cargo}"/registry/cache/*/"$HEADERS_FILE.crate"; do
		[ -f "$file" ] && say "$file" && return
	done
	return 0
}

use_tensorrt_packages() {
	use_venv "$SLUICE_CACHE" tensorrt "$ROOT/scripts/requirements/tensorrt.lock.txt" \
		"TensorRT's lean runtime and libclang for the tests (70 MB)" --no-deps --no-cache-dir
	local site
	site=$(site_of_venv)
	# Not LIBCLANG_PATH: cargo would build bindgen anew for whoever sets it and whoever does not.
	export SLUICE_TEST_LIBCLANG=$site/clang/native
	export SLUICE_TEST_TENSORRT_LEAN=$site/tensorrt_lean_libs/libnvinfer_lean.so.11
	export SLUICE_TEST_REQUIRE_TENSORRT=1
}

site_of_venv() {
	"$VENV/bin/python" -c 'import sysconfig; print(sysconfig.get_path("platlib"))'
}

test_rtx() {
	unpack_tensorrt_headers include-rtx TRT-RTX-1.7
	"$ROOT/scripts/setup.sh"
	use_venv "$SLUICE_CACHE" tensorrt-rtx "$ROOT/scripts/requirements/tensorrt-rtx.lock.txt" \
		"TensorRT-RTX (95 MB)" --no-deps --no-cache-dir
	local site
	site=$(site_of_venv)
	SLUICE_TENSORRT_INCLUDE=$HEADERS/include-rtx \
		SLUICE_TEST_TENSORRT_RTX=$site/tensorrt_rtx_libs/libtensorrt_rtx.so.1 \
		cargo test --release --locked -p sluice-tensorrt --test abi rtx::
}

tensorrt_main() {
	require_toolchain
	case ${1:-test} in
	headers) fetch_tensorrt_headers ;;
	bindings)
		use_tensorrt_packages
		# Without the headers, so that bindings that do not fit the shim are not in the way.
		SLUICE_TENSORRT_INCLUDE=none SLUICE_WRITE_BINDINGS=1 \
			cargo test --release --locked --quiet -p sluice-tensorrt --test bindings the_bindings
		;;
	test)
		fetch_tensorrt_headers
		use_tensorrt_packages
		cargo test --release --locked --no-fail-fast -p sluice-tensorrt
		;;
	rtx) test_rtx ;;
	*) die "$1 is none of: headers, bindings, test, rtx" ;;
	esac
}

if [ "${BASH_SOURCE[0]}" = "$0" ]; then
	tensorrt_main "$@"
fi
