"""Parameters: declared once, read from JSON or from flags, refused by name with what would be right."""

import argparse
import difflib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from sluice_pipeline.failure import Failure

REQUIRED = object()


class Wrong(Exception):
    """A value is not what its parameter takes; the text says what would be, after "it must be"."""


@dataclass(frozen=True)
class Param:
    """One parameter. `check` turns a JSON value into what the pipeline uses, or raises `Wrong`."""

    name: str
    help: str
    check: Callable[[Any], Any]
    default: Any = REQUIRED
    # What `check` takes, as a JSON Schema, for those who ask before a run. `x-content`: a file or folder.
    schema: Mapping[str, Any] = field(default_factory=dict)
    # What a flag's text becomes before `check`: numbers and JSON are spelled as in a file.
    from_flag: Callable[[str], Any] = str
    is_switch: bool = False

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")


def text(name: str, help: str, default: Any = REQUIRED) -> Param:
    def check(value: Any) -> str:
        if not isinstance(value, str) or not value:
            raise Wrong("a text that is not empty")
        return value

    return Param(name, help, check, default, {"type": "string"})


def folder(name: str, help: str, default: Any = REQUIRED) -> Param:
    def check(value: Any) -> Path:
        if not isinstance(value, str) or not Path(value).is_dir():
            raise Wrong("a folder that exists")
        return Path(value).resolve()

    return Param(name, help, check, default, {"type": "string", "x-content": "folder"})


def path(name: str, help: str, default: Any = REQUIRED) -> Param:
    def check(value: Any) -> Path:
        if not isinstance(value, str) or not Path(value).exists():
            raise Wrong("a file or folder that exists")
        return Path(value).resolve()

    return Param(name, help, check, default, {"type": "string", "x-content": "path"})


def choice(name: str, help: str, choices: Sequence[str], default: Any = REQUIRED) -> Param:
    def check(value: Any) -> str:
        if value not in choices:
            raise Wrong("one of " + ", ".join(choices))
        return value

    return Param(name, f"{help}: {', '.join(choices)}", check, default, {"enum": list(choices)})


def flag(name: str, help: str) -> Param:
    def check(value: Any) -> bool:
        if not isinstance(value, bool):
            raise Wrong("true or false")
        return value

    return Param(name, help, check, False, {"type": "boolean"}, is_switch=True)


def integer(name: str, help: str, least: int, most: int, default: Any = REQUIRED) -> Param:
    def check(value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise Wrong(f"a whole number from {least} to {most}")
        return value

    schema = {"type": "integer", "minimum": least, "maximum": most}
    return Param(name, help, check, default, schema, _json_or_text)


def number(name: str, help: str, least: float, most: float, default: Any = REQUIRED) -> Param:
    def check(value: Any) -> float:
        real = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if not real or not least <= value <= most:
            raise Wrong(f"a number from {least:g} to {most:g}")
        return float(value)

    schema = {"type": "number", "minimum": least, "maximum": most}
    return Param(name, help, check, default, schema, _json_or_text)


def refused(param: Param, because: str, *, beside: Mapping[str, Sequence[Any]], value: Any = None) -> Param:
    """The same, refused beside these values of others: any value of it, or only `value`."""
    rule = {"beside": {name: list(values) for name, values in beside.items()}, "because": because}
    rule |= {} if value is None else {"is": value}
    return replace(param, schema={**param.schema, "x-refused": [*param.schema.get("x-refused", ()), rule]})


def structure(name: str, help: str, check: Callable[[Any], Any], default: Any = REQUIRED) -> Param:
    """A list or object; `check` raises `Wrong` where it is not as expected. As a flag: JSON."""
    return Param(name, help, check, default, {}, _json_or_text)


def _json_or_text(value: str) -> Any:
    try:
        return json.loads(value)
    except ValueError:
        return value


def read(params: Sequence[Param], given: Any) -> SimpleNamespace:
    """Every parameter checked; all that is wrong is said at once."""
    if not isinstance(given, Mapping):
        raise Failure("bad_params", "the parameters must be one JSON object", errors=[])
    known = {param.name: param for param in params}
    errors = [_unknown(name, known) for name in given if name not in known]
    values = {}
    for name, param in known.items():
        value = given.get(name)
        # null is how a form says "not given".
        if value is None:
            if param.default is REQUIRED:
                errors.append({"param": name, "message": f"`{name}` is missing: {param.help}"})
            else:
                values[name] = param.default
            continue
        try:
            values[name] = param.check(value)
        except Wrong as expected:
            shown = json.dumps(value, ensure_ascii=False)
            shown = shown if len(shown) <= 80 else shown[:77] + "…"
            errors.append({"param": name, "message": f"`{name}` is {shown}; it must be {expected}"})
    errors += _beside(params, given, values)
    if errors:
        raise Failure("bad_params", "; ".join(error["message"] for error in errors), errors=errors)
    return SimpleNamespace(**values)


def _beside(params: Sequence[Param], given: Mapping[str, Any], values: Mapping[str, Any]) -> list[dict[str, str]]:
    """What was given and does not go with the values of others."""
    return [
        {"param": param.name, "message": f"`{param.name}` {rule['because']}"}
        for param in params
        for rule in param.schema.get("x-refused", ())
        if given.get(param.name) not in (None, False)
        and rule.get("is", given.get(param.name)) == given.get(param.name)
        and all(values.get(name) in refused for name, refused in rule["beside"].items())
    ]


def _unknown(name: str, known: Mapping[str, Param]) -> dict[str, str]:
    close = difflib.get_close_matches(str(name), known, n=1)
    instead = f"did you mean `{close[0]}`?" if close else "known are " + ", ".join(f"`{other}`" for other in known)
    return {"param": str(name), "message": f"`{name}` is no parameter of this pipeline; {instead}"}


def described(params: Sequence[Param]) -> dict[str, Any]:
    """All parameters as the JSON Schema of one object."""
    properties = {}
    for param in params:
        default = {} if param.default in (REQUIRED, None) else {"default": param.default}
        properties[param.name] = {"description": param.help, **param.schema, **default}
    return {
        "type": "object",
        "properties": properties,
        "required": [param.name for param in params if param.default is REQUIRED],
        "additionalProperties": False,
    }


def add_flags(parser: argparse.ArgumentParser, params: Sequence[Param]) -> None:
    group = parser.add_argument_group("parameters (also as keys of the JSON object in --params)")
    for param in params:
        if param.is_switch:
            group.add_argument(
                param.flag, dest=param.name, action=argparse.BooleanOptionalAction, default=None, help=param.help
            )
            continue
        default = "" if param.default in (REQUIRED, None) else f" (default: {param.default})"
        group.add_argument(param.flag, dest=param.name, metavar="VALUE", help=_escaped(param.help + default))


def from_flags(arguments: argparse.Namespace, params: Sequence[Param]) -> dict[str, Any]:
    given = {}
    for param in params:
        value = getattr(arguments, param.name)
        if value is not None:
            given[param.name] = value if param.is_switch else param.from_flag(value)
    return given


def _escaped(help: str) -> str:
    return help.replace("%", "%%")
