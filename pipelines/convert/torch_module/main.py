"""Any PyTorch module → ONNX by torch.onnx: code (`package.module:factory`), TorchScript or ExportedProgram."""

import importlib
import inspect
import logging
import os
import sys
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from conversion import checkpoint, graphs, signature
from sluice_pipeline import (
    Failure,
    Job,
    ParityReport,
    Pipeline,
    choice,
    path,
    run,
    structure,
)
from sluice_pipeline.params import Wrong

STEPS = ("source", "export", "parity")


def check_object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Wrong("a JSON object")
    return value


def check_entry(value: Any) -> tuple[str, str]:
    module, _, factory = value.partition(":") if isinstance(value, str) else ("", "", "")
    if not all(part.isidentifier() for part in module.split(".")) or not factory.isidentifier():
        raise Wrong("package.module:factory, a function or class that makes the module")
    return module, factory


PARAMS = (
    path("source", "a .pt2 (ExportedProgram), a TorchScript file, or with `entry` the .py file or folder of the code"),
    structure("entry", "package.module:factory within `source`", check_entry, None),
    structure("arguments", "JSON object of arguments for the factory", check_object, None),
    path("weights", "with `entry`: a .safetensors file to load into the module", None),
    structure(
        "inputs", 'JSON list: [{"name": "x", "dtype": "float32", "shape": ["batch", 4]}]', signature.check_inputs, None
    ),
    path("examples", "instead of `inputs`: an .npz file with one array for each input, in order", None),
    structure("dynamic_axes", 'with `examples`: JSON such as {"x": {"0": "batch"}}', signature.check_axes, None),
    structure("dims", 'sizes of symbolic dimensions: {"batch": [1, 64]}', signature.check_dims, None),
    structure("outputs", "JSON list of names for the outputs", signature.check_names, None),
    choice("precision", "int8 quantises matrices, and activations as they come", graphs.PRECISIONS, "fp32"),
    *signature.LIMIT_PARAMS,
    checkpoint.ALLOW_PICKLE,
    checkpoint.TRUST_REMOTE_CODE,
)


def convert(job: Job) -> dict[str, Any]:
    job.events.step("source")
    params = job.params
    form = form_of(params)
    refuse_what_is_not_trusted(params, form)

    import torch

    torch.set_num_threads(os.cpu_count() or 1)
    source = {"entry": load_entry, "program": load_program, "script": load_script}[form](params)
    examples = examples_of(params, source)
    module, names = flat(source, examples, params.outputs)

    job.events.step("export")
    export(job, source if form == "program" else module, form, examples, names)
    if params.precision == "int8":
        graphs.quantise(job.folder, job.scratch)
    report = check_parity(job, module, examples)
    return {
        "kind": "tensor",
        "form": form,
        "inputs": [{"name": item.name, "dtype": item.dtype, "shape": item.shape} for item in examples.inputs],
        "outputs": names,
        "precision": params.precision,
        "parity": report.as_json(),
    }


def form_of(params: Any) -> str:
    if params.entry:
        return "entry"
    for name in ("weights", "arguments"):
        if getattr(params, name):
            raise Failure("bad_params", f"`{name}` goes with `entry`, which is not given", param=name)
    if params.source.suffix == ".pt2":
        return "program"
    if params.source.is_file() and zipfile.is_zipfile(params.source):
        return "script"
    raise Failure(
        "bad_params",
        f"`source` is {params.source.name}; without `entry` it must be a .pt2 or TorchScript file",
        param="source",
    )


def refuse_what_is_not_trusted(params: Any, form: str) -> None:
    if form == "entry" and not params.trust_remote_code:
        raise Failure(
            "unsafe_source",
            "`entry` runs the Python code in `source`: read it, and set `trust_remote_code` to true if you trust it",
            param="trust_remote_code",
        )
    if form != "entry" and not params.allow_pickle:
        raise checkpoint.pickle_refused(params.source.name)
    if params.weights and params.weights.suffix != ".safetensors" and not params.allow_pickle:
        raise checkpoint.pickle_refused(params.weights.name)


