"""Start servers, pin them to CPUs, and account for what they use."""

from __future__ import annotations

import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

TICK = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


def _stat(pid: int) -> tuple[int, float, int]:
    """Parent, CPU seconds and resident bytes of one process."""
    text = Path(f"/proc/{pid}/stat").read_text()
    fields = text[text.rindex(")") + 2 :].split()
    return int(fields[1]), (int(fields[11]) + int(fields[12])) / TICK, int(fields[21]) * PAGE


def usage(root: int) -> tuple[float, int]:
    """CPU seconds and resident bytes of a process and all its descendants."""
    table, children = {}, {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                table[int(entry)] = _stat(int(entry))
            except (OSError, ValueError):
                continue
            children.setdefault(table[int(entry)][0], []).append(int(entry))
    cpu, resident, todo = 0.0, 0, [root]
    while todo:
        pid = todo.pop()
        if pid in table:
            cpu += table[pid][1]
            resident += table[pid][2]
            todo += children.get(pid, [])
    return cpu, resident


def busy_seconds() -> float:
    """CPU seconds that the whole machine was busy since boot."""
    fields = [int(field) for field in Path("/proc/stat").read_text().split("\n")[0].split()[1:]]
    return (fields[0] + fields[1] + fields[2] + fields[5] + fields[6] + fields[7]) / TICK


class Meter:
    """What a server, its clients (our children) and everybody else use from now on."""

    def __init__(self, server: int | None):
        self.server = server
        self.used = usage(server)[0] if server else 0.0
        self.machine, self.own, self.began = busy_seconds(), os.times(), time.monotonic()

    def read(self) -> dict:
        """To be called after the clients have ended."""
        wall, own = time.monotonic() - self.began, os.times()
        clients = own.children_user + own.children_system - self.own.children_user - self.own.children_system
        used, resident = usage(self.server) if self.server else (0.0, 0)
        used -= self.used
        others = busy_seconds() - self.machine - used - clients
        return {"cpu_s": round(used, 2), "resident_mb": round(resident / 2**20), "other_cores": round(others / wall, 2)}


def wait_ready(url: str, process: subprocess.Popen, seconds: float = 300.0) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if process.poll() is not None:
            raise RuntimeError(f"the server ended with {process.returncode}")
        try:
            urllib.request.urlopen(url, timeout=2).read()
            return
        except urllib.error.HTTPError as error:
            # Peers without a health route answer 404 once they are up.
            if error.code < 500:
                return
        except OSError:
            pass
        time.sleep(0.1)
    raise RuntimeError(f"not ready after {seconds} s")


@contextmanager
def running(command: list[str], log: Path, ready: str, cpus: str | None = None, env: dict | None = None, cwd: Path | None = None):
    """A server for the length of a `with` block; its whole process group is stopped after it."""
    pinned = ["taskset", "-c", cpus, *command] if cpus else command
    with log.open("w") as sink:
        process = subprocess.Popen(
            pinned,
            stdout=sink,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", **(env or {})},
            cwd=cwd,
            start_new_session=True,
        )
    try:
        wait_ready(ready, process)
        yield process
    finally:
        for how in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(process.pid, how)
                process.wait(15)
                break
            except ProcessLookupError:
                break
            except subprocess.TimeoutExpired:
                continue
