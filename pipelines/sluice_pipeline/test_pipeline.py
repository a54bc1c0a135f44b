"""The shell around every pipeline, tried with pipelines of a few lines as real processes."""

import json
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sluice_pipeline import Failure, choice, integer, refused
from sluice_pipeline.params import described, read

PIPELINES = Path(__file__).resolve().parents[1]
ALL = sorted(path.parent for path in PIPELINES.glob("**/pipeline.toml"))

HEAD = f"""
import os, signal, sys, time
from pathlib import Path
sys.path.insert(0, {str(PIPELINES)!r})
from sluice_pipeline import *

def work(job):
    job.events.step("first")
"""
TAIL = """
sys.exit(run(Pipeline(home=Path(__file__).parent, steps=("first", "second"), work=work, params=(
    text("source", "where from"),
    choice("precision", "how fine", ("fp32", "int8"), "fp32"),
    integer("block_size", "how wide", 16, 256, 32),
    number("limit", "how far", 0, 1, None),
    flag("careful", "look twice"),
))))
"""


@pytest.fixture
def pipeline(tmp_path):
    """Makes a pipeline whose work is `body`; gives the command that runs it into tmp_path/output."""

    def make(body: str = "return {}") -> list[str]:
        indented = "".join(f"    {line}\n" for line in body.splitlines())
        (tmp_path / "main.py").write_text(HEAD + indented + TAIL)
        (tmp_path / "pipeline.toml").write_text('name = "tried"\nsummary = "A pipeline to try."\n')
        return [sys.executable, str(tmp_path / "main.py"), "--output", str(tmp_path / "output")]

    return make


def outcome(tmp_path: Path, name: str) -> dict:
    return json.loads((tmp_path / "output" / name).read_text(encoding="utf-8"))


def names(tmp_path: Path) -> set[str]:
    return {path.name for path in (tmp_path / "output").iterdir()}


def test_a_result_is_whole_and_the_events_say_how_it_came(pipeline, tmp_path):
    command = pipeline(
        'job.events.progress(0.5, "half")\n'
        'job.events.metric("loss", 1.5, step=10)\n'
        'job.events.step("second")\n'
        'job.events.warning("mind this")\n'
        '(job.folder / "weights").write_text(job.params.precision)\n'
        '(job.folder / "weights").chmod(0o600)\n'
        '(job.scratch / "waste").write_text("x")\n'
        "return {'block_size': job.params.block_size, 'careful': job.params.careful, 'limit': job.params.limit}"
    )
    params = tmp_path / "params.json"
    params.write_text(json.dumps({"source": "there", "block_size": 64, "limit": None}))
    read, write = os.pipe()
    done = subprocess.run(
        [*command, "--params", params, "--precision", "int8", "--careful"],
        pass_fds=[write],
        env={**os.environ, "SLUICE_EVENTS_FD": str(write)},
        capture_output=True,
        text=True,
    )
    os.close(write)
    assert done.returncode == 0, done.stderr
    with open(read, encoding="utf-8") as lines:
        events = [json.loads(line) for line in lines]
    assert events == [
        {"event": "step", "name": "first", "index": 1, "of": 2},
        {"event": "progress", "fraction": 0.5, "message": "half"},
        {"event": "metric", "name": "loss", "value": 1.5, "step": 10},
        {"event": "step", "name": "second", "index": 2, "of": 2},
        {"event": "warning", "message": "mind this"},
    ]
    assert done.stderr == ""
    expected = {"pipeline": "tried", "folder": "model", "block_size": 64, "careful": True, "limit": None}
    assert outcome(tmp_path, "result.json") == expected
    assert names(tmp_path) == {"model", "result.json"}
    weights = tmp_path / "output" / "model" / "weights"
    assert weights.read_text() == "int8"
    assert weights.stat().st_mode & 0o777 == 0o644


def test_a_person_is_told_in_words(pipeline):
    done = subprocess.run([*pipeline(), "--source", "there"], capture_output=True, text=True)
    assert done.returncode == 0
    assert "[1/2" in done.stderr and "first" in done.stderr


def test_help_gives_every_parameter(pipeline):
    done = subprocess.run([*pipeline(), "--help"], capture_output=True, text=True)
    assert done.returncode == 0
    for word in ("A pipeline to try.", "--source", "--precision", "--block-size", "--careful", "fp32, int8"):
        assert word in done.stdout


