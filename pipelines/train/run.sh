#!/usr/bin/env bash
# Rebuild the example model: data, tokenizer, training, export, probes, scores.
#
#   pipelines/train/run.sh             all of it into .cache/train and examples/helpdesk
#   PYTHON=... pipelines/train/run.sh  with an environment that already has requirements.txt
#   WORK=... OUT=...                   other folders for what is built
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
work=${WORK:-$root/.cache/train}
out=${OUT:-$root/examples/helpdesk}
python=${PYTHON:-$work/venv/bin/python}
steps=7
step=0

say() { step=$((step + 1)); printf '[%d/%d %4ds] %s\n' "$step" "$steps" "$SECONDS" "$*"; }
tool() { "$python" "$here/$1.py" "${@:2}"; }

mkdir -p "$work"
# Waiting threads sleep, so that a busy machine does not slow the run out of proportion.
export OMP_WAIT_POLICY=PASSIVE PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1 TQDM_DISABLE=1

say "Python packages (about 3 GB on the first run)"
if [ -z "${PYTHON:-}" ]; then
  [ -x "$python" ] || python3 -m venv "$work/venv"
  "$python" -m pip install --quiet --require-hashes --requirement "$here/requirements.txt"
fi

say "test set"
python3 "$root/examples/helpdesk/generate.py" --out "$out/test.jsonl"

say "tokenizer"
tool tokenizer --work "$work"

say "training: v1 from nothing, v2 from v1, v3 from v2 by mistake (logs in $work)"
for version in v1 v2 v3; do
  tool train --version "$version" --work "$work" 2>&1 | tee "$work/$version.log"
done

say "export: v1 and v2 in float32, v3 in 4 bits"
for version in v1 v2 v3; do tool export --version "$version" --work "$work" --out "$out"; done

say "parity probes"
for version in v1 v2; do tool probe "$work/checkpoints/$version" "$out/models/$version"; done
tool dequantise "$out/models/v3" "$work/checkpoints/v3-read-back"
tool probe "$work/checkpoints/v3-read-back" "$out/models/v3"

say "scores on the held-out test set"
tool evaluate --record --test "$out/test.jsonl" "$out/models/v1" "$out/models/v2" "$out/models/v3" | tee "$work/scores.md"