def load_entry(params: Any) -> Any:
    import torch

    name, factory = params.entry
    place = params.source if params.source.is_dir() else params.source.parent
    sys.path.insert(0, str(place))
    try:
        make = getattr(importlib.import_module(name), factory)
    except (ImportError, AttributeError) as reason:
        raise Failure("bad_params", f"`entry` cannot be found in {place}: {reason}", param="entry") from reason
    try:
        module = make(**(params.arguments or {}))
    except TypeError as reason:
        raise Failure("bad_params", f"`arguments` does not fit {factory}: {reason}", param="arguments") from reason
    if not isinstance(module, torch.nn.Module):
        kind = type(module).__name__
        raise Failure("bad_params", f"`entry` gives a {kind}; it must give a torch.nn.Module", param="entry")
    if params.weights:
        load_weights(module, params)
    return module.eval()


def load_weights(module: Any, params: Any) -> None:
    import torch

    if params.weights.suffix == ".safetensors":
        from safetensors.torch import load_file

        state = load_file(params.weights)
    else:
        state = torch.load(params.weights, map_location="cpu", weights_only=True)
    try:
        module.load_state_dict(state, strict=True)
    except RuntimeError as reason:
        raise Failure("bad_params", f"`weights` does not fit the module: {reason}", param="weights") from reason


def load_program(params: Any) -> Any:
    import torch

    try:
        return torch.export.load(params.source)
    except Exception as reason:
        raise Failure("bad_source", f"`source` is no ExportedProgram: {reason}", param="source") from reason


def load_script(params: Any) -> Any:
    import torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.jit.load(params.source, map_location="cpu").eval()
    except RuntimeError as reason:
        raise Failure("bad_source", f"`source` is no TorchScript file: {reason}", param="source") from reason


def examples_of(params: Any, source: Any) -> Any:
    from conversion import tensors

    dims = params.dims or {}
    if params.dynamic_axes and not params.examples:
        raise Failure("bad_params", "`dynamic_axes` goes with `examples`, which is not given", param="dynamic_axes")
    if params.examples and params.inputs:
        raise Failure("bad_params", "`inputs` and `examples` are both given; one is needed", param="inputs")
    if params.examples:
        inputs, arrays = tensors.read_examples(params.examples, params.dynamic_axes or {})
        return tensors.Examples(inputs, dims, arrays)
    if params.inputs:
        return tensors.Examples(params.inputs, dims)
    if hasattr(source, "graph_signature"):
        return tensors.Examples(*declared(source, dims))
    raise Failure("bad_params", "`inputs` or `examples` is needed: the shapes and types to export for", param="inputs")


def declared(
    program: Any, dims: dict[str, tuple[int, int]]
) -> tuple[list[signature.Input], dict[str, tuple[int, int]]]:
    """The inputs that an ExportedProgram declares, and the bounds of its symbolic dimensions."""
    wanted, inputs, bounds = set(program.graph_signature.user_inputs), [], dict(dims)
    for node in program.graph.nodes:
        if node.op != "placeholder" or node.name not in wanted:
            continue
        value = node.meta["val"]
        shape = [dim if isinstance(dim, int) else str(dim) for dim in value.shape]
        if not all(isinstance(dim, int) or dim.isidentifier() for dim in shape):
            message = f"`inputs` is needed: the program's input `{node.name}` has a computed dimension ({shape})"
            raise Failure("bad_params", message, param="inputs")
        inputs.append(signature.Input(node.name, str(value.dtype).removeprefix("torch."), tuple(shape)))
    for symbol, bound in program.range_constraints.items():
        # Without an upper bound it is a symbol of infinity, which is no number.
        least, most = int(bound.lower), int(bound.upper) if bound.upper.is_Integer else 1 << 31
        if str(symbol) not in bounds and str(symbol) in {dim for item in inputs for dim in item.shape}:
            bounds[str(symbol)] = (max(least, 1), most)
    return inputs, bounds


