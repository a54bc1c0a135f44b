#!/usr/bin/env bash
# Rebuilds the three versions of the example model and compares them with the shipped ones.
#   scripts/example-models.sh [OPTION...]     options of examples/helpdesk/rebuild.py
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

cd "$ROOT"
use_venv "$SLUICE_CACHE" convert-torch "$ROOT/pipelines/convert/causal_lm/requirements.lock.txt" \
	"PyTorch and the model builder (3 GB, a few minutes)" --no-deps --no-cache-dir
exec "$VENV/bin/python" examples/helpdesk/rebuild.py "$@"
