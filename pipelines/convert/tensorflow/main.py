"""A Keras model (.keras, .h5) or a TensorFlow SavedModel → ONNX by tf2onnx."""

import dataclasses
import os
import re
import sys
from collections.abc import Callable
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
    integer,
    path,
    run,
    structure,
    text,
)

STEPS = ("source", "export", "parity")
OPSET = 18
# Operators by which a graph reads or writes files, or calls back into Python.
REACHING_OUT = {
    "ReadFile", "WriteFile", "MatchingFiles", "SaveV2", "RestoreV2", "PyFunc", "PyFuncStateless", "EagerPyFunc",
    "ReaderReadV2", "WholeFileReaderV2", "TextLineReaderV2", "PrintV2",
}  # fmt: skip
# What `tf.saved_model.save` itself puts beside the signatures, to restore variables.
RESTORING = {"SaveV2", "RestoreV2"}

PARAMS = (
    path("source", "a .keras or .h5 file, or the folder of a SavedModel"),
    text("signature", "SavedModel: the signature to convert", "serving_default"),
    structure(
        "inputs",
        "names of sizes and ranges of values, as JSON, where the model's own do not do",
        signature.check_inputs,
        None,
    ),
    structure("dims", 'sizes of symbolic dimensions: {"batch": [1, 64]}', signature.check_dims, None),
    structure(
        "outputs",
        "JSON list of names for the outputs; a SavedModel's are taken in the order of their names",
        signature.check_names,
        None,
    ),
    integer("opset", "version of ONNX's operators", 13, 18, OPSET),
    choice("precision", "int8 quantises matrices, and activations as they come", graphs.PRECISIONS, "fp32"),
    *signature.LIMIT_PARAMS,
    checkpoint.TRUST_REMOTE_CODE,
)


@dataclasses.dataclass(frozen=True)
class Source:
    """A function over named tensors, and its signature."""

    call: Callable[..., Any]
    inputs: list[signature.Input]
    outputs: list[str]


def convert(job: Job) -> dict[str, Any]:
    # No GPU is looked for, and the library's notes on the processor are not progress.
    os.environ.update(CUDA_VISIBLE_DEVICES="", TF_CPP_MIN_LOG_LEVEL="2", TF_ENABLE_ONEDNN_OPTS="0")
    job.events.step("source")
    params = job.params
    source = load_saved_model(params) if params.source.is_dir() else load_keras(params)
    if params.outputs:
        if len(params.outputs) != len(source.outputs):
            message = f"`outputs` names {len(params.outputs)}, the model has {len(source.outputs)}"
            raise Failure("bad_params", message, param="outputs")
        source = dataclasses.replace(source, outputs=params.outputs)
    inputs = described(source.inputs, params.inputs)
    from conversion import tensors

    examples = tensors.Examples(inputs, params.dims or {})

    job.events.step("export")
    export(job, source, inputs)
    if params.precision == "int8":
        graphs.quantise(job.folder, job.scratch)
    report = check_parity(job, source, examples)
    return {
        "kind": "tensor",
        "form": "saved_model" if params.source.is_dir() else "keras",
        "inputs": [{"name": item.name, "dtype": item.dtype, "shape": item.shape} for item in inputs],
        "outputs": source.outputs,
        "precision": params.precision,
        "parity": report.as_json(),
    }


def load_keras(params: Any) -> Source:
    if params.source.suffix not in (".keras", ".h5", ".hdf5"):
        message = f"`source` is {params.source.name}; it must be .keras, .h5 or the folder of a SavedModel"
        raise Failure("bad_params", message, param="source")
    import keras

    try:
        # Safe mode is what refuses Lambda layers, which hold Python's byte code.
        model = keras.models.load_model(params.source, compile=False, safe_mode=not params.trust_remote_code)
    except Exception as reason:
        if "safe_mode" in str(reason) or "Lambda" in str(reason) or "lambda" in str(reason):
            raise Failure(
                "unsafe_source",
                "the model holds Python code (a Lambda layer): set `trust_remote_code` to true if you trust it",
                param="trust_remote_code",
            ) from reason
        raise Failure("bad_source", f"`source` cannot be loaded by Keras: {reason}", param="source") from reason
    inputs = [declared(tensor.name, tensor.shape, tensor.dtype) for tensor in model.inputs]
    names = [name.split("/")[-1] for name in model.output_names]

    def call(*values: Any) -> list[Any]:
        return flat(model(list(values) if len(values) > 1 else values[0], training=False))

    return Source(call, inputs, names)


def load_saved_model(params: Any) -> Source:
    import tensorflow as tf

    if not (params.source / "saved_model.pb").is_file():
        raise Failure("bad_source", "`source` holds no saved_model.pb", param="source")
    if not params.trust_remote_code:
        refuse_reaching_out(params.source)
    try:
        loaded = tf.saved_model.load(str(params.source))
    except Exception as reason:
        raise Failure("bad_source", f"`source` cannot be loaded by TensorFlow: {reason}", param="source") from reason
    if params.signature not in loaded.signatures:
        known = ", ".join(sorted(loaded.signatures)) or "none"
        message = f"`signature` is {params.signature}; the model has {known}"
        raise Failure("bad_params", message, param="signature")
    function = loaded.signatures[params.signature]
    # A signature is a map: it comes in another order in every process, and `outputs` names by place.
    specs = dict(sorted(function.structured_input_signature[1].items(), key=by_number))
    inputs = [declared(name, spec.shape, spec.dtype.name) for name, spec in specs.items()]
    names = [name for name, _ in sorted(function.structured_outputs.items(), key=by_number)]

    def call(*values: Any) -> list[Any]:
        # The variables live as long as `loaded` does.
        _ = loaded
        found = function(**dict(zip(specs, values, strict=True)))
        return [found[name] for name in names]

    return Source(call, inputs, names)


