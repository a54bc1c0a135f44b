"""The script for machines with a GPU, tried without one: what is sent arrives, and each part runs on the CPU."""

import json
import os
import subprocess
import sys

import pytest
import sluice
import torch


def test_everything_is_sent_put_together_and_measured(tmp_path):
    environment = {**os.environ, "OUT": str(tmp_path)}
    script = sluice.ROOT / "benches" / "gpu.sh"
    done = subprocess.run([script, "try"], capture_output=True, text=True, timeout=2400, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    parts = json.loads((tmp_path / "gpu.json").read_text())["parts"]
    assert {part["outcome"] for part in parts.values()} == {"done"}
    tokens = parts["tokens"]["result"]["fp32"]
    # The engine's tokens are PyTorch's, with weights that were made from a seed after the graph was sent.
    assert tokens["equal to the end"] + tokens["parted at a near-tie"] == tokens["prompts"] and tokens["equal to the end"] > 0
    assert parts["kernels"]["result"]["passed"] >= 15
    assert all(rate > 0 for rate in parts["decode_rates"]["result"]["fp32"]["tokens/s"]["sluice"].values())
    assert all(load["failed"] == 0 and load["succeeded"] > 0 for load in parts["http"]["result"].values())
    assert "## tokens: done" in (tmp_path / "gpu.md").read_text()


def test_help_names_every_verb_and_a_wrong_one_is_refused():
    script = sluice.ROOT / "benches" / "gpu.sh"
    text = subprocess.run([script, "--help"], capture_output=True, text=True, check=True).stdout
    assert all(verb in text for verb in ("prepare", "run", "try", "Examples"))
    wrong = subprocess.run([script, "measure"], capture_output=True, text=True)
    assert wrong.returncode != 0 and "there is no `measure`" in wrong.stderr


def measured(tmp_path, *arguments: str) -> subprocess.CompletedProcess:
    folders = [f"--{name}={tmp_path / name}" for name in ("kit", "work", "out")]
    script = sluice.ROOT / "benches" / "gpu" / "run.py"
    return subprocess.run([sys.executable, script, *folders, *arguments], capture_output=True, text=True)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_stops_with_one_line(tmp_path):
    done = measured(tmp_path)
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and "finds no GPU" in done.stderr, done.stderr
    assert not (tmp_path / "out").exists()


def test_a_part_that_is_misspelt_is_named(tmp_path):
    done = measured(tmp_path, "--only", "kernels,sampler")
    assert done.returncode == 2 and "there is no sampler; the parts are doctor, kernels" in done.stderr, done.stderr
