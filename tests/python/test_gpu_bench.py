"""The script for machines with a GPU, tried without one: what is sent arrives, and each part runs on the CPU."""

import json
import os
import random
import subprocess
import sys

import pytest
import sluice
import torch


# Builds what a change has made old, where it is run by itself.
@pytest.mark.timeout(1800)
def test_everything_is_sent_put_together_and_measured(tmp_path):
    environment = {**os.environ, "OUT": str(tmp_path)}
    done = sluice.run_script(sluice.ROOT / "benches" / "gpu.sh", environment, 2400, "try")
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


def test_help_names_every_verb_and_a_wrong_one_is_refused(tmp_path):
    script = sluice.ROOT / "benches" / "gpu.sh"
    text = subprocess.run([script, "--help"], capture_output=True, text=True, check=True).stdout
    assert all(verb in text for verb in ("prepare", "run", "try", "Examples"))
    wrong = subprocess.run([script, "measure"], capture_output=True, text=True)
    assert wrong.returncode != 0 and "there is no `measure`" in wrong.stderr
    wrong = subprocess.run([script, "prepare", tmp_path / "out", "0"], capture_output=True, text=True)
    assert wrong.returncode != 0 and "`0` is no number of MiB" in wrong.stderr and not (tmp_path / "out").exists()


def pieces(*arguments) -> subprocess.CompletedProcess:
    script = sluice.ROOT / "benches" / "gpu" / "pieces.py"
    return subprocess.run([sys.executable, script, *map(str, arguments)], capture_output=True, text=True)


def test_what_is_sent_fits_and_arrives_whole(tmp_path):
    kit, sent, there = (tmp_path / name for name in ("kit", "sent", "there"))
    # Noise, which compression leaves as long as it is.
    files = {"bin/one": random.randbytes(700_000), "lib/two": random.randbytes(3_000_000), "lib/three": b"", "z": b"last"}
    for name, data in files.items():
        (kit / name).parent.mkdir(parents=True, exist_ok=True)
        (kit / name).write_bytes(data)
    (kit / "bin/one").chmod(0o755)
    assert pieces("split", kit, sent, 1).returncode == 0
    sizes = [sum(piece.stat().st_size for piece in folder.iterdir()) for folder in sent.iterdir() if folder.is_dir()]
    assert len(sizes) == 4 and max(sizes) == 1 << 20, sizes
    assert pieces("join", sent, there).returncode == 0
    assert {name: (there / name).read_bytes() for name in files} == files
    assert os.access(there / "bin/one", os.X_OK) and not os.access(there / "z", os.X_OK)
    (sent / "2" / "002.xz").rename(tmp_path / "late")
    late = pieces("join", sent, there)
    assert late.returncode == 1 and late.stderr.strip() == "missing: 2/002.xz", late.stderr


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
