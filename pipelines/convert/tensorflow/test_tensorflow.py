"""TensorFlow models end to end. TensorFlow lives in an environment of its own, which `make test` makes and names."""

import os
import subprocess

import numpy as np
import onnxruntime
import pytest

PYTHON = os.environ.get("SLUICE_TENSORFLOW_PYTHON")
pytestmark = pytest.mark.skipif(
    PYTHON is None,
    reason="SLUICE_TENSORFLOW_PYTHON names no Python with TensorFlow",
)
# Everything that is converted below, made where TensorFlow is.
MAKE = """
import os, sys
os.environ.update(CUDA_VISIBLE_DEVICES="", TF_CPP_MIN_LOG_LEVEL="2", TF_ENABLE_ONEDNN_OPTS="0")
import keras, numpy as np, tensorflow as tf
os.chdir(sys.argv[1])
keras.utils.set_random_seed(3)
image = keras.Input((8, 8, 3), name="image")
size = keras.Input((2,), name="size")
hidden = keras.layers.Conv2D(4, 3, activation="relu")(image)
hidden = keras.layers.Flatten()(keras.layers.BatchNormalization()(hidden))
scores = keras.layers.Dense(5, name="scores")(keras.layers.Concatenate()([hidden, size]))
model = keras.Model([image, size], [scores, keras.layers.Softmax(name="shares")(scores)])
model.save("model.keras")
model.save("model.h5")
model.export("saved", verbose=False)
rng = np.random.default_rng(1)
feeds = [rng.standard_normal((3, 8, 8, 3)).astype("float32"), rng.standard_normal((3, 2)).astype("float32")]
scores, shares = model(feeds)
np.savez("expected.npz", image=feeds[0], size=feeds[1], scores=scores.numpy(), shares=shares.numpy())
x = keras.Input((4,), name="x")
keras.Model(x, keras.layers.Lambda(lambda v: v * 2)(x)).save("lambda.keras")
class Reader(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
    def __call__(self, x):
        tf.io.write_file("/tmp/never", "x")
        return {"y": x}
reader = Reader()
tf.saved_model.save(reader, "reaching", signatures=reader.__call__)
class Noisy(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec([None, 4], tf.float32, name="x")])
    def __call__(self, x):
        return {"y": x + tf.random.uniform(tf.shape(x))}
noisy = Noisy()
tf.saved_model.save(noisy, "noisy", signatures=noisy.__call__)
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tensorflow")
    done = subprocess.run([PYTHON, "-c", MAKE, folder], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


@pytest.mark.parametrize("source", ["model.keras", "model.h5", "saved"])
def test_every_form_is_converted_and_served(command, serve, made, source):
    run = command("tensorflow", PYTHON, source=made / source, outputs=["scores", "shares"]).succeeded()
    assert run.measure("relative_error_max") < 1e-5
    assert [item["name"] for item in run.json("result.json")["inputs"]] == ["image", "size"]
    expected = np.load(made / "expected.npz")
    inputs = [
        {"name": name, "shape": list(expected[name].shape), "datatype": "FP32", "data": expected[name].ravel().tolist()}
        for name in ("image", "size")
    ]
    name = source.replace(".", "_")
    server = serve(**{name: run.model})
    answer = server.client.post(f"/v2/models/{name.replace('_', '-')}/infer", json={"inputs": inputs})
    assert answer.status_code == 200, answer.text
    for out in answer.json()["outputs"]:
        found = np.array(out["data"], np.float32).reshape(out["shape"])
        np.testing.assert_allclose(found, expected[out["name"]], atol=1e-5)


def test_names_for_outputs_go_by_place(command, made):
    """Names that sort the other way round, to a map that comes in another order in every process."""
    run = command("tensorflow", PYTHON, source=made / "saved", outputs=["z", "a"]).succeeded()
    session = onnxruntime.InferenceSession(run.model / "model.onnx")
    expected = np.load(made / "expected.npz")
    scores, shares = session.run(["z", "a"], {name: expected[name] for name in ("image", "size")})
    np.testing.assert_allclose(scores, expected["scores"], atol=1e-5)
    np.testing.assert_allclose(shares, expected["shares"], atol=1e-5)


def test_int8(command, made):
    run = command("tensorflow", PYTHON, source=made / "model.keras", precision="int8").succeeded()
    assert 1e-6 < run.measure("relative_error_max") < 0.1


def test_an_export_that_computes_something_else_is_refused(command, made):
    command("tensorflow", PYTHON, source=made / "noisy").failed("parity_failed", "relative_error_max is")


@pytest.mark.parametrize(
    ("params", "code", "words"),
    [
        ({"source": "lambda.keras"}, "unsafe_source", ["Lambda", "`trust_remote_code`"]),
        ({"source": "reaching"}, "unsafe_source", ["WriteFile", "`trust_remote_code`"]),
        ({"source": "saved", "signature": "none"}, "bad_params", ["`signature` is none", "serving_default"]),
        ({"source": "expected.npz"}, "bad_params", ["`source` is expected.npz", ".keras"]),
        ({"source": "model.keras", "outputs": ["y"]}, "bad_params", ["`outputs` names 1, the model has 2"]),
        ({"source": "model.keras", "inputs": [{"name": "x", "shape": [1]}]}, "bad_params", ["`inputs` has x", "image"]),
        ({"source": "model.keras", "opset": 3}, "bad_params", ["`opset` is 3", "from 13 to 18"]),
    ],
)
def test_what_is_refused_is_named(command, made, params, code, words):
    command("tensorflow", PYTHON, **params | {"source": made / params["source"]}).failed(code, *words)
