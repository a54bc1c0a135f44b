#!/usr/bin/env bash
# From a clean checkout to a running server: prepares the models and builds the binary side by
# side, then becomes the server. Arguments go to `sluice serve`.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# shellcheck source=scripts/toolchain.sh
. "$ROOT/scripts/toolchain.sh"
require_toolchain

"$ROOT/scripts/setup.sh" > >(sed -u 's/^/[setup] /') 2>&1 &
setup=$!
# An interrupted or failed build must not leave the downloads running behind the prompt.
trap 'kill "$setup" 2>/dev/null || true' EXIT

cd "$ROOT"
if [ ! -x "$BINARY" ]; then
	say "Building sluice (a few minutes the first time)"
fi
cargo build --release --locked --bin sluice
wait "$setup" || die "setup failed; see the [setup] lines above"
trap - EXIT

exec "$BINARY" serve "$@"
