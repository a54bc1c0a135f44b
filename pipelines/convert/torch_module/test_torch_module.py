"""PyTorch modules end to end: converted by the command line, served as tensor functions by the real server."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

CODE = """
import torch

class Net(torch.nn.Module):
    def __init__(self, width=3):
        super().__init__()
        self.embed = torch.nn.Embedding(10, 4)
        self.out = torch.nn.Linear(4, width)

    def forward(self, ids, x):
        scores = self.out(self.embed(ids) + x)
        return {"scores": scores, "best": scores.argmax(-1)}

class Noisy(torch.nn.Module):
    def forward(self, x):
        return x + torch.rand_like(x)

def number():
    return 7
"""
INPUTS = [
    {"name": "ids", "dtype": "int64", "shape": ["batch", "time"], "high": 10},
    {"name": "x", "dtype": "float32", "shape": ["batch", "time", 4]},
]


@pytest.fixture(scope="module")
def code(tmp_path_factory):
    folder = tmp_path_factory.mktemp("code")
    (folder / "nets").mkdir()
    (folder / "nets" / "__init__.py").write_text("")
    (folder / "nets" / "small.py").write_text(CODE)
    return folder


class Plain(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.out = torch.nn.Linear(4, 3)

    def forward(self, x):
        return self.out(x).relu()


@pytest.fixture(scope="module")
def plain():
    torch.manual_seed(2)
    return Plain().eval()


def infer(server, name, **arrays):
    kinds = {"float32": "FP32", "int64": "INT64"}
    inputs = [
        {"name": key, "shape": list(value.shape), "datatype": kinds[str(value.dtype)], "data": value.ravel().tolist()}
        for key, value in arrays.items()
    ]
    answer = server.client.post(f"/v2/models/{name}/infer", json={"inputs": inputs})
    assert answer.status_code == 200, answer.text
    return {out["name"]: np.array(out["data"]).reshape(out["shape"]) for out in answer.json()["outputs"]}


def test_a_module_from_code_with_weights_is_served(command, serve, code, tmp_path, monkeypatch):
    from safetensors.torch import save_file

    monkeypatch.syspath_prepend(str(code))
    from nets.small import Net

    torch.manual_seed(9)
    net = Net(width=5).eval()
    save_file(net.state_dict(), tmp_path / "net.safetensors")
    run = command(
        "torch_module",
        source=code,
        entry="nets.small:Net",
        arguments={"width": 5},
        weights=tmp_path / "net.safetensors",
        inputs=INPUTS,
        trust_remote_code=True,
    ).succeeded()
    result = run.json("result.json")
    assert result["outputs"] == ["scores", "best"]
    assert run.measure("relative_error_max") < 1e-6 and run.measure("equal_min") == 1.0
    rng = np.random.default_rng(1)
    ids, x = rng.integers(0, 10, (3, 6)), rng.standard_normal((3, 6, 4)).astype(np.float32)
    with torch.no_grad():
        expected = net(torch.from_numpy(ids), torch.from_numpy(x))
    found = infer(serve(net=run.model), "net", ids=ids, x=x)
    np.testing.assert_allclose(found["scores"], expected["scores"].numpy(), atol=1e-5)
    np.testing.assert_array_equal(found["best"], expected["best"].numpy())


def test_an_exported_program_brings_its_own_shapes(convert, serve, plain, tmp_path):
    batch = {"x": {0: torch.export.Dim("batch", max=64)}}
    program = torch.export.export(plain, (torch.randn(2, 4),), dynamic_shapes=batch)
    torch.export.save(program, tmp_path / "plain.pt2")
    convert("torch_module", source=tmp_path / "plain.pt2").failed("unsafe_source", "`allow_pickle`")
    run = convert("torch_module", source=tmp_path / "plain.pt2", allow_pickle=True).succeeded()
    assert run.json("result.json")["inputs"][0]["shape"][1] == 4
    x = np.random.default_rng(3).standard_normal((5, 4)).astype(np.float32)
    (found,) = infer(serve(program=run.model), "program", x=x).values()
    with torch.no_grad():
        np.testing.assert_allclose(found, plain(torch.from_numpy(x)).numpy(), atol=1e-5)


def test_torchscript_with_examples_from_a_file(convert, serve, plain, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.trace(plain, (torch.randn(2, 4),)), tmp_path / "plain.pt")
    x = np.random.default_rng(4).standard_normal((2, 4)).astype(np.float32)
    np.savez(tmp_path / "examples.npz", x=x)
    given = {"source": tmp_path / "plain.pt", "examples": tmp_path / "examples.npz", "allow_pickle": True}
    run = convert("torch_module", **given, dynamic_axes={"x": {"0": "batch"}}, outputs=["y"]).succeeded()
    with torch.no_grad():
        for rows in (1, 6):
            more = np.repeat(x[:1], rows, axis=0)
            found = infer(serve(**{f"script{rows}": run.model}), f"script{rows}", x=more)
            np.testing.assert_allclose(found["y"], plain(torch.from_numpy(more)).numpy(), atol=1e-5)
    wrong = {"x": {"3": "batch"}}
    convert("torch_module", **given, dynamic_axes=wrong).failed("bad_params", "`dynamic_axes` names axis 3 of `x`")


def test_int8(convert, code):
    inputs = [{"name": "x", "shape": ["batch", 4]}]
    (code / "plain.py").write_text(
        "from torch.nn import Linear, ReLU, Sequential\n\n"
        "def make():\n    return Sequential(Linear(4, 64), ReLU(), Linear(64, 3))\n"
    )
    given = {"source": code / "plain.py", "entry": "plain:make", "inputs": inputs, "trust_remote_code": True}
    run = convert("torch_module", **given, precision="int8").succeeded()
    assert 1e-4 < run.measure("relative_error_max") < 0.1
    convert("torch_module", **given, precision="int8", max_relative_error=1e-9).failed(
        "parity_failed", "relative_error_max is", "at most 1e-09 is allowed"
    )


def test_an_export_that_computes_something_else_is_refused(convert, code):
    run = convert(
        "torch_module",
        source=code,
        entry="nets.small:Noisy",
        inputs=[{"name": "x", "shape": ["batch", 4]}],
        trust_remote_code=True,
    )
    run.failed("parity_failed", "relative_error_max is")


@pytest.mark.parametrize(
    ("params", "code_word", "words"),
    [
        ({"entry": "nets.small:Net", "inputs": INPUTS}, "unsafe_source", ["`trust_remote_code`"]),
        ({"entry": "nets.small"}, "bad_params", ["`entry`", "package.module:factory"]),
        ({"entry": "nets.none:Net"}, "bad_params", ["`entry` cannot be found"]),
        ({"entry": "nets.small:number"}, "bad_params", ["`entry` gives a int", "torch.nn.Module"]),
        ({"entry": "nets.small:Net", "inputs": None}, "bad_params", ["`inputs` or `examples` is needed"]),
        ({"entry": "nets.small:Net", "arguments": {"wide": 1}}, "bad_params", ["`arguments` does not fit Net"]),
        ({"entry": "nets.small:Net", "outputs": ["y"]}, "bad_params", ["`outputs` names 1, the module has 2"]),
        ({"entry": "nets.small:Net", "dims": {"row": [1, 2]}}, "bad_params", ["`dims` names `row`"]),
        ({"inputs": [{"name": "x", "shape": [0]}]}, "bad_params", ["`shape` of `x`"]),
        ({"inputs": [{"name": "x", "dtype": "fp8", "shape": [1]}]}, "bad_params", ["`dtype` of `x`", "float32"]),
        ({"inputs": [{"name": "x", "shape": ["batch", 5]}], "entry": "nets.small:Noisy", "weights": "setup"},
         "bad_params", ["`weights` is \"setup\"", "a file or folder that exists"]),
        ({}, "bad_params", ["`source` is", "without `entry`"]),
    ],
)  # fmt: skip
def test_wrong_parameters_are_named(convert, code, params, code_word, words):
    given = {"source": code, "inputs": INPUTS, "trust_remote_code": code_word == "bad_params"} | params
    convert("torch_module", **given).failed(code_word, *words)


def test_inputs_that_the_module_refuses_are_named(convert, code):
    inputs = [INPUTS[0], {"name": "x", "shape": ["batch", "time", 5]}]
    given = {"source": code, "entry": "nets.small:Net", "inputs": inputs, "trust_remote_code": True}
    convert("torch_module", **given).failed("bad_params", "the source refuses its inputs", "[2, 2, 5]")


def test_a_pickle_is_never_opened_unasked(convert, tmp_path):
    trace = tmp_path / "was_here"

    class Trap:
        def __reduce__(self):
            return (Path.touch, (trace,))

    torch.save(Trap(), tmp_path / "trap.pt")
    convert("torch_module", source=tmp_path / "trap.pt", inputs=INPUTS).failed("unsafe_source", "`allow_pickle`")
    assert not trace.exists()