def tensors_in(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Every tensor of a module's output with a name: keys of dictionaries, numbers of lists."""
    import torch

    if isinstance(value, torch.Tensor):
        yield name or "output", value
    elif isinstance(value, dict):
        for key, part in value.items():
            yield from tensors_in(part, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list | tuple):
        for index, part in enumerate(value):
            yield from tensors_in(part, f"{name or 'output'}_{index}")
    elif value is not None:
        raise Failure("unsupported_model", f"the module's output holds a {type(value).__name__}, which is no tensor")


def flat(source: Any, examples: Any, names: list[str] | None) -> tuple[Any, list[str]]:
    """The module with a tuple of tensors as its output, and their names."""
    import torch

    module = source.module() if hasattr(source, "graph_signature") else source

    class Flat(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = module

        def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return tuple(tensor for _, tensor in tensors_in(self.module(*inputs)))

    feeds = [torch.from_numpy(array) for array in examples.for_export().values()]
    try:
        with torch.no_grad():
            found = [name for name, _ in tensors_in(module(*feeds))]
    except Failure:
        raise
    except Exception as reason:
        shapes = {item.name: list(feed.shape) for item, feed in zip(examples.inputs, feeds, strict=True)}
        message = f"the source refuses its inputs ({shapes}): {str(reason).strip()}"
        raise Failure("bad_params", message, param="inputs") from reason
    if names and len(names) != len(found):
        message = f"`outputs` names {len(names)}, the module has {len(found)}: {', '.join(found)}"
        raise Failure("bad_params", message, param="outputs")
    return Flat(), names or found


def export(job: Job, module: Any, form: str, examples: Any, names: list[str]) -> None:
    import torch

    logging.getLogger("torch").setLevel(logging.ERROR)
    feeds = tuple(torch.from_numpy(array) for array in examples.for_export().values())
    graph = job.folder / graphs.GRAPH
    options: dict[str, Any] = {
        "input_names": [item.name for item in examples.inputs],
        "output_names": names,
        "verbose": False,
    }
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            if form == "script":
                # The only exporter that reads TorchScript.
                axes = {item.name: item.axes() for item in examples.inputs}
                torch.onnx.export(module.module, feeds, str(graph), dynamo=False, dynamic_axes=axes, **options)
            elif form == "program":
                torch.onnx.export(module, dynamo=True, **options).save(graph, external_data=True)
            else:
                shapes = (tuple(dynamic_shape(item, examples.dims) for item in examples.inputs),)
                torch.onnx.export(module, feeds, dynamo=True, dynamic_shapes=shapes, **options).save(
                    graph, external_data=True
                )
    except Exception as reason:
        raise Failure("export_failed", f"torch.onnx cannot export the module: {innermost(reason)}") from reason


def dynamic_shape(item: signature.Input, dims: dict[str, tuple[int, int]]) -> dict[int, Any]:
    import torch

    def dimension(name: str) -> Any:
        return torch.export.Dim(name, min=dims[name][0], max=dims[name][1]) if name in dims else name

    return {axis: dimension(name) for axis, name in item.axes().items()}


def innermost(reason: BaseException) -> str:
    while reason.__cause__ is not None:
        reason = reason.__cause__
    return inspect.cleandoc(str(reason)).splitlines()[0] if str(reason).strip() else type(reason).__name__


def check_parity(job: Job, module: Any, examples: Any) -> ParityReport:
    import torch
    from conversion import tensors

    job.events.step("parity")

    def source(feeds: dict[str, Any]) -> list[Any]:
        with torch.no_grad():
            return [
                tensor.numpy() for tensor in module(*(torch.from_numpy(feeds[item.name]) for item in examples.inputs))
            ]

    return tensors.check_parity(job, f"PyTorch {torch.__version__}", source, examples)


PIPELINE = Pipeline(
    home=Path(__file__).resolve().parent,
    steps=STEPS,
    params=PARAMS,
    work=convert,
    examples=(
        "--source net.py --entry net:Net --weights net.safetensors --trust-remote-code \\\n"
        '      --inputs \'[{"name": "x", "shape": ["batch", 4]}]\' --output out',
        "--source net.pt2 --allow-pickle --output out",
        '--source net.pt --allow-pickle --examples batch.npz --dynamic-axes \'{"x": {"0": "batch"}}\' --output out',
    ),
)

if __name__ == "__main__":
    sys.exit(run(PIPELINE))
