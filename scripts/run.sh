#!/usr/bin/env bash
# From a clean checkout to a running server: prepares the models and builds the binary side by
# side, then becomes the server. Arguments go to `sluice serve`.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# shellcheck source=scripts/toolchain.sh
. "$ROOT/scripts/toolchain.sh"
require_toolchain

start_beside "$ROOT/scripts/setup.sh"

cd "$ROOT"
if [ ! -x "$BINARY" ]; then
	say "Building sluice (a few minutes the first time)"
fi
cargo build --release --locked --bin sluice
wait_beside

exec "$BINARY" serve "$@"
