"""What people type is looked at before anything is sent, and what can be typed stands in the help."""

import json
import os
import subprocess

import pytest
import sluice

CAUSAL = ("model", "convert", "helpdesk", "--pipeline", "convert-causal-lm", "--source")
# What is too small to be anything, and would be sent all the same.
WEIGHTS = os.urandom(1 << 16)


@pytest.fixture(scope="module")
def control(tmp_path_factory):
    folder = tmp_path_factory.mktemp("asked")
    server = sluice.start(folder, [], env={"SLUICE_DATA": str(folder / "data")})
    try:
        server.wait_until(lambda: server.client.get("/api/v1/models").status_code == 200, what="the control plane")
        assert server.client.post("/api/v1/models", json={"name": "helpdesk"}).status_code == 201
        yield server
    finally:
        server.stop()


def run(server: sluice.Server | None, *arguments) -> subprocess.CompletedProcess:
    url = ["--url", server.url] if server else []
    command = [str(sluice.BINARY), *(str(argument) for argument in arguments), *url]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def checkpoint(folder, architecture: str, *names: str, **config):
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"architectures": [architecture]} | config))
    for name in names:
        (folder / name).write_bytes(WEIGHTS)
    return folder


def refused(server, *arguments) -> str:
    """The error of a conversion of which nothing was sent."""
    before = server.client.get("/api/v1/uploads").json()["items"]
    done = run(server, *arguments)
    assert done.returncode == 1, (done.stdout, done.stderr)
    assert server.client.get("/api/v1/uploads").json()["items"] == before, done.stderr
    return done.stderr


def test_nothing_of_a_checkpoint_is_sent_that_would_be_refused(control, tmp_path):
    llama = checkpoint(tmp_path / "llama", "LlamaForCausalLM", "model.safetensors", "tokenizer.json")
    bert = checkpoint(tmp_path / "bert", "BertModel", "model.safetensors", "tokenizer.json")
    bare = checkpoint(tmp_path / "bare", "LlamaForCausalLM", "model.safetensors")
    short = checkpoint(tmp_path / "short", "LlamaForCausalLM", "a.safetensors", "tokenizer.json")
    index = {"metadata": {"total_size": 1 << 30}, "weight_map": {"x": "a.safetensors"}}
    (short / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "did you mean precision?" in refused(control, *CAUSAL, llama, "precison=int8")
    assert "params.precision: should be one of" in refused(control, *CAUSAL, llama, "precision=int7")
    assert "convert-encoder does" in refused(control, *CAUSAL, bert)
    assert "has no tokenizer (tokenizer.json" in refused(control, *CAUSAL, bare)
    assert "is cut short" in refused(control, *CAUSAL, short)
    assert "has no config.json" in refused(control, *CAUSAL, tmp_path)
    assert "there is no" in refused(control, *CAUSAL, tmp_path / "nowhere")
    assert "there is no" in refused(control, *CAUSAL, bare, f"tokenizer=@{tmp_path / 'nowhere'}")
    elsewhere = ("model", "convert", "helpdesk", "--pipeline", "convert-causal", "--source", llama)
    assert "convert-causal-lm" in refused(control, *elsewhere)
    assert "there is no model nobody" in refused(control, "model", "convert", "nobody", *CAUSAL[3:], llama)


def test_the_server_looks_at_what_lies_there_already(control, tmp_path):
    bert = checkpoint(tmp_path / "bert", "BertModel", "model.safetensors", "tokenizer.json")
    pushed = run(control, "artifact", "push", bert, "--name", "bert", "--kind", "checkpoint")
    source = pushed.stdout.split()[-1]
    asked = {"pipeline": "convert-causal-lm", "source": source}
    answer = control.client.post("/api/v1/models/helpdesk/conversions", json=asked)
    assert answer.status_code == 422, answer.text
    (error,) = answer.json()["errors"]
    assert error["field"] == "source" and error["message"].endswith("convert-encoder does"), error


def test_what_can_be_typed_stands_in_the_help(control):
    for said in (
        ("quota", "create", "--help"),
        ("quota", "update", "--help"),
        ("help", "quota", "create"),
    ):
        told = run(None, *said).stdout
        for field in ("requests_per_minute", "requests_per_month", "memory_bytes"):
            assert f"\n  {field} (whole number, 0 or more" in told, told
            assert f"\n      {field}=" in told, told
    assert "state (queued | " in run(None, "task", "list", "--help").stdout
    told = run(control, "convert", "parameters", "convert-causal-lm").stdout
    assert "precision (fp32 | fp16 | int8 | int4; fp32 if absent)" in told and "tokenizer (content" in told, told


def test_a_record_that_is_known_is_not_sent_again(control):
    first = control.client.get("/api/v1/models/helpdesk")
    tag = first.headers["etag"]
    for known in (tag, f"W/{tag}", f'"none", {tag}', "*"):
        again = control.client.get("/api/v1/models/helpdesk", headers={"if-none-match": known})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    other = control.client.get("/api/v1/models/helpdesk", headers={"if-none-match": '"none"'})
    assert other.status_code == 200 and other.json() == first.json()
