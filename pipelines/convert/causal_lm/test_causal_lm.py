"""Language models end to end: converted by the command line, served by the real server, held against transformers."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import random_models
import sluice

MAIN = Path(__file__).with_name("main.py")
HELPDESK = sluice.ROOT / "examples" / "helpdesk"
TOKENS = 64


@pytest.fixture(scope="module")
def llama():
    return random_models.make("llama")


def complete(server, name, prompt):
    body = {"model": name, "prompt": prompt, "max_tokens": TOKENS, "temperature": 0, "ignore_eos": True}
    answer = server.client.post("/v1/completions", json=body | {"return_token_ids": True})
    assert answer.status_code == 200, answer.text
    return answer.json()["choices"][0]["token_ids"]


def test_a_converted_model_is_served_and_says_what_its_source_says(command, serve, llama):
    run = command("causal_lm", source=llama.checkpoint).succeeded()
    report = run.json("parity.json")
    assert report["passed"] and run.json("result.json")["parity"] == report
    assert {case["prompt_tokens"] for case in report["cases"]} == {24, 96, 400}
    assert run.measure("top1_agreement") == run.measure("greedy_agreement") == 1.0
    assert (run.model / "sluice_probe.json").exists()

    generator = random.Random(4)
    prompts = [[generator.randrange(3, random_models.VOCABULARY) for _ in range(length)] for length in (9, 130)]
    server = serve(llama=run.model)
    assert [complete(server, "llama", prompt) for prompt in prompts] == llama.greedy(prompts, TOKENS)


@pytest.mark.parametrize(
    ("precision", "size"),
    # Of the file with the weights, against float32: the whole must have become smaller.
    [("fp16", 0.51), ("int8", 0.5), ("int4", 0.4)],
)
def test_other_precisions_pass_with_trained_weights_and_are_served(convert, serve, precision, size):
    source, shipped = HELPDESK / "checkpoints" / "v2", HELPDESK / "models" / "v2"
    run = convert("causal_lm", source=source, tokenizer=shipped, precision=precision).succeeded()
    weights = (run.model / "model.onnx.data").stat().st_size
    assert weights < size * (shipped / "model.onnx.data").stat().st_size
    server = serve(**{f"helpdesk_{precision}": run.model})
    body = {"model": f"helpdesk-{precision}", "messages": [{"role": "user", "content": "The VPN is down, REQ-76109!"}]}
    answer = server.client.post("/v1/chat/completions", json=body | {"temperature": 0})
    assert answer.status_code == 200, answer.text
    assert json.loads(answer.json()["choices"][0]["message"]["content"])["ids"] == ["REQ-76109"]


@pytest.mark.parametrize("name", ["mistral-window", "olmo"])
def test_what_the_builder_gets_wrong_silently_is_refused_with_the_numbers(convert, name):
    run = convert("causal_lm", source=random_models.make(name).checkpoint)
    error = run.failed("parity_failed", "logit_error_max is", "at most 0.02 is allowed", "top1_agreement")
    report = error["details"]["parity"]
    assert report == run.json("parity.json")
    measures = {measure: entry["value"] for measure, entry in report["measures"].items()}
    assert measures["logit_error_max"] > 0.1
    if name == "mistral-window":
        assert measures["longest_prompt"] > measures["attention_window"] == 32


@pytest.fixture
def checkpoint(llama, tmp_path):
    """A copy to spoil."""
    copy = tmp_path / "checkpoint"
    shutil.copytree(llama.checkpoint, copy)
    return copy


def pickled(folder: Path) -> None:
    import torch
    from safetensors.torch import load_file

    weights = folder / "model.safetensors"
    torch.save(load_file(weights), folder / "pytorch_model.bin")
    weights.unlink()


def test_pickles_are_read_only_where_they_are_allowed(convert, checkpoint):
    """Allowed, the run gets as far as parity, whose limits are parameters."""
    pickled(checkpoint)
    error = convert("causal_lm", source=checkpoint).failed("unsafe_source", "pytorch_model.bin", "`allow_pickle`")
    assert error["details"]["param"] == "allow_pickle"
    run = convert("causal_lm", source=checkpoint, allow_pickle=True, max_logit_error=1e-9)
    run.failed("parity_failed", "logit_error_max is", "at most 1e-09 is allowed")


def test_code_of_the_checkpoint_does_not_run(convert, checkpoint, tmp_path):
    trace = tmp_path / "was_here"
    (checkpoint / "modeling.py").write_text(f"open({str(trace)!r}, 'w')\n")
    config = json.loads((checkpoint / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "modeling.Own", "AutoModelForCausalLM": "modeling.Own"}}
    (checkpoint / "config.json").write_text(json.dumps(config))
    error = convert("causal_lm", source=checkpoint).failed("unsafe_source", "modeling.Own", "`trust_remote_code`")
    assert error["details"]["param"] == "trust_remote_code"
    assert not trace.exists()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda folder: (folder / "config.json").unlink(), ["`source` holds no config.json"]),
        (lambda folder: (folder / "config.json").write_text("{"), ["config.json that is no JSON"]),
        (lambda folder: (folder / "model.safetensors").unlink(), ["`source` holds no weights"]),
    ],
)
def test_a_broken_checkpoint_is_named(convert, checkpoint, spoil, words):
    spoil(checkpoint)
    convert("causal_lm", source=checkpoint).failed("bad_source", *words)


def test_an_architecture_that_the_builder_does_not_know_is_named(convert, checkpoint):
    config = json.loads((checkpoint / "config.json").read_text())
    (checkpoint / "config.json").write_text(json.dumps(config | {"architectures": ["GPT2LMHeadModel"]}))
    convert("causal_lm", source=checkpoint).failed("export_failed", "the model builder refused the checkpoint")


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({}, ["`source` is missing"]),
        ({"source": "/nowhere"}, ['`source` is "/nowhere"', "a folder that exists"]),
        ({"source": str(HELPDESK), "precision": "fp8"}, ["`precision`", "one of fp32, fp16, int8, int4"]),
        ({"source": str(HELPDESK), "min_top1": 3}, ["`min_top1` is 3", "from 0 to 1"]),
    ],
)
def test_wrong_parameters_are_named(convert, params, words):
    convert("causal_lm", **params).failed("bad_params", *words)


def test_sigterm_in_the_middle_of_an_export_leaves_nothing(llama, tmp_path):
    read, write = os.pipe()
    command = [sys.executable, MAIN, "--source", llama.checkpoint, "--output", tmp_path / "output"]
    process = subprocess.Popen(
        command, pass_fds=[write], env={**os.environ, "SLUICE_EVENTS_FD": str(write)}, stderr=subprocess.DEVNULL
    )
    os.close(write)
    with open(read, encoding="utf-8") as lines:
        steps = iter(json.loads(line)["name"] for line in lines)
        assert next(steps) == "source" and next(steps) == "export"
        process.send_signal(signal.SIGTERM)
        # Less than the ten seconds after which the engine kills, were a test to measure.
        assert process.wait(60) == 128 + signal.SIGTERM
        # The end of the file: no process that inherited the descriptor is left.
        assert list(lines) == []
    assert not (tmp_path / "output").exists()
