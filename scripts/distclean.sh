#!/usr/bin/env bash
# Removes what setup.sh and test.sh made, and only that: SLUICE_DATA may hold a user's own files.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

rm -rf "${SLUICE_DATA:?}"/{lib,venv} "$SLUICE_DATA"/models/{all-minilm-l6-v2,.all-minilm-l6-v2.stamp} \
	"$SLUICE_DATA"/.{setup,apt}.lock "${SLUICE_CACHE:?}"/{tests-????????????????,.tests.lock,bench} \
	"$SLUICE_CACHE"/{tensorrt,tensorrt-rtx}-???????????????? \
	"$ROOT"/{data/tensorrt,tests/node/node_modules,.pytest_cache,.hypothesis}
say "Removed the models, the inference library and the test environments"