@pytest.mark.parametrize(
    ("given", "param", "words"),
    [
        ({}, "source", ["`source` is missing"]),
        ({"source": 3}, "source", ["`source` is 3", "a text"]),
        ({"source": "x", "precision": "fp8"}, "precision", ['`precision` is "fp8"', "one of fp32, int8"]),
        ({"source": "x", "block_size": 8}, "block_size", ["`block_size` is 8", "a whole number from 16 to 256"]),
        ({"source": "x", "block_size": True}, "block_size", ["a whole number"]),
        ({"source": "x", "limit": "wide"}, "limit", ['`limit` is "wide"', "a number from 0 to 1"]),
        ({"source": "x", "careful": "yes"}, "careful", ["true or false"]),
        ({"source": "x", "precison": "fp32"}, "precison", ["no parameter", "did you mean `precision`?"]),
    ],
)
def test_wrong_parameters_are_named(pipeline, tmp_path, given, param, words):
    params = tmp_path / "params.json"
    params.write_text(json.dumps(given))
    done = subprocess.run([*pipeline(), "--params", params], capture_output=True, text=True)
    assert done.returncode == 2
    error = outcome(tmp_path, "error.json")
    assert error["code"] == "bad_params"
    assert [wrong["param"] for wrong in error["details"]["errors"]] == [param]
    for word in words:
        assert word in error["message"]
    assert error["message"] in done.stderr
    assert names(tmp_path) == {"error.json"}


def test_parameters_that_do_not_go_together_are_named():
    width = refused(integer("width", "how wide", 16, 256, None), "is for int4", beside={"precision": ("fp32",)})
    params = (choice("precision", "weights", ("fp32", "int4"), "fp32"), width)
    with pytest.raises(Failure, match="`width` is for int4"):
        read(params, {"width": 32})
    assert read(params, {"width": 32, "precision": "int4"}).width == 32
    assert described(params)["properties"]["width"]["x-refused"][0]["because"] == "is for int4"


def test_all_wrong_parameters_are_named_at_once(pipeline, tmp_path):
    done = subprocess.run([*pipeline(), "--block-size", "7", "--precision", "x"], capture_output=True, text=True)
    assert done.returncode == 2
    errors = outcome(tmp_path, "error.json")["details"]["errors"]
    assert {error["param"] for error in errors} == {"source", "precision", "block_size"}


@pytest.mark.parametrize("text", ["[1]", "{", '"x"'])
def test_parameters_that_are_no_object_are_refused(pipeline, tmp_path, text):
    params = tmp_path / "params.json"
    params.write_text(text)
    assert subprocess.run([*pipeline(), "--params", params], capture_output=True).returncode == 2
    assert outcome(tmp_path, "error.json")["code"] == "bad_params"


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        ('raise Failure("not_today", "`source` is closed", param="source")', "not_today", "`source` is closed"),
        ('raise KeyError("gone")', "internal", "KeyError: 'gone'"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "killed", "SIGKILL (is there too little memory?)"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "killed", "SIGSEGV"),
    ],
)
def test_a_failure_leaves_its_reason_and_no_model(pipeline, tmp_path, body, code, message):
    command = pipeline(f'(job.folder / "half").write_text("x")\n{body}')
    done = subprocess.run([*command, "--source", "there"], capture_output=True, text=True)
    assert done.returncode == 1
    error = outcome(tmp_path, "error.json")
    assert error["code"] == code
    assert message in error["message"]
    assert names(tmp_path) == {"error.json"}


def test_a_report_below_its_limits_fails_with_the_numbers(pipeline, tmp_path):
    command = pipeline(
        'report = ParityReport("tensor", "the source", "fp32")\n'
        'report.add("cosine", 0.5, least=0.9)\n'
        'report.add("error", float("nan"), most=1.0)\n'
        'report.add("size", 3)\n'
        "report.settle(job.events, job.output, job.folder)"
    )
    assert subprocess.run([*command, "--source", "there"], capture_output=True).returncode == 1
    error = outcome(tmp_path, "error.json")
    assert error["code"] == "parity_failed"
    assert "cosine is 0.5, at least 0.9 is allowed; error is not a number, at most 1 is allowed" in error["message"]
    assert error["details"]["parity"] == outcome(tmp_path, "parity.json")
    assert error["details"]["parity"]["passed"] is False
    assert names(tmp_path) == {"error.json", "parity.json"}


