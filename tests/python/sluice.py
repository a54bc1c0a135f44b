"""Starts the real `sluice` binary for a test and talks to it over real HTTP."""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import socket
import ssl
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

import httpx

ROOT = Path(__file__).resolve().parents[2]
BINARY = Path(os.environ.get("SLUICE_BIN", ROOT / "target" / "release" / "sluice"))
DATA = Path(os.environ.get("SLUICE_DATA", ROOT / "data"))
HELPDESK = ROOT / "examples" / "helpdesk" / "models"
MINILM = DATA / "models" / "all-minilm-l6-v2"


def ports():
    """Below those of scripts/postgres.sh and those that the kernel gives to connections, so that nobody takes one meanwhile;
    the worker beside this one has others."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    first, count = 12_000 + worker % 2 * 4_000, 4_000
    start = random.randrange(count)
    return (first + (start + number) % count for number in itertools.count())


PORTS = ports()


def free_port() -> int:
    for port in PORTS:
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue


def toml_value(value) -> str:
    """JSON's strings, numbers, booleans and arrays are TOML's."""
    return json.dumps(str(value) if isinstance(value, Path) else value)


def config_text(port: int, deployments: list[dict], sections: dict[str, dict] | None = None) -> str:
    lines = [f'listen = "127.0.0.1:{port}"']
    for name, section in (sections or {}).items():
        lines.append(f"[{name}]")
        lines += [f"{key} = {toml_value(value)}" for key, value in section.items()]
    for deployment in deployments:
        lines.append("[[deployment]]")
        lines += [f"{key} = {toml_value(value)}" for key, value in deployment.items()]
    return "\n".join(lines) + "\n"


@dataclass
class Server:
    process: subprocess.Popen
    port: int
    log: Path
    client: httpx.Client = field(repr=False)

    @property
    def url(self) -> str:
        return str(self.client.base_url).rstrip("/")

    @property
    def v1(self) -> str:
        return f"{self.url}/v1"

    def stats(self) -> dict:
        """The text of /metrics as {series: value}."""
        text = self.client.get("/metrics").text
        rows = (line.rsplit(" ", 1) for line in text.splitlines() if line and not line.startswith("#"))
        return {series: float(value) for series, value in rows}

    def gauge(self, name: str, **labels: str) -> float:
        """The sum of the series called `name` that carry all `labels`."""
        wanted = [f'{key}="{value}"' for key, value in labels.items()]
        return sum(
            value
            for series, value in self.stats().items()
            if series.split("{")[0] == name and all(label in series for label in wanted)
        )

    def wait_until(self, condition, seconds: float = 20.0, what: str = "the condition"):
        """Polls; the time is a limit for giving up, not something that is measured."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if condition():
                return
            time.sleep(0.02)
        raise AssertionError(f"{what} did not come true in {seconds} s; the log ends:\n{self.log_tail()}")

    def log_tail(self, lines: int = 40) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def sockets(self) -> int:
        """Descriptors that are sockets: those of the records and of models do not count."""
        found = 0
        for descriptor in Path(f"/proc/{self.process.pid}/fd").iterdir():
            try:
                found += os.readlink(descriptor).startswith("socket:")
            except FileNotFoundError:
                pass
        return found

    def resident_mb(self) -> float:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmRSS"))
        return int(line.split()[1]) / 1024

    def stop(self, how: int = signal.SIGTERM, seconds: float = 30.0) -> int:
        if self.process.poll() is None:
            self.process.send_signal(how)
        try:
            return self.process.wait(seconds)
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()
            self.client.close()


class StartFailed(Exception):
    """The server ended instead of starting; the text is its log."""


def start(
    folder: Path,
    deployments: list[dict],
    sections=None,
    env=None,
    args=(),
    wait: float = 120.0,
    verify: str | None = None,
    port: int | None = None,
) -> Server:
    """Starts a server with its files in `folder`, ready when it returns. `verify`: it speaks
    TLS with a certificate that this file vouches for. `port`: that of one that ran there before."""
    folder.mkdir(parents=True, exist_ok=True)
    port = port or free_port()
    config = folder / "sluice.toml"
    # Records of its own: what one test writes, another must not find.
    sections = {"control": {"database": f"sqlite:{folder / 'sluice.db'}"}, **(sections or {})}
    config.write_text(config_text(port, deployments, sections))
    return serve(config, port, env={"SLUICE_DATA": str(DATA), **(env or {})}, args=args, wait=wait, verify=verify)


def serve(config: Path, port: int, env=None, args=(), cwd: Path = ROOT, wait: float = 120.0, verify: str | None = None) -> Server:
    """Starts a server with a configuration that is there, ready when it returns; its log lies beside it."""
    if not BINARY.exists():
        raise FileNotFoundError(f"{BINARY} is missing: run `make build`, or name a binary in SLUICE_BIN")
    log = config.parent / "sluice.log"
    with log.open("a") as sink:
        process = subprocess.Popen(
            [str(BINARY), "serve", "--config", str(config), *args],
            stdout=sink,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            cwd=cwd,
            env={**os.environ, **(env or {})},
        )
    context = ssl.create_default_context(cafile=verify)
    url = f"{'https' if verify else 'http'}://127.0.0.1:{port}"
    server = Server(process, port, log, httpx.Client(base_url=url, timeout=60, verify=context))
    end = time.monotonic() + wait
    while time.monotonic() < end:
        if process.poll() is not None:
            raise StartFailed(log.read_text(errors="replace"))
        try:
            if server.client.get("/health/ready").status_code == 200:
                return server
        except httpx.TransportError:
            pass
        time.sleep(0.05)
    server.stop(signal.SIGKILL)
    raise StartFailed(f"not ready after {wait} s:\n{server.log_tail()}")


def run_script(path: Path, environment: dict[str, str], seconds: float, *arguments: str) -> subprocess.CompletedProcess:
    """Runs a script that starts servers and clients of its own. However it ends, none of them stays."""
    script = subprocess.Popen(
        [path, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True
    )
    try:
        out, err = script.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(script.pid, signal.SIGKILL)
        out, err = script.communicate()
        raise AssertionError(f"{path.name} did not end in {seconds} s:\n{out[-4000:]}{err[-4000:]}") from None
    finally:
        try:
            os.killpg(script.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    return subprocess.CompletedProcess([path, *arguments], script.returncode, out, err)