def by_number(item: tuple[str, Any]) -> list[tuple[int, str]]:
    """Sorts by name, with `output_2` before `output_10`: the order in which Keras numbers what it exports."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", item[0])]


def refuse_reaching_out(folder: Path) -> None:
    """A SavedModel is a program: nothing of it runs before its operators have been looked at."""
    from tensorflow.core.protobuf import saved_model_pb2

    proto = saved_model_pb2.SavedModel()
    proto.ParseFromString((folder / "saved_model.pb").read_bytes())
    found = set()
    for meta in proto.meta_graphs:
        found |= {node.op for node in meta.graph_def.node} & (REACHING_OUT - RESTORING)
        for function in meta.graph_def.library.function:
            found |= {node.op for node in function.node_def} & (REACHING_OUT - RESTORING)
    if found:
        raise Failure(
            "unsafe_source",
            f"the SavedModel reads or writes files, or calls Python ({', '.join(sorted(found))}): "
            "set `trust_remote_code` to true if you trust it",
            param="trust_remote_code",
        )


def declared(name: str, shape: Any, dtype: Any) -> signature.Input:
    """An input as the model declares it; what has no size gets a name."""
    dims = [dim if dim is not None else ("batch" if axis == 0 else f"{name}_{axis}") for axis, dim in enumerate(shape)]
    if str(dtype) not in signature.DTYPES:
        raise Failure("unsupported_model", f"the input `{name}` is of type {dtype}; only numbers are converted")
    return signature.Input(name, str(dtype), tuple(dims))


def described(own: list[signature.Input], given: list[signature.Input] | None) -> list[signature.Input]:
    """The model's inputs, with the names of sizes and the ranges that `inputs` gives them."""
    chosen = {item.name: item for item in given or ()}
    for name, item in chosen.items():
        mine = next((one for one in own if one.name == name), None)
        if mine is None or mine.dtype != item.dtype or len(mine.shape) != len(item.shape):
            known = ", ".join(f"{one.name} {one.dtype} {list(one.shape)}" for one in own)
            message = f"`inputs` has {name} {item.dtype} {list(item.shape)}, the model {known}"
            raise Failure("bad_params", message, param="inputs")
    return [chosen.get(item.name, item) for item in own]


def flat(value: Any) -> list[Any]:
    import tensorflow as tf

    return tf.nest.flatten(value)


def export(job: Job, source: Source, inputs: list[signature.Input]) -> None:
    import tensorflow as tf
    import tf2onnx

    def size(dim: int | str) -> int | None:
        return dim if isinstance(dim, int) else None

    specs = [tf.TensorSpec([size(dim) for dim in item.shape], item.dtype, name=item.name) for item in inputs]

    @tf.function(input_signature=specs, autograph=False)
    def function(*values: Any) -> dict[str, Any]:
        # The exporter sorts outputs by name: these names keep them in the model's order until they get their own.
        return {f"output_{place:04}": tensor for place, tensor in enumerate(source.call(*values))}

    try:
        model, _ = tf2onnx.convert.from_function(function, input_signature=specs, opset=job.params.opset)
    except Exception as reason:
        raise Failure("export_failed", f"tf2onnx cannot export the model: {str(reason).strip()}") from reason
    name_values(model, inputs, source.outputs)
    graphs.save(model, job.folder)


def name_values(model: Any, inputs: list[signature.Input], outputs: list[str]) -> None:
    """Inputs and outputs under the names they have in the model, sizes under those of the signature."""
    graph = model.graph
    rename = {value.name: name for value, name in zip(graph.output, outputs, strict=True) if value.name != name}
    rename |= {value.name: value.name.removesuffix(":0") for value in graph.input if value.name.endswith(":0")}
    for node in graph.node:
        node.input[:] = [rename.get(name, name) for name in node.input]
        node.output[:] = [rename.get(name, name) for name in node.output]
    for value in [*graph.input, *graph.output]:
        value.name = rename.get(value.name, value.name)
    declared_inputs = {item.name: item for item in inputs}
    for value in graph.input:
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            name = declared_inputs[value.name].shape[axis]
            if isinstance(name, str):
                dim.dim_param = name
    for value in graph.output:
        dims = value.type.tensor_type.shape.dim
        if dims and dims[0].dim_param and any("batch" in item.shape[:1] for item in inputs):
            dims[0].dim_param = "batch"


def check_parity(job: Job, source: Source, examples: Any) -> ParityReport:
    import tensorflow as tf
    from conversion import tensors

    job.events.step("parity")

    def reference(feeds: dict[str, Any]) -> list[Any]:
        return [tensor.numpy() for tensor in source.call(*(tf.constant(feeds[item.name]) for item in examples.inputs))]

    return tensors.check_parity(job, f"TensorFlow {tf.__version__}", reference, examples)


PIPELINE = Pipeline(
    home=Path(__file__).resolve().parent,
    steps=STEPS,
    params=PARAMS,
    work=convert,
    examples=(
        "--source model.keras --output out",
        "--source saved_model --signature serving_default --output out",
        "--source model.h5 --dims '{\"batch\": [1, 32]}' --precision int8 --output out",
    ),
)

if __name__ == "__main__":
    sys.exit(run(PIPELINE))
