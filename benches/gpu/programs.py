"""Copies the engine's tests and examples, as cargo's messages on standard input name them, into a folder."""

import json
import shutil
import sys
from pathlib import Path

EXAMPLES = {"decode", "kernel_times"}


def main() -> None:
    out = Path(sys.argv[1])
    wanted = {name: name for name in EXAMPLES} | {"sluice_engine": "engine-tests"}
    for line in sys.stdin:
        message = json.loads(line) if line.startswith("{") else {}
        target, program = message.get("target", {}), message.get("executable")
        kind = set(target.get("kind", []))
        if program and target["name"] in wanted and (kind & {"lib"} or "example" in kind):
            shutil.copy(program, out / wanted.pop(target["name"]))
    if wanted:
        raise SystemExit(f"cargo did not build {', '.join(sorted(wanted))}")


if __name__ == "__main__":
    main()
