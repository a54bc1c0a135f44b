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

# The example models, unless the user has a configuration or names others.
if [ $# = 0 ] && [ ! -e sluice.toml ]; then
	set -- helpdesk=examples/helpdesk/models/v2 "$SLUICE_DATA/models/all-minilm-l6-v2"
fi
exec "$BINARY" serve "$@"
