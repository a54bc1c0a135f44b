"""`provider = "tensorrt-native"` in the real server, over stand-ins for the CUDA driver and TensorRT (`kernels/standin`,
`engine/tensorrt/tests/abi/standin`): everything of ours runs, and the engines do nothing but multiply. The Rust tests
compile the stand-ins and leave them in $SLUICE_STANDINS."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import openai
import pytest
import sluice
from test_cli import run, succeeded
from tokenizers import Tokenizer

STANDINS = Path(os.environ.get("SLUICE_STANDINS", sluice.ROOT / "target" / "standins"))
FIXTURE = sluice.ROOT / "engine" / "tests" / "fixtures" / "tiny-encoder"
GIB = 1 << 30

pytestmark = pytest.mark.skipif(
    not (STANDINS / "libnvinfer.so.11").exists() and "CI" not in os.environ,
    reason="no stand-ins: SLUICE_STANDINS=target/standins cargo nextest run --release -p sluice-engine stand_ins",
)


def gpus(count: int, **more: str) -> dict[str, str]:
    """The environment of a process that has so many GPUs of 1 GiB, and TensorRT."""
    return {
        "LD_LIBRARY_PATH": str(STANDINS),
        "STANDIN_DEVICES": " ".join([str(GIB)] * count),
        "STANDIN_KERNELS": ":".join(map(str, sorted(STANDINS.glob("kernels-*.so")))),
        **more,
    }


@pytest.fixture
def models(tmp_path) -> Path:
    """An encoder whose engine is there, and a graph that one has to be built from: it takes rows of 4 numbers times 5,
    and loses the GPU when it is given 13."""
    encoder, scale = tmp_path / "models" / "encoder", tmp_path / "models" / "scale"
    encoder.mkdir(parents=True)
    scale.mkdir()
    for file in ("config.json", "tokenizer.json"):
        shutil.copy(FIXTURE / file, encoder / file)
    (encoder / "model.plan").write_text("standin encoder most=16 rows=64 tokens=24 weights=4096 memory=64")
    (scale / "model.onnx").write_text("input x -1 4\nscale 5\nwords lost_at=13\n")
    return tmp_path / "models"


def deployment(models: Path, name: str, **more) -> dict:
    return {"name": name, "path": models / name, "provider": "tensorrt-native", **more}


def serve(tmp_path, deployments, env, **more) -> sluice.Server:
    sections = {"control": {"enabled": False}, "replicas": {"restart_pause": "50ms", "restart_pause_max": "200ms"}}
    sections["devices"] = {"workspace": "64MiB"}
    return sluice.start(tmp_path / "server", deployments, {**sections, **more}, {**env, "SLUICE_DATA": str(tmp_path)})


def infer(server: sluice.Server, rows: int):
    numbers = np.arange(rows * 4, dtype=np.float32)
    tensor = {"name": "x", "datatype": "FP32", "shape": [rows, 4], "data": numbers.tolist()}
    answer = server.client.post("/v2/models/scale/infer", json={"inputs": [tensor]})
    if answer.status_code != 200:
        return answer
    (output,) = answer.json()["outputs"]
    assert output["shape"] == [rows, 4] and np.array_equal(output["data"], numbers * 5), output
    return answer


def replicas(server: sluice.Server, name: str) -> list[dict]:
    stats = server.client.get("/api/v1/stats").json()
    return next(each for each in stats["deployments"] if each["name"] == name)["replicas"]


def test_doctor_finds_it_all():
    found = json.loads(succeeded(run("doctor", "-o", "json", "--require", "tensorrt-native", **gpus(2))))
    assert next(p for p in found["providers"] if p["provider"] == "tensorrt-native")["ready"]
    assert [gpu["ordinal"] for gpu in found["gpus"]] == [0, 1]
    part = next(f for f in found["findings"] if f["part"] == "native TensorRT")
    assert part["state"] == "found" and "libnvinfer.so.11" in part["detail"], part


def test_an_encoder_and_a_tensor_model_are_served(tmp_path, models):
    server = serve(tmp_path, [deployment(models, "encoder"), deployment(models, "scale")], gpus(1))
    try:
        client = openai.OpenAI(base_url=server.v1, api_key="none", max_retries=0)
        texts = ["alpha", "alpha beta gamma", "delta kappa"] * 20
        answer = client.embeddings.create(model="encoder", input=texts)
        # A token's vector is its id times 1 to 16; a text's is the mean of them.
        tokenizer = Tokenizer.from_file(str(models / "encoder" / "tokenizer.json"))
        for text, each in zip(texts, answer.data, strict=True):
            right = np.mean(tokenizer.encode(text).ids) * np.arange(1, 17)
            assert np.allclose(each.embedding, right, rtol=1e-6), text
        for rows in (1, 64, 7):
            infer(server, rows)
        # What clients ask wrongly ends nothing, however often they do.
        for _ in range(20):
            refused = infer(server, 65)
            assert refused.status_code == 400 and "[1, 4] to [64, 4]" in refused.text, refused.text
        metadata = server.client.get("/v2/models/scale").json()
        assert metadata["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}]
        assert metadata["platform"] == "tensorrt_plan"
        assert server.client.get("/v2/models/encoder/config").json()["backend"] == "tensorrt"
        assert server.gauge("sluice_device_memory_held_bytes", device="0") > 0
        assert server.gauge("sluice_replica_up", device="0") == 2
        assert server.gauge("sluice_executor_restarts_total") == 0
    finally:
        assert server.stop() == 0


def test_a_build_is_told_of_and_its_engine_is_kept(tmp_path, models):
    env = gpus(1, STANDIN_BUILD_PAUSE="700")
    with pytest.MonkeyPatch.context() as patched:
        seen = watch_the_start(patched)
        server = serve(tmp_path, [deployment(models, "scale")], env)
    assert server.stop() == 0
    assert any("TensorRT builds the engine" in reason and "`scale`" in reason for reason in seen), seen
    assert "TensorRT builds the engine; this takes minutes" in server.log.read_text()
    server = serve(tmp_path, [deployment(models, "scale")], env)
    try:
        infer(server, 3)
        assert server.log.read_text().count("this takes minutes") == 1
        assert "an engine that was built before is used" in server.log.read_text()
        assert len(list((tmp_path / "tensorrt" / "engines").glob("*.plan"))) == 1
    finally:
        assert server.stop() == 0


def watch_the_start(patched) -> list[str]:
    """What /health/ready gives as reasons while `sluice.start` waits."""
    seen: list[str] = []
    get = sluice.httpx.Client.get

    def asked(client, url, **more):
        answer = get(client, url, **more)
        if url == "/health/ready" and answer.status_code == 503:
            seen.extend(answer.json()["reasons"])
        return answer

    patched.setattr(sluice.httpx.Client, "get", asked)
    return seen


def test_a_lost_gpu_is_routed_around_and_comes_back(tmp_path, models):
    deployments = [deployment(models, "scale", devices=[0, 1]), deployment(models, "encoder", devices=[0, 1])]
    server = serve(tmp_path, deployments, gpus(2))
    try:
        for _ in range(3):
            before = sum(each["restarts"] for each in replicas(server, "scale"))
            assert infer(server, 13).status_code == 500
            # The other GPU answers meanwhile.
            assert infer(server, 2).status_code == 200
            server.wait_until(
                lambda: sum(each["restarts"] for each in replicas(server, "scale")) > before
                and all(each["state"] == "serving" for each in replicas(server, "scale") + replicas(server, "encoder")),
                what="both models on both GPUs",
            )
            for rows in (1, 2, 3, 4):
                assert infer(server, rows).status_code == 200
            client = openai.OpenAI(base_url=server.v1, api_key="none", max_retries=0)
            assert len(client.embeddings.create(model="encoder", input=["alpha"] * 4).data) == 4
    finally:
        assert server.stop() == 0


def test_time_on_a_gpu_is_accounted_as_such(tmp_path, models):
    control = {"database": f"sqlite:{tmp_path / 'sluice.db'}"}
    deployments = [deployment(models, "encoder"), deployment(models, "scale")]
    server = serve(tmp_path, deployments, gpus(1), control=control)
    try:
        client = openai.OpenAI(base_url=server.v1, api_key="none", max_retries=0)
        client.embeddings.create(model="encoder", input=["alpha beta"] * 200)
        infer(server, 64)

        def used() -> dict[str, dict]:
            return {each["group"]: each for each in server.client.get("/api/v1/usage?by=deployment").json()["items"]}

        server.wait_until(lambda: {"encoder", "scale"} <= used().keys(), 60, "the ledger")
        for name in ("encoder", "scale"):
            assert used()[name]["gpu_us"] > 0 and used()[name]["cpu_us"] == 0, used()
    finally:
        assert server.stop() == 0


def test_what_it_cannot_do_is_refused_in_one_line(tmp_path, models):
    (models / "engine.plan").write_text("standin scale=2")
    wrong = [
        ({"path": sluice.HELPDESK / "v2"}, "is for encoders and tensor models"),
        ({"path": models / "nowhere"}, "no such model folder"),
        ({"path": models / "scale", "devices": [3]}, "GPU 3"),
        ({"path": models / "scale", "provider": "cpu"}, "ONNX Runtime refuses the graph"),
        ({"path": models / "engine.plan", "provider": "cpu"}, 'needs provider = "tensorrt-native"'),
    ]
    for change, words in wrong:
        with pytest.raises(sluice.StartFailed) as failed:
            serve(tmp_path, [{**deployment(models, "scale"), **change}], gpus(1))
        lines = [line for line in str(failed.value).splitlines() if line.startswith("error:")]
        assert words in lines[-1], lines
        (tmp_path / "server" / "sluice.log").unlink()


def test_an_engine_is_built_ahead_and_served(tmp_path, models):
    env = gpus(1, SLUICE_DATA=str(tmp_path))
    plan = tmp_path / "scale.plan"
    shapes = "x=1x4:2x4:16x4"
    built = run("engine", "build", str(models / "scale"), "-o", str(plan), "--profile", shapes, "--level", "5", **env)
    assert str(plan) in succeeded(built)
    shown = json.loads(succeeded(run("engine", "show", str(plan), "-o", "json", **env)))
    assert shown["bytes"] == plan.stat().st_size and shown["device"] and len(shown["model"]) == 64, shown
    assert shown["device"] in succeeded(run("engine", "show", str(plan), **env))
    server = serve(tmp_path, [deployment(models, "scale", path=plan)], env)
    try:
        infer(server, 16)
        assert infer(server, 17).status_code == 400
    finally:
        assert server.stop() == 0
    # Into a folder, with the model's other files.
    folder = tmp_path / "built"
    succeeded(run("engine", "build", str(models / "scale" / "model.onnx"), "-o", str(folder), **env))
    assert [file.name for file in folder.iterdir()] == ["model.plan"]
    for arguments, words in [
        ((str(models / "scale"), "-o", str(folder)), "is there already"),
        ((str(models / "encoder"), "-o", str(plan)), "is an engine already"),
        ((str(sluice.HELPDESK / "v2"), "-o", str(plan)), "language models run with"),
        ((str(models / "scale"), "-o", str(plan), "--profile", "y=1x4:2x4:16x4"), "the model's inputs are x"),
        ((str(models / "scale"), "-o", str(plan), "--profile", "x=1x4:2x4"), "should be like input_ids"),
        ((str(models / "scale"), "-o", str(plan), "--device", "7"), "there is no GPU 7"),
    ]:
        done = run("engine", "build", *arguments, **env)
        assert done.returncode != 0 and words in done.stderr, done.stderr
    foreign = run("engine", "show", str(models / "encoder" / "model.plan"), **env)
    assert foreign.returncode == 1 and "was not built by sluice" in foreign.stderr


def test_a_real_encoder_becomes_a_folder_with_its_other_files(tmp_path):
    """The stand-in's builder reads no ONNX: what is refused is the graph, after everything else was found right."""
    done = run("engine", "build", str(sluice.MINILM), "-o", str(tmp_path / "built"), **gpus(1))
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and "TensorRT" in done.stderr, done.stderr
    assert not (tmp_path / "built").exists()
