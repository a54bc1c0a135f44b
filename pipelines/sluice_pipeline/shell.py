"""How a run starts and ends: parameters in, `result.json` or `error.json` out, nothing half done.

The work happens in a child process. Its parent imports nothing heavy and only waits, so that
SIGTERM is obeyed at once even while the child is deep inside a library, and so that a child
killed for its memory still leaves an `error.json`.
"""

import argparse
import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import tomllib
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from sluice_pipeline import params as parameters
from sluice_pipeline.events import Events
from sluice_pipeline.failure import Failure
from sluice_pipeline.report import FILE as PARITY

MODEL, RESULT, ERROR = "model", "result.json", "error.json"
UNFINISHED = ".unfinished"
DESCRIBE = "--describe"


@dataclass(frozen=True)
class Job:
    """One run, as the pipeline's own code sees it."""

    params: SimpleNamespace
    events: Events
    # Becomes `OUTPUT/model` if the run succeeds.
    folder: Path
    # For files that nobody needs afterwards.
    scratch: Path
    # Where reports are written, also of runs that fail.
    output: Path


@dataclass(frozen=True)
class Pipeline:
    """A pipeline; its name and summary are those of `pipeline.toml` in `home`."""

    home: Path
    steps: Sequence[str]
    params: Sequence[parameters.Param]
    # Fills `job.folder`; what it returns goes into result.json.
    work: Callable[[Job], dict[str, Any]]
    # Command lines for `--help`, without the program's name.
    examples: Sequence[str] = field(default=())

    def about(self) -> dict[str, Any]:
        return tomllib.loads((self.home / "pipeline.toml").read_text(encoding="utf-8"))


class _Stopped(BaseException):
    """A signal asked for the end."""

    def __init__(self, number: int):
        super().__init__(number)
        self.number = number


def run(pipeline: Pipeline) -> int:
    """The whole of a pipeline's `main`; returns the exit status."""
    if sys.argv[1:] == [DESCRIBE]:
        print(json.dumps(parameters.described(pipeline.params), indent=1, ensure_ascii=False))
        return 0
    arguments = _arguments(pipeline)
    output = arguments.output.resolve()
    made = not output.exists()
    try:
        params = parameters.read(pipeline.params, _given(arguments, pipeline.params))
        _clear(output)
    except Failure as failure:
        return fail(output, failure, status=2)
    # Waiting threads sleep, so that a busy machine does not slow the run out of proportion.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        return _supervise(pipeline, params, output)
    except _Stopped as stopped:
        if not (output / RESULT).exists():
            _discard(output, made)
        print(f"stopped by {signal.Signals(stopped.number).name}; nothing is left behind", file=sys.stderr)
        return 128 + stopped.number
    finally:
        shutil.rmtree(output / UNFINISHED, ignore_errors=True)


def run_beside(command: Sequence[str | Path], **options: Any) -> subprocess.CompletedProcess:
    """`subprocess.run` of a program that ends with this process, however that ends."""
    command = [str(part) for part in command]
    return subprocess.run(command, check=False, preexec_fn=_end_with_parent, stdin=subprocess.DEVNULL, **options)


def _arguments(pipeline: Pipeline) -> argparse.Namespace:
    about = pipeline.about()
    program = os.path.relpath(sys.argv[0])
    examples = "".join(f"  python {program} {example}\n" for example in pipeline.examples)
    parser = argparse.ArgumentParser(
        description=about["summary"],
        epilog=f"examples:\n{examples}" if examples else None,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--output", type=Path, required=True, metavar="DIR", help="gets model/, result.json, parity.json"
    )
    parser.add_argument("--params", type=Path, metavar="FILE", help="parameters as one JSON object; flags come on top")
    parameters.add_flags(parser, pipeline.params)
    return parser.parse_args()