def test_a_new_run_replaces_an_older_one_and_nothing_else(pipeline, tmp_path):
    command = [*pipeline('(job.folder / job.params.source).write_text("x")\nreturn {}'), "--source"]
    assert subprocess.run([*command, "one"], capture_output=True).returncode == 0
    assert subprocess.run([*command, "two"], capture_output=True).returncode == 0
    assert [path.name for path in (tmp_path / "output" / "model").iterdir()] == ["two"]
    (tmp_path / "output" / "result.json").unlink()
    assert subprocess.run([*command, "three"], capture_output=True).returncode == 2
    assert outcome(tmp_path, "error.json")["code"] == "output_in_use"
    assert [path.name for path in (tmp_path / "output" / "model").iterdir()] == ["two"]


@pytest.mark.parametrize("existed", [False, True])
def test_sigterm_ends_everything_and_leaves_nothing(pipeline, tmp_path, existed):
    """Also where the work does not listen, and has started a program of its own."""
    command = pipeline(
        "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})\n"
        'beside = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"\n'
        '(job.folder / "half").write_text("x")\n'
        'run_beside([sys.executable, "-c", beside])\n'
        "return {}"
    )
    if existed:
        (tmp_path / "output").mkdir()
    process = subprocess.Popen(
        [*command, "--source", "there"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    beside = int(process.stdout.readline())
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 128 + signal.SIGTERM
    assert "nothing is left behind" in process.stderr.read()
    process.stdout.close()
    process.stderr.close()
    if existed:
        assert names(tmp_path) == set()
    else:
        assert not (tmp_path / "output").exists()
    wait_for_end(beside)


def wait_for_end(pid: int) -> None:
    """Fails if the process is still there after a minute."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        assert select.select([descriptor], [], [], 60)[0], "the program started beside is still running"
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("folder", ALL, ids=lambda folder: folder.name)
class TestEveryPipeline:
    def test_is_complete(self, folder):
        import tomllib

        about = tomllib.loads((folder / "pipeline.toml").read_text())
        assert set(about) - {"environment"} == {"name", "summary", "framework", "entry", "requirements", "python"}
        assert (folder / about["entry"]).is_file()
        assert (folder / about["requirements"]).is_file()
        assert (folder / "requirements.txt").is_file()

    def test_lock_is_hashed_and_names_no_index(self, folder):
        lines = (folder / "requirements.lock.txt").read_text().splitlines()
        pinned = [line for line in lines if "==" in line and not line.lstrip().startswith("#")]
        assert pinned
        assert all(line.endswith("\\") for line in pinned)
        assert not [line for line in lines if "://" in line or line.startswith("-")]

    def test_explains_itself_without_its_environment(self, folder):
        """`-S`: no installed package is in reach."""
        done = subprocess.run([sys.executable, "-S", folder / "main.py", "--help"], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert "examples:" in done.stdout
        assert "--source" in done.stdout

    def test_tells_its_parameters_as_they_are_written_beside_it(self, folder):
        """Anew: python main.py --describe > parameters.json"""
        done = subprocess.run([sys.executable, "-S", folder / "main.py", "--describe"], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout) == json.loads((folder / "parameters.json").read_text(encoding="utf-8"))


def test_parameters_are_told_as_a_schema(pipeline):
    done = subprocess.run([*pipeline()[:2], "--describe"], capture_output=True, text=True)
    assert json.loads(done.stdout) == {
        "type": "object",
        "properties": {
            "source": {"description": "where from", "type": "string"},
            "precision": {"description": "how fine: fp32, int8", "enum": ["fp32", "int8"], "default": "fp32"},
            "block_size": {"description": "how wide", "type": "integer", "minimum": 16, "maximum": 256, "default": 32},
            "limit": {"description": "how far", "type": "number", "minimum": 0, "maximum": 1},
            "careful": {"description": "look twice", "type": "boolean", "default": False},
        },
        "required": ["source"],
        "additionalProperties": False,
    }


def test_the_pipelines_on_pytorch_share_one_environment():
    locks = [
        PIPELINES / "convert" / name / "requirements.lock.txt" for name in ("causal_lm", "encoder", "torch_module")
    ]
    assert len({lock.read_bytes() for lock in locks}) == 1
