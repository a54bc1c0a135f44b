"""Plain tensor models through Triton's stock client (Open Inference Protocol v2 over REST)."""

import numpy as np
import onnx
import pytest
import sluice
import tritonclient.http as triton
from onnx import TensorProto, helper, numpy_helper
from tritonclient.utils import InferenceServerException

RNG = np.random.default_rng(7)
WEIGHTS = RNG.standard_normal((4, 3)).astype(np.float32)

# Datatype of the protocol → ONNX's element type and two values at the edges of its range.
DATATYPES = {
    "BOOL": (TensorProto.BOOL, np.array([[True, False]])),
    "UINT8": (TensorProto.UINT8, np.array([[0, 255]], np.uint8)),
    "UINT16": (TensorProto.UINT16, np.array([[0, 65535]], np.uint16)),
    "UINT32": (TensorProto.UINT32, np.array([[0, 2**32 - 1]], np.uint32)),
    "UINT64": (TensorProto.UINT64, np.array([[0, 2**64 - 1]], np.uint64)),
    "INT8": (TensorProto.INT8, np.array([[-128, 127]], np.int8)),
    "INT16": (TensorProto.INT16, np.array([[-(2**15), 2**15 - 1]], np.int16)),
    "INT32": (TensorProto.INT32, np.array([[-(2**31), 2**31 - 1]], np.int32)),
    "INT64": (TensorProto.INT64, np.array([[-(2**63), 2**63 - 1]], np.int64)),
    "FP16": (TensorProto.FLOAT16, np.array([[0.1, -65504]], np.float16)),
    "FP32": (TensorProto.FLOAT, np.array([[0.1, -3.4e38]], np.float32)),
    "FP64": (TensorProto.DOUBLE, np.array([[0.1, 5e-324]], np.float64)),
    "BYTES": (TensorProto.STRING, np.array([["héllo 你好".encode(), b""]], np.object_)),
}


def save(path, nodes, inputs, outputs, constants=()):
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info(*value) for value in inputs],
        [helper.make_tensor_value_info(*value) for value in outputs],
        initializer=list(constants),
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """`linear` is x · w + b; `echo` gives every input back; `table` looks four numbers up."""
    folder = tmp_path_factory.mktemp("tensors")
    save(
        folder / "linear" / "model.onnx",
        [helper.make_node("MatMul", ["x", "w"], ["xw"]), helper.make_node("Add", ["xw", "b"], ["y"])],
        [("x", TensorProto.FLOAT, ["batch", 4]), ("b", TensorProto.FLOAT, ["batch", 3])],
        [("y", TensorProto.FLOAT, ["batch", 3]), ("xw", TensorProto.FLOAT, ["batch", 3])],
        [numpy_helper.from_array(WEIGHTS, "w")],
    )
    save(
        folder / "echo.onnx",
        [helper.make_node("Identity", [name], [f"{name}_out"]) for name in DATATYPES],
        [(name, element, [None, 2]) for name, (element, _) in DATATYPES.items()],
        [(f"{name}_out", element, [None, 2]) for name, (element, _) in DATATYPES.items()],
    )
    save(
        folder / "table.onnx",
        [helper.make_node("Gather", ["table", "index"], ["found"])],
        [("index", TensorProto.INT64, ["n"])],
        [("found", TensorProto.FLOAT, ["n"])],
        [numpy_helper.from_array(np.arange(4, dtype=np.float32), "table")],
    )
    running = sluice.start(
        folder / "run",
        [
            {"name": "linear", "path": folder / "linear", "revision": "3"},
            {"name": "echo", "path": folder / "echo.onnx"},
            {"name": "table", "path": folder / "table.onnx"},
        ],
    )
    yield running
    running.stop()


@pytest.fixture
def client(server):
    with triton.InferenceServerClient(f"127.0.0.1:{server.port}", concurrency=8) as client:
        yield client


def tensor(name, array, datatype="FP32", binary=True):
    value = triton.InferInput(name, list(array.shape), datatype)
    value.set_data_from_numpy(array, binary_data=binary)
    return value


def linear_inputs(rows, binary=True):
    x = RNG.standard_normal((rows, 4)).astype(np.float32)
    b = RNG.standard_normal((rows, 3)).astype(np.float32)
    return x, b, [tensor("x", x, binary=binary), tensor("b", b, binary=binary)]


