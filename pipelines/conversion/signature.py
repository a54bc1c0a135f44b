"""Declaring the inputs of a tensor function, and how far its outputs may be from their source's.

Standard library only: parameters are checked before anything heavy is imported.
"""

from dataclasses import dataclass
from typing import Any

from sluice_pipeline import number
from sluice_pipeline.params import Wrong

DTYPES = (
    "float32", "float16", "float64", "int64", "int32", "int16", "int8", "uint8", "uint16", "uint32", "uint64", "bool",
)  # fmt: skip
# Measured in the output's own largest value, so that the unit does not matter.
LIMITS = {
    "fp32": {"max_relative_error": 1e-4, "max_abs_error": None, "min_equal": 1.0},
    "int8": {"max_relative_error": 0.1, "max_abs_error": None, "min_equal": 0.9},
}
LIMIT_PARAMS = (
    number("max_relative_error", "largest error over the output's largest value; default by precision", 0, 1e9, None),
    number("max_abs_error", "largest error in the output's own unit", 0, 1e9, None),
    number("min_equal", "outputs that are no floats: share of equal elements; default by precision", 0, 1, None),
)


@dataclass(frozen=True)
class Input:
    """One input. A dimension is a size, or a name that stands for any size."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]
    # Values are drawn from low ≤ x < high; floats without bounds from the normal distribution.
    low: float | None = None
    high: float | None = None

    def axes(self) -> dict[int, str]:
        """The symbolic dimensions by their axis."""
        return {axis: dim for axis, dim in enumerate(self.shape) if isinstance(dim, str)}


def check_inputs(value: Any) -> list[Input]:
    """The parameter `inputs`: `[{"name": "x", "dtype": "float32", "shape": ["batch", 4]}, …]`."""
    form = 'a list of objects such as {"name": "x", "dtype": "float32", "shape": ["batch", 4]}'
    if not isinstance(value, list) or not value:
        raise Wrong(form)
    inputs = [_check_input(item, index, form) for index, item in enumerate(value)]
    names = [item.name for item in inputs]
    if len(set(names)) < len(names):
        raise Wrong("inputs of different names")
    return inputs


def _check_input(item: Any, index: int, form: str) -> Input:
    if not isinstance(item, dict):
        raise Wrong(f"{form}; element {index} is none")
    unknown = set(item) - {"name", "dtype", "shape", "low", "high"}
    if unknown:
        raise Wrong(f"{form}, low and high; element {index} has `{sorted(unknown)[0]}`")
    name, dtype, shape = item.get("name"), item.get("dtype", "float32"), item.get("shape")
    if not isinstance(name, str) or not name:
        raise Wrong(f"{form}; `name` of element {index} must be a text")
    if dtype not in DTYPES:
        raise Wrong(f"{form}; `dtype` of `{name}` must be one of {', '.join(DTYPES)}")
    if not isinstance(shape, list) or not all(_is_dimension(dim) for dim in shape):
        raise Wrong(f"{form}; `shape` of `{name}` must be a list of sizes above 0 and names")
    for bound in ("low", "high"):
        if not isinstance(item.get(bound), int | float | None):
            raise Wrong(f"{form}; `{bound}` of `{name}` must be a number")
    return Input(name, dtype, tuple(shape), item.get("low"), item.get("high"))


def _is_dimension(dim: Any) -> bool:
    return dim.isidentifier() if isinstance(dim, str) else type(dim) is int and dim > 0


def check_dims(value: Any) -> dict[str, tuple[int, int]]:
    """The parameter `dims`: `{"batch": [1, 64]}`, least and greatest size of a symbolic dimension."""
    form = 'an object such as {"batch": [1, 64]}: least and greatest size of a symbolic dimension'
    if not isinstance(value, dict):
        raise Wrong(form)
    for name, bounds in value.items():
        whole = isinstance(bounds, list) and len(bounds) == 2 and all(type(size) is int for size in bounds)
        if not whole or not 1 <= bounds[0] <= bounds[1]:
            raise Wrong(f"{form}; `{name}` has none")
    return {name: (bounds[0], bounds[1]) for name, bounds in value.items()}


def check_names(value: Any) -> list[str]:
    """The parameter `outputs`."""
    named = isinstance(value, list) and value and all(isinstance(name, str) and name for name in value)
    if not named or len(set(value)) < len(value):
        raise Wrong("a list of different names")
    return value


def check_axes(value: Any) -> dict[str, dict[int, str]]:
    """The parameter `dynamic_axes`: `{"x": {"0": "batch"}}`."""
    form = 'an object such as {"x": {"0": "batch"}}: names of the axes that may have any size'
    if not isinstance(value, dict) or not all(isinstance(axes, dict) for axes in value.values()):
        raise Wrong(form)
    for name, axes in value.items():
        if not all(str(axis).isdigit() and isinstance(dim, str) and dim.isidentifier() for axis, dim in axes.items()):
            raise Wrong(f"{form}; `{name}` has none")
    return {name: {int(axis): dim for axis, dim in axes.items()} for name, axes in value.items()}
