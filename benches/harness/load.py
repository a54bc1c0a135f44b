"""Closed-loop load by wrk: CLIENTS connections, each sends its next request when the last is answered."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path

from processes import busy_seconds, usage

SCRIPT = Path(__file__).with_name("bodies.lua")


def wrk(url: str, path: str, bodies: Path, clients: int, seconds: int, server: int | None, cpus: str | None = None, headers: dict | None = None) -> dict:
    """One run. `server` is the pid whose tree is charged; errors are answers other than 2xx."""
    env = {**os.environ, "BODIES": str(bodies), "REQUEST_PATH": path}
    env["HEADERS"] = "\n".join(f"{name}: {value}" for name, value in (headers or {}).items())
    pin = ["taskset", "-c", cpus] if cpus else []
    before = usage(server)[0] if server else 0.0
    machine, own, began = busy_seconds(), os.times(), time.monotonic()
    done = subprocess.run(
        [*pin, "wrk", "-t1", f"-c{clients}", f"-d{seconds}s", "--timeout", "60s", "-s", str(SCRIPT), url],
        env=env, capture_output=True, text=True, check=True,
    )
    wall, after = time.monotonic() - began, os.times()
    row = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("RESULT"))[7:])
    client = after.children_user + after.children_system - own.children_user - own.children_system
    used, resident = usage(server) if server else (0.0, 0)
    used -= before
    row.update(
        clients=clients,
        cpu_ms=round(1e3 * used / max(row["requests"], 1), 4),
        resident_mb=round(resident / 2**20),
        other_cores=round((busy_seconds() - machine - used - client) / wall, 2),
    )
    return row
