"""The story that the examples tell, told to its end: real pipelines, models and traffic."""

import hashlib
import os
import sys
import tomllib

import sluice

PIPELINE = sluice.ROOT / "pipelines" / "convert" / "causal_lm"


def test_the_lifecycle_is_told_to_its_end(tmp_path):
    about = tomllib.loads((PIPELINE / "pipeline.toml").read_text())
    digest = hashlib.sha256((PIPELINE / about["requirements"]).read_bytes()).hexdigest()[:16]
    # The tests' environment holds what the pipeline's does, and more.
    (tmp_path / f"{about['environment']}-{digest}").symlink_to(sys.prefix)
    environment = {
        **os.environ,
        "SLUICE_BIN": str(sluice.BINARY),
        "SLUICE_ENVIRONMENTS": str(tmp_path),
        "TMPDIR": str(tmp_path),
        "ROWS": "120",
    }
    environment.pop("SLUICE_API_KEYS", None)
    told = sluice.run_script(sluice.ROOT / "examples" / "lifecycle.sh", environment, 900)
    assert told.returncode == 0, told.stdout[-4000:] + told.stderr[-4000:]
    page = told.stdout[told.stdout.index("And all of it on one page") :]
    states = [next((line for line in page.splitlines() if line.startswith(version)), "") for version in ("v1", "v2", "v3")]
    for line, state in zip(states, ("approved", "live", "pending_approval"), strict=True):
        assert state in line, page
    assert "triage failed" in states[2] and "parity passed" in states[1]
    assert " 0 errors" in told.stdout
