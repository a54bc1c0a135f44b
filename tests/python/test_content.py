"""Content and conversions as people use them: the command line against a real server, a real pipeline, a real model."""

import hashlib
import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import sluice

PIPELINE = sluice.ROOT / "pipelines" / "convert" / "causal_lm"
HELPDESK = sluice.ROOT / "examples" / "helpdesk"
PROMPT = "asset PC081745. Our new colleague needs access to ERP"


@pytest.fixture
def control(start, tmp_path):
    """A server with records and content of its own, whose conversions find this environment made."""
    data = tmp_path / "data"
    about = tomllib.loads((PIPELINE / "pipeline.toml").read_text())
    digest = hashlib.sha256((PIPELINE / about["requirements"]).read_bytes()).hexdigest()[:16]
    environments = data / "venv"
    environments.mkdir(parents=True)
    # The tests' environment holds what the pipeline's does, and more.
    (environments / f"{about.get('environment', about['name'])}-{digest}").symlink_to(sys.prefix)
    sections = {
        "control": {"database": f"sqlite:{data / 'sluice.db'}"},
        "control.artifacts.upload": {"part_bytes": 1 << 20},
        "control.artifacts.import": {"folders": [str(tmp_path / "outside")]},
    }
    server = start([], sections=sections, env={"SLUICE_DATA": str(data)})
    # Models are served before there is a database.
    server.wait_until(lambda: server.client.get("/api/v1/models").status_code == 200, what="the control plane")
    return server


def command(server: sluice.Server, *arguments) -> list[str]:
    return [str(sluice.BINARY), *(str(argument) for argument in arguments), "--url", server.url]


def run(server: sluice.Server, *arguments) -> subprocess.CompletedProcess:
    return subprocess.run(command(server, *arguments), capture_output=True, text=True, timeout=600)


def succeeded(server: sluice.Server, *arguments) -> str:
    done = run(server, *arguments)
    assert done.returncode == 0, (done.stdout, done.stderr, server.log_tail())
    return done.stdout.strip()


def test_a_folder_comes_back_as_it_was_sent(control, tmp_path):
    folder = tmp_path / "folder"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "weights.bin").write_bytes(os.urandom(3 * (1 << 20) + 5))
    (folder / "empty").write_bytes(b"")
    (folder / "名前 with space").write_text("x")
    (folder / ".secret").write_text("stays here")
    artifact = succeeded(control, "artifact", "push", folder, "--name", "thing", "--kind", "model")
    back = tmp_path / "back"
    succeeded(control, "artifact", "pull", artifact, back)
    names = {path.relative_to(back) for path in back.rglob("*") if path.is_file()}
    assert names == {Path("deep/weights.bin"), Path("empty"), Path("名前 with space")}
    assert all((back / name).read_bytes() == (folder / name).read_bytes() for name in names)
    # The same content is the same artifact; a file that was spoilt is fetched again.
    assert succeeded(control, "artifact", "push", folder, "--name", "thing") == artifact
    (back / "deep" / "weights.bin").write_bytes(b"spoilt")
    succeeded(control, "artifact", "pull", artifact, back)
    assert (back / "deep" / "weights.bin").read_bytes() == (folder / "deep" / "weights.bin").read_bytes()
    missing = run(control, "artifact", "push", tmp_path / "nothing", "--name", "x")
    assert missing.returncode == 1 and "nothing" in missing.stderr


def test_a_push_that_is_killed_goes_on(control, tmp_path):
    file = tmp_path / "weights.bin"
    file.write_bytes(os.urandom(64 << 20))
    push = ("artifact", "push", file, "--name", "large", "--parallel", "1")
    first = subprocess.Popen(command(control, *push), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def uploads():
        return control.client.get("/api/v1/uploads").json()["items"]

    try:
        control.wait_until(lambda: any(upload["received_bytes"] > 0 for upload in uploads()), what="a first part")
    finally:
        first.kill()
        first.wait()
    (begun,) = uploads()
    artifact = succeeded(control, *push)
    (done,) = uploads()
    # The one that was begun, not another beside it.
    assert (done["id"], done["state"]) == (begun["id"], "completed")
    back = tmp_path / "back"
    succeeded(control, "artifact", "pull", artifact, back)
    assert (back / "weights.bin").read_bytes() == file.read_bytes()


def test_an_import_is_waited_for(control, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "weights").write_text("w")
    text = succeeded(control, "artifact", "import", outside, "--name", "outside", "--wait", "-o", "json")
    assert json.loads(text)["result"]["bytes"] == 1
    refused = run(control, "artifact", "import", "/etc", "--name", "etc", "--wait")
    assert refused.returncode == 1 and "import.folders" in refused.stderr
    succeeded(control, "artifact", "gc", "--wait")


def test_a_checkpoint_is_converted_registered_and_served(control, start, tmp_path):
    succeeded(control, "model", "create", "helpdesk")
    assert "convert-causal-lm" in succeeded(control, "convert", "pipelines")
    convert = ("model", "convert", "helpdesk", "--pipeline", "convert-causal-lm")
    source = ("--source", HELPDESK / "checkpoints" / "v2", f"tokenizer=@{HELPDESK / 'models' / 'v2'}")
    done = json.loads(succeeded(control, *convert, *source, "--add-version", "-o", "json"))
    assert (done["status"], done["parity_passed"], done["number_format"]) == ("succeeded", True, "fp32")
    assert done["parity"]["measures"]["top1_agreement"]["value"] > 0.99
    version = control.client.get("/api/v1/models/helpdesk/versions/1").json()
    assert (version["state"], version["digest"]) == ("registered", done["output_digest"])
    assert version["conversion_run"] == done["id"]
    page = succeeded(control, "model", "show", "helpdesk")
    assert "parity passed" in page

    # Numbers that nobody can reach fail the run, and are told.
    failed = run(control, *convert, *source, "max_logit_error=0", "--wait")
    assert failed.returncode == 1 and "parity_failed" in failed.stderr
    assert "logit_error_max" in failed.stdout and "NO" in failed.stdout
    # What is wrong with a parameter is told before anything runs.
    wrong = run(control, *convert, "--source", done["output_artifact"], "precison=int8")
    assert wrong.returncode == 1 and "did you mean precision?" in wrong.stderr
    wrong = run(control, *convert, "--source", done["output_artifact"], "texts=/etc/passwd")
    assert wrong.returncode == 1 and "params.texts" in wrong.stderr

    folder = tmp_path / "served"
    succeeded(control, "artifact", "pull", done["output_artifact"], folder)
    server = start([{"name": "converted", "path": folder}, {"name": "shipped", "path": HELPDESK / "models" / "v2"}])
    answers = [
        server.client.post(
            "/v1/chat/completions",
            json={"model": model, "messages": [{"role": "user", "content": PROMPT}], "temperature": 0},
        ).json()["choices"][0]["message"]["content"]
        for model in ("converted", "shipped")
    ]
    assert answers[0] == answers[1]
