#!/usr/bin/env bash
# Compiles every CUDA kernel for each architecture; needs no GPU and no CUDA.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source=scripts/toolchain.sh
. "$ROOT/scripts/toolchain.sh"
# shellcheck source=scripts/cuda.sh
. "$ROOT/scripts/cuda.sh"

require_toolchain
use_cuda_compilers
check_kernels
