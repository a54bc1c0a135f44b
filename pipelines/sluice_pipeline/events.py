"""Progress: JSON lines for the task engine, or words on standard error for a person."""

import json
import os
import sys
import time
from collections.abc import Sequence
from typing import Any, TextIO

VARIABLE = "SLUICE_EVENTS_FD"


class Events:
    """Announces the steps of one run, in their order."""

    def __init__(self, steps: Sequence[str], sink: TextIO | None):
        """`sink` takes JSON lines; without one a person is told."""
        self._steps = tuple(steps)
        self._sink = sink
        self._start = time.monotonic()

    @classmethod
    def from_environment(cls, steps: Sequence[str]) -> "Events":
        descriptor = os.environ.get(VARIABLE)
        if not descriptor:
            return cls(steps, None)
        try:
            # Left open at the end: the descriptor belongs to whoever passed it.
            return cls(steps, open(int(descriptor), "w", encoding="utf-8", buffering=1, closefd=False))
        except (ValueError, OSError) as reason:
            raise SystemExit(f"error: {VARIABLE} is {descriptor!r}, not a descriptor to write to: {reason}") from None

    def step(self, name: str) -> None:
        index = self._steps.index(name) + 1
        seconds = time.monotonic() - self._start
        words = f"[{index}/{len(self._steps)} {seconds:4.0f} s] {name}"
        self._send(words, event="step", name=name, index=index, of=len(self._steps))

    def progress(self, fraction: float, message: str = "") -> None:
        """How much of the current step is done, 0 to 1."""
        self._send(f"    {fraction:4.0%} {message}", event="progress", fraction=round(fraction, 4), message=message)

    def metric(self, name: str, value: float, step: int | None = None) -> None:
        at = "" if step is None else f" at step {step}"
        fields = {} if step is None else {"step": step}
        self._send(f"    {name} = {value:.6g}{at}", event="metric", name=name, value=value, **fields)

    def warning(self, message: str) -> None:
        self._send(f"warning: {message}", event="warning", message=message)

    def _send(self, words: str, **event: Any) -> None:
        if self._sink is None:
            print(words, file=sys.stderr, flush=True)
            return
        try:
            self._sink.write(json.dumps(event) + "\n")
            self._sink.flush()
        except BrokenPipeError:
            # Nobody listens any more. The result still counts; whoever wants the run ended sends a signal.
            self._sink = open(os.devnull, "w", encoding="utf-8")
