"""`sluice doctor`, and what asking for a GPU comes to on a machine without one."""

import json

import pytest
import sluice
from test_cli import run, succeeded

PARTS = ["GPU", "driver", "kernels", "cuDNN", "ONNX Runtime", "CUDA provider", "TensorRT provider", "native TensorRT"]


def inventory(**variables) -> dict:
    return json.loads(succeeded(run("doctor", "-o", "json", SLUICE_DATA=str(sluice.DATA), **variables)))


def ready(found: dict, provider: str) -> bool:
    return next(p["ready"] for p in found["providers"] if p["provider"] == provider)


def test_every_part_is_accounted_for_as_table_and_json():
    text = succeeded(run("doctor", SLUICE_DATA=str(sluice.DATA)))
    assert all(part in text for part in PARTS), text
    found = inventory()
    assert set(PARTS) <= {finding["part"] for finding in found["findings"]}
    for finding in found["findings"]:
        assert finding["state"] in ("found", "missing", "unusable") and finding["detail"]
        assert finding["detail"] in text
        if finding["remedy"]:
            assert finding["remedy"] in text
    assert ready(found, "cpu") and f"{sluice.DATA}/lib" in text


@pytest.mark.parametrize("provider", ["cpu", "cuda", "tensorrt", "tensorrt-native"])
def test_what_is_required_and_missing_ends_with_1_and_one_line(provider):
    done = run("doctor", "--require", provider, SLUICE_DATA=str(sluice.DATA))
    if ready(inventory(), provider):
        succeeded(done)
        return
    assert done.returncode == 1 and "PART" in done.stdout
    assert done.stderr.count("\n") == 1 and f'provider = "{provider}"' in done.stderr, done.stderr


def test_without_onnx_runtime_the_remedy_is_named(tmp_path):
    done = run("doctor", "-o", "json", cwd=tmp_path, SLUICE_DATA=str(tmp_path), ORT_DYLIB_PATH="")
    found = json.loads(succeeded(done))
    part = next(f for f in found["findings"] if f["part"] == "ONNX Runtime")
    assert part["state"] == "missing" and "make models" in part["remedy"]
    assert not any(p["ready"] for p in found["providers"])


@pytest.mark.parametrize("provider", ["cuda", "tensorrt", "tensorrt-native"])
@pytest.mark.parametrize("model", ["helpdesk", "encoder"])
def test_asking_for_a_gpu_that_is_not_there_is_refused_in_one_line(tmp_path, provider, model):
    if ready(inventory(), provider):
        pytest.skip("this machine has what is asked for")
    folder = {"helpdesk": sluice.HELPDESK / "v2", "encoder": sluice.MINILM}[model]
    deployment = f'[[deployment]]\nname = "x"\npath = "{folder}"\nprovider = "{provider}"\n'
    (tmp_path / "sluice.toml").write_text(f'listen = "127.0.0.1:0"\n[control]\nenabled = false\n{deployment}')
    done = run("serve", cwd=tmp_path, SLUICE_DATA=str(sluice.DATA))
    assert done.returncode == 1 and "panicked" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert len(lines) == 1 and "`x`" in lines[0], done.stderr
    assert f"{'CUDA' if provider == 'cuda' else 'TensorRT'} provider" in lines[0] and "sluice doctor" in lines[0]