def test_health_and_metadata(client):
    assert client.is_server_live() and client.is_server_ready()
    assert client.is_model_ready("linear") and client.is_model_ready("linear", "3")
    assert not client.is_model_ready("linear", "4") and not client.is_model_ready("nothing")
    assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
    metadata = client.get_model_metadata("linear", "3")
    assert metadata["name"] == "linear" and metadata["versions"] == ["3"]
    assert metadata["inputs"][0] == {"name": "x", "datatype": "FP32", "shape": [-1, 4]}
    assert [output["name"] for output in metadata["outputs"]] == ["y", "xw"]
    config = client.get_model_config("linear")
    assert config["input"][0] == {"name": "x", "data_type": "TYPE_FP32", "dims": [-1, 4]}
    index = client.get_model_repository_index()
    assert {(entry["name"], entry["state"]) for entry in index} == {
        ("linear", "READY"),
        ("echo", "READY"),
        ("table", "READY"),
    }


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False])
@pytest.mark.parametrize("rows", [0, 1, 5])
def test_infer(client, binary_in, binary_out, rows):
    x, b, inputs = linear_inputs(rows, binary_in)
    wanted = [triton.InferRequestedOutput("y", binary_data=binary_out)]
    result = client.infer("linear", inputs, outputs=wanted, request_id="r-1")
    np.testing.assert_allclose(result.as_numpy("y"), x @ WEIGHTS + b, rtol=1e-5, atol=1e-6)
    response = result.get_response()
    assert response["id"] == "r-1" and response["model_version"] == "3"
    assert [output["name"] for output in response["outputs"]] == ["y"]
    everything = client.infer("linear", inputs, model_version="3")
    np.testing.assert_allclose(everything.as_numpy("xw"), x @ WEIGHTS, rtol=1e-5, atol=1e-6)


def test_outputs_in_json_and_binary_side_by_side(client):
    x, b, inputs = linear_inputs(2)
    wanted = [
        triton.InferRequestedOutput("xw", binary_data=True),
        triton.InferRequestedOutput("y", binary_data=False),
    ]
    result = client.infer("linear", inputs, outputs=wanted)
    np.testing.assert_allclose(result.as_numpy("xw"), x @ WEIGHTS, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(result.as_numpy("y"), x @ WEIGHTS + b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("binary", [True, False])
def test_every_datatype_comes_back_exactly(client, binary):
    # The client itself refuses to put FP16 into JSON.
    inputs = [
        tensor(name, array, name, binary or name == "FP16") for name, (_, array) in DATATYPES.items()
    ]
    outputs = [triton.InferRequestedOutput(f"{name}_out", binary_data=binary) for name in DATATYPES]
    result = client.infer("echo", inputs, outputs=outputs)
    for name, (_, array) in DATATYPES.items():
        back = result.as_numpy(f"{name}_out")
        if name == "BYTES" and not binary:
            back = np.vectorize(lambda text: text.encode(), otypes=[np.object_])(back.astype(np.object_))
        assert back.dtype == array.dtype, name
        np.testing.assert_array_equal(back, array, name)


def test_many_requests_at_once_are_not_mixed_up(client):
    pending = []
    for rows in [1, 3, 2, 5, 1, 4, 2, 3] * 4:
        x, b, inputs = linear_inputs(rows)
        pending.append((x @ WEIGHTS + b, client.async_infer("linear", inputs)))
    for expected, request in pending:
        np.testing.assert_allclose(request.get_result().as_numpy("y"), expected, rtol=1e-5, atol=1e-6)


def test_errors_say_what_would_be_right(client):
    def refused(status, part, model, inputs, **options):
        with pytest.raises(InferenceServerException) as caught:
            client.infer(model, inputs, **options)
        assert caught.value.status() == status, caught.value
        assert part in caught.value.message(), caught.value

    good = linear_inputs(2)[2]
    refused("404", "`nothing` does not exist", "nothing", good)
    refused("404", "versions/4", "linear", good, model_version="4")
    refused("400", "`b`: the input is missing", "linear", good[:1])
    wide = tensor("x", np.zeros((2, 5), np.float32))
    refused("400", "`x`: shape is [2, 5]; the model takes [batch, 4]", "linear", [wide, good[1]])
    three = tensor("b", np.zeros((3, 3), np.float32))
    refused("400", "`batch`", "linear", [good[0], three])
    double = tensor("x", np.zeros((2, 4)), "FP64")
    refused("400", "datatype is FP64; the model takes FP32", "linear", [double, good[1]])
    output = [triton.InferRequestedOutput("z")]
    refused("400", "the model gives `y`, `xw`", "linear", good, outputs=output)
    top = [triton.InferRequestedOutput("y", class_count=2)]
    refused("400", "classification", "linear", good, outputs=top)
    refused("504", "deadline", "linear", good, timeout=0)
    beyond = tensor("index", np.array([4], np.int64), "INT64")
    refused("500", "idx=4", "table", [beyond])
    inside = tensor("index", np.array([3], np.int64), "INT64")
    assert client.infer("table", [inside]).as_numpy("found").tolist() == [3.0]


def test_statistics_count_rows_and_runs(client):
    def read():
        return client.get_inference_statistics("linear")["model_stats"][0]

    before = read()
    client.infer("linear", linear_inputs(6)[2])
    after = read()
    assert after["inference_count"] - before["inference_count"] == 6
    assert after["execution_count"] - before["execution_count"] == 1
    success = after["inference_stats"]["success"]["count"] - before["inference_stats"]["success"]["count"]
    assert success == 1
    assert len(client.get_inference_statistics()["model_stats"]) == 3
