"""Closed-loop load by wrk: CLIENTS connections, each sends its next request when the last is answered."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

from processes import Meter

SCRIPT = Path(__file__).with_name("bodies.lua")


def wrk(url: str, path: str, bodies: Path, clients: int, seconds: int, server: int | None, cpus: str | None = None, headers: dict | None = None) -> dict:
    """One run. `server` is the pid whose tree is charged; errors are answers other than 2xx."""
    env = {**os.environ, "BODIES": str(bodies), "REQUEST_PATH": path}
    env["HEADERS"] = "\n".join(f"{name}: {value}" for name, value in (headers or {}).items())
    pin = ["taskset", "-c", cpus] if cpus else []
    meter = Meter(server)
    done = subprocess.run(
        [*pin, "wrk", "-t1", f"-c{clients}", f"-d{seconds}s", "--timeout", "60s", "-s", str(SCRIPT), url],
        env=env, capture_output=True, text=True, check=True,
    )
    row = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("RESULT"))[7:])
    used = meter.read()
    return {**row, **used, "clients": clients, "cpu_ms": round(1e3 * used["cpu_s"] / max(row["requests"], 1), 4)}