def _given(arguments: argparse.Namespace, params: Sequence[parameters.Param]) -> Any:
    flags = parameters.from_flags(arguments, params)
    if arguments.params is None:
        return flags
    try:
        given = json.loads(arguments.params.read_text(encoding="utf-8"))
    except (OSError, ValueError) as reason:
        raise Failure("bad_params", f"{arguments.params} cannot be read as JSON: {reason}", errors=[]) from None
    return given | flags if isinstance(given, dict) else given


def _clear(output: Path) -> None:
    """Makes room for this run's files. A `model` that no run of ours wrote is not ours to replace."""
    if (output / MODEL).exists() and not (output / RESULT).exists():
        raise Failure(
            "output_in_use", f"{output} holds a `{MODEL}` without a `{RESULT}`: remove it, or name another --output"
        )
    shutil.rmtree(output / UNFINISHED, ignore_errors=True)
    shutil.rmtree(output / MODEL, ignore_errors=True)
    for name in (RESULT, ERROR, PARITY):
        (output / name).unlink(missing_ok=True)
    output.mkdir(parents=True, exist_ok=True)


def _discard(output: Path, made: bool) -> None:
    shutil.rmtree(output / UNFINISHED, ignore_errors=True)
    shutil.rmtree(output / MODEL, ignore_errors=True)
    (output / PARITY).unlink(missing_ok=True)
    if made:
        shutil.rmtree(output, ignore_errors=True)


def _supervise(pipeline: Pipeline, params: SimpleNamespace, output: Path) -> int:
    signals = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}

    def stop(number: int, _frame: Any) -> None:
        raise _Stopped(number)

    # Held back until both sides know what to do with them.
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        for number in signals:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
        _end_with_parent()
        os._exit(carry_out(pipeline, params, output))
    try:
        for number in signals:
            signal.signal(number, stop)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
        _, status = os.waitpid(child, 0)
    except _Stopped:
        for number in signals:
            signal.signal(number, signal.SIG_IGN)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        raise
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return code
    if -code in signals:
        raise _Stopped(-code)
    name = signal.Signals(-code).name
    hint = " (is there too little memory?)" if -code == signal.SIGKILL else ""
    return fail(output, Failure("killed", f"the conversion was ended by {name}{hint}", signal=name))


def carry_out(pipeline: Pipeline, params: SimpleNamespace, output: Path) -> int:
    """The pipeline's own code, and the files that say how it went; what `run` does in a child."""
    unfinished = output / UNFINISHED
    job = Job(params, Events.from_environment(pipeline.steps), unfinished / MODEL, unfinished / "scratch", output)
    try:
        job.folder.mkdir(parents=True)
        job.scratch.mkdir()
        result = {"pipeline": pipeline.about()["name"], "folder": MODEL, **pipeline.work(job)}
        _open_to_all(job.folder)
        job.folder.rename(output / MODEL)
        _write(output / RESULT, result)
        return 0
    except Failure as failure:
        return fail(output, failure)
    except Exception as error:
        traceback.print_exc()
        return fail(output, Failure("internal", f"{type(error).__name__}: {error}"))
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def _open_to_all(folder: Path) -> None:
    """Some exporters write for the owner only; a server often runs as another user."""
    for path in folder.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)


def fail(output: Path, failure: Failure, status: int = 1) -> int:
    """Writes `error.json`, tells a person, and gives back the exit status."""
    try:
        output.mkdir(parents=True, exist_ok=True)
        _write(output / ERROR, failure.as_json())
    except OSError as reason:
        print(f"error: {output / ERROR} cannot be written: {reason}", file=sys.stderr)
    print(f"error: {failure.message}", file=sys.stderr, flush=True)
    return status


def _write(path: Path, value: dict[str, Any]) -> None:
    unfinished = path.with_name(f".{path.name}")
    unfinished.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    unfinished.replace(path)


def _end_with_parent() -> None:
    """Linux: this process is killed when the one that started it is gone."""
    PR_SET_PDEATHSIG = 1
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
