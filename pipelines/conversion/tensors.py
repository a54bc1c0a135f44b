"""Tensor functions: drawing examples of several sizes, running the export, comparing outputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from sluice_pipeline import Failure, Job, ParityReport, limits_of

from conversion import graphs
from conversion.signature import LIMITS, Input

# Of a symbolic dimension: what the exporter sees, and what parity is checked on.
EXPORT_SIZE = 2
PARITY_SIZES = (1, 2, 3, 7)
SEED = 7


def draw(item: Input, sizes: dict[str, int], rng: np.random.Generator) -> np.ndarray:
    """Values for one input, with these sizes for its symbolic dimensions."""
    shape = [dim if isinstance(dim, int) else sizes[dim] for dim in item.shape]
    if item.dtype == "bool":
        return rng.integers(0, 2, shape).astype(bool)
    if item.dtype.startswith("float"):
        if item.low is None and item.high is None:
            return rng.standard_normal(shape).astype(item.dtype)
        return rng.uniform(item.low or 0.0, 1.0 if item.high is None else item.high, shape).astype(item.dtype)
    # Without bounds 0 and 1: indices of any table.
    return rng.integers(int(item.low or 0), 2 if item.high is None else int(item.high), shape).astype(item.dtype)


def read_examples(file: Path, dynamic_axes: dict[str, dict[int, str]]) -> tuple[list[Input], dict[str, np.ndarray]]:
    """Inputs as the arrays of an .npz file declare them, in the file's order."""
    try:
        with np.load(file, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
    except (ValueError, OSError, AttributeError) as reason:
        raise Failure("bad_params", f"`examples` is no .npz file of plain arrays: {reason}", param="examples") from None
    unknown = set(dynamic_axes) - set(arrays)
    if unknown or not arrays:
        named = (
            f"`{sorted(unknown)[0]}`, which `examples` does not hold" if unknown else "arrays; `examples` holds none"
        )
        raise Failure("bad_params", f"`dynamic_axes` names {named}", param="dynamic_axes")
    inputs = []
    for name, array in arrays.items():
        shape: list[int | str] = list(array.shape)
        for axis, dim in dynamic_axes.get(name, {}).items():
            if axis >= len(shape):
                message = f"`dynamic_axes` names axis {axis} of `{name}`, which has {len(shape)}"
                raise Failure("bad_params", message, param="dynamic_axes")
            shape[axis] = dim
        whole = array.dtype.kind in "iu" and array.size
        bounds = (int(array.min()), int(array.max()) + 1) if whole else (None, None)
        inputs.append(Input(name, str(array.dtype), tuple(shape), *bounds))
    return inputs, arrays


@dataclass
class Examples:
    """Feeds of several sizes for one set of inputs."""

    inputs: Sequence[Input]
    dims: dict[str, tuple[int, int]]
    given: dict[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        symbols = {dim for item in self.inputs for dim in item.axes().values()}
        unknown = set(self.dims) - symbols
        if unknown:
            raise Failure("bad_params", f"`dims` names `{sorted(unknown)[0]}`, which no input has", param="dims")
        self.symbols = sorted(symbols)

    def for_export(self) -> dict[str, np.ndarray]:
        return self.given or self._draw(EXPORT_SIZE, SEED)

    def for_parity(self) -> list[dict[str, np.ndarray]]:
        sizes = PARITY_SIZES if self.symbols else PARITY_SIZES[:1]
        drawn = [self._draw(size, SEED + size) for size in sizes]
        return ([self.given] if self.given else []) + drawn

    def _draw(self, size: int, seed: int) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(seed)
        sizes = {name: size for name in self.symbols}
        for name, (least, most) in self.dims.items():
            sizes[name] = min(max(size, least), most)
        return {item.name: draw(item, sizes, rng) for item in self.inputs}


Run = Callable[[dict[str, np.ndarray]], Sequence[np.ndarray]]


def onnx_runner(graph: Path) -> tuple[Run, list[str]]:
    """The export as a function, and the names of its outputs."""
    session = graphs.session(graph)
    # Exporters drop inputs that nothing depends on.
    wanted = [item.name for item in session.get_inputs()]
    names = [item.name for item in session.get_outputs()]
    return lambda feeds: session.run(names, {name: feeds[name] for name in wanted}), names


def check_parity(job: Job, reference: str, source: Run, examples: Examples) -> ParityReport:
    """Runs both sides on every example; ends the run if they differ."""
    export, names = onnx_runner(job.folder / graphs.GRAPH)
    report = ParityReport("tensor", reference, job.params.precision)
    limits = limits_of(job.params, LIMITS)
    for reason in measure(report, source, export, names, examples.for_parity(), limits):
        job.events.warning(reason)
    report.settle(job.events, job.output, job.folder)
    return report


def measure(
    report: ParityReport,
    source: Run,
    export: Run,
    names: Sequence[str],
    feeds: Sequence[dict[str, np.ndarray]],
    limits: dict[str, float | None],
) -> list[str]:
    """Adds every feed's comparison and the overall measures; returns what was left out and why."""
    skipped, relative, equal = [], [], []
    for one in feeds:
        shapes = {name: list(array.shape) for name, array in one.items()}
        try:
            expected = source(one)
        except Exception as reason:
            # Not every size is one that the source takes: convolutions want more than one pixel.
            skipped.append(f"the source refuses inputs of {shapes}: {str(reason).strip().splitlines()[:1]}")
            continue
        try:
            found = export(one)
        except Exception as reason:
            report.cases.append({"shapes": shapes, "failed": str(reason)})
            relative.append(float("inf"))
            continue
        case: dict[str, Any] = {"shapes": shapes, "outputs": {}}
        report.cases.append(case)
        for name, want, got in zip(names, expected, found, strict=True):
            case["outputs"][name] = compared = compare(np.asarray(want), np.asarray(got))
            if "relative_error_max" in compared:
                relative.append(compared["relative_error_max"])
            else:
                equal.append(compared["equal"])
    if not report.cases:
        raise Failure("bad_params", "the source took no input of any size tried: " + "; ".join(skipped))
    outputs = [output for case in report.cases for output in case.get("outputs", {}).values()]
    if relative:
        errors = [output["abs_error_max"] for output in outputs if "abs_error_max" in output]
        report.add("abs_error_max", max(errors, default=float("inf")), most=limits["max_abs_error"])
        report.add("relative_error_max", max(relative), most=limits["max_relative_error"])
    if equal:
        report.add("equal_min", min(equal), least=limits["min_equal"])
    return skipped


def compare(want: np.ndarray, got: np.ndarray) -> dict[str, float]:
    """Errors of floats, relative to the largest value; the share of equal elements of all else."""
    if want.shape != got.shape:
        raise Failure("parity_failed", f"an output has the shape {list(got.shape)}, its source {list(want.shape)}")
    if want.dtype.kind != "f":
        return {"equal": float((want == got).mean()) if want.size else 1.0}
    want, got = want.astype(np.float64), got.astype(np.float64)
    same = (want == got) | (np.isnan(want) & np.isnan(got))
    with np.errstate(invalid="ignore"):
        # Infinity less infinity is no number; equal values differ by nothing.
        error = np.where(same, 0.0, np.abs(want - got))
    finite = np.abs(want[np.isfinite(want)])
    scale = float(finite.max()) if finite.size else 1.0
    worst = float(error.max()) if error.size else 0.0
    return {
        "abs_error_max": worst,
        "abs_error_mean": float(error.mean()) if error.size else 0.0,
        "relative_error_max": worst / max(scale, np.finfo(np.float32).tiny),
        "relative_error_mean": (float(error.mean()) if error.size else 0.0) / max(scale, np.finfo(np.float32).tiny),
    }
