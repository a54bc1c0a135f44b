"""Fixtures of the pipelines' tests: runs of the real command line, and the real server over what comes out."""

import functools
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

PIPELINES = Path(__file__).resolve().parent
# The shared packages, and the end-to-end tests' own (servers, random models).
sys.path[:0] = [str(PIPELINES), str(PIPELINES.parent / "tests" / "python")]


@dataclass
class Run:
    """What one run of a pipeline left behind."""

    status: int
    output: Path
    log: str

    @property
    def model(self) -> Path:
        return self.output / "model"

    def json(self, name: str) -> dict:
        return json.loads((self.output / name).read_text(encoding="utf-8"))

    def measure(self, name: str) -> float:
        return self.json("parity.json")["measures"][name]["value"]

    def succeeded(self) -> "Run":
        assert self.status == 0, self.log
        assert not (self.output / "error.json").exists()
        assert (self.output / "result.json").exists()
        return self

    def failed(self, code: str, *words: str) -> dict:
        """The error, which must be of this code and say these words; and nothing may look like a result."""
        assert self.status != 0, self.log
        error = self.json("error.json")
        assert error["code"] == code, error
        for word in words:
            assert word in error["message"], error["message"]
        assert {path.name for path in self.output.iterdir()} <= {"error.json", "parity.json"}
        return error


@pytest.fixture(scope="session")
def command(tmp_path_factory):
    """Runs `pipelines/convert/NAME/main.py` with parameters from a file, as the task engine does."""

    def start(name: str, python: str | Path = sys.executable, **params) -> Run:
        folder = tmp_path_factory.mktemp(name)
        given = folder / "params.json"
        given.write_text(json.dumps(params, default=str), encoding="utf-8")
        main = PIPELINES / "convert" / name / "main.py"
        line = [str(python), str(main), "--params", str(given), "--output", str(folder / "output")]
        log = folder / "log"
        with log.open("w") as sink:
            done = subprocess.run(line, cwd=folder, stdout=sink, stderr=sink, stdin=subprocess.DEVNULL)
        return Run(done.returncode, folder / "output", log.read_text(errors="replace")[-4000:])

    return start


@pytest.fixture
def convert(tmp_path_factory, capfd):
    """The same within this process, which has PyTorch in memory: most of a small conversion is its import."""

    def start(name: str, **params) -> Run:
        from sluice_pipeline import Failure, shell
        from sluice_pipeline import params as parameters

        pipeline = load(name)
        output = tmp_path_factory.mktemp(name) / "output"
        try:
            given = parameters.read(pipeline.params, json.loads(json.dumps(params, default=str)))
            status = shell.carry_out(pipeline, given, output)
        except Failure as failure:
            status = shell.fail(output, failure, status=2)
        shutil.rmtree(output / shell.UNFINISHED, ignore_errors=True)
        return Run(status, output, "".join(capfd.readouterr())[-4000:])

    return start


@functools.cache
def load(name: str):
    """The pipeline that a `main.py` declares."""
    main = PIPELINES / "convert" / name / "main.py"
    spec = importlib.util.spec_from_file_location(f"pipeline_{name}", main)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.PIPELINE


@pytest.fixture(scope="session")
def serve(tmp_path_factory):
    """Starts the real server over converted folders."""
    import sluice

    running = []

    def begin(**models: Path) -> sluice.Server:
        deployments = [{"name": name.replace("_", "-"), "path": path} for name, path in models.items()]
        server = sluice.start(tmp_path_factory.mktemp("served"), deployments)
        running.append(server)
        return server

    yield begin
    for server in running:
        server.stop()


@pytest.fixture(autouse=True)
def without_events(monkeypatch):
    monkeypatch.delenv("SLUICE_EVENTS_FD", raising=False)
    assert "SLUICE_EVENTS_FD" not in os.environ
