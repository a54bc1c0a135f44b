"""The parity report: what was measured between a model and its source, against which limits."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from sluice_pipeline.events import Events
from sluice_pipeline.failure import Failure

FORMAT = 1
FILE = "parity.json"


class ParityReport:
    """Collects measures; evidence that stays with the model, or the reason why there is none."""

    def __init__(self, kind: str, reference: str, precision: str):
        self.kind = kind
        self.reference = reference
        self.precision = precision
        self.measures: dict[str, dict[str, Any]] = {}
        # The cases that were compared, one object each.
        self.cases: list[dict[str, Any]] = []

    def add(self, name: str, value: float, *, most: float | None = None, least: float | None = None) -> None:
        """One number. Without a limit it is only reported."""
        # Not a number is below no limit; JSON has no word for it.
        finite = math.isfinite(value)
        entry: dict[str, Any] = {"value": value if finite else None}
        passed = finite
        if most is not None:
            entry["most"] = most
            passed = finite and value <= most
        if least is not None:
            entry["least"] = least
            passed = finite and value >= least
        self.measures[name] = entry | {"passed": passed}

    @property
    def passed(self) -> bool:
        return bool(self.measures) and all(entry["passed"] for entry in self.measures.values())

    def as_json(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "kind": self.kind,
            "reference": self.reference,
            "precision": self.precision,
            "passed": self.passed,
            "measures": self.measures,
            "cases": self.cases,
        }

    def write(self, folder: Path) -> None:
        (folder / FILE).write_text(json.dumps(self.as_json(), indent=1) + "\n", encoding="utf-8")

    def settle(self, events: Events, output: Path, model: Path) -> None:
        """The verdict: told, kept in `output` whatever it is, and beside the model if it is good.

        Raises what ends the run when a measure is outside its limit.
        """
        for name, entry in self.measures.items():
            if entry["value"] is not None:
                events.metric(name, entry["value"])
        self.write(output)
        self._require()
        self.write(model)

    def _require(self) -> None:
        if self.passed:
            return
        failed = [_words(name, entry) for name, entry in self.measures.items() if not entry["passed"]]
        raise Failure(
            "parity_failed",
            f"the converted model does not compute what its source does: {'; '.join(failed)}",
            parity=self.as_json(),
        )


def _words(name: str, entry: dict[str, Any]) -> str:
    value = "not a number" if entry["value"] is None else f"{entry['value']:.6g}"
    for bound, sign in (("most", "at most"), ("least", "at least")):
        if bound in entry:
            return f"{name} is {value}, {sign} {entry[bound]:g} is allowed"
    return f"{name} is {value}"


def limits_of(params: SimpleNamespace, defaults: Mapping[str, Mapping[str, float | None]]) -> dict[str, float | None]:
    """The limits of the chosen `precision`, and those that the parameters of the same names set instead."""
    own = defaults[params.precision]
    asked = {name: getattr(params, name) for name in own}
    return {name: own[name] if asked[name] is None else asked[name] for name in own}
