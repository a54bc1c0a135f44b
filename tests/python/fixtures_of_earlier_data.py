"""What the fixture of earlier data was made with; see tests/fixtures/make_earlier_data.py."""

import hashlib
import importlib.util

import sluice

SCRIPT = sluice.ROOT / "tests" / "fixtures" / "make_earlier_data.py"
spec = importlib.util.spec_from_file_location("make_earlier_data", SCRIPT)
made = importlib.util.module_from_spec(spec)
spec.loader.exec_module(made)

Answers = made.Answers
UPSTREAM = f"http://127.0.0.1:{made.UPSTREAM}/v1"
ROOT_KEY = hashlib.sha256(made.ROOT.encode()).hexdigest()
