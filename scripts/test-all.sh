#!/usr/bin/env bash
# `make test` with all that takes hours: each fault of docs/answers.md at both shares, forms and all endpoints, and more kills.
#   SLUICE_TEST_KILLS (200)  how often each crash test kills a process
set -euo pipefail
export SLUICE_TEST_ALL=1 SLUICE_TEST_KILLS=${SLUICE_TEST_KILLS:-200}
exec "$(dirname "${BASH_SOURCE[0]}")/test.sh"
