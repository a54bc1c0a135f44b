"""The control plane tried by its own description: schemathesis makes requests out of the OpenAPI document, right and
wrong ones, in a fixed sequence, and compares each answer with what the document says. No 5xx, no undocumented status, no
answer that breaks its schema. Runs against the real binary on SQLite, and on PostgreSQL where SLUICE_TEST_POSTGRES
names a server."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import uuid
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BINARY = Path(os.environ.get("SLUICE_BIN", ROOT / "target" / "release" / "sluice"))
POSTGRES = os.environ.get("SLUICE_TEST_POSTGRES")
EXAMPLES = os.environ.get("SLUICE_TEST_EXAMPLES", "8")
CHECKS = [
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def answers(url: str):
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return json.load(answer)
    except OSError:
        return None


def database(kind: str, folder: Path) -> str:
    if kind == "sqlite":
        return f"sqlite:{folder / 'sluice.db'}"
    if not POSTGRES:
        assert not os.environ.get("SLUICE_TEST_REQUIRE_POSTGRES"), "SLUICE_TEST_POSTGRES names no server"
        pytest.skip("SLUICE_TEST_POSTGRES names no server")
    name = f"api_{uuid.uuid4().hex}"
    base = POSTGRES.rsplit("/", 1)[0]
    subprocess.run(["psql", "-q", POSTGRES, "-c", f"CREATE DATABASE {name}"], check=True)
    return f"{base}/{name}"


@pytest.fixture(params=["sqlite", "postgres"])
def server(request, tmp_path):
    port = free_port()
    config = tmp_path / "sluice.toml"
    config.write_text(
        f'listen = "127.0.0.1:{port}"\ndata = "{tmp_path}"\n'
        f'[control]\ndatabase = "{database(request.param, tmp_path)}"\n[log]\nformat = "off"\n'
    )
    log = tmp_path / "sluice.log"
    env = {name: value for name, value in os.environ.items() if name != "SLUICE_DATA"}
    with log.open("w") as sink:
        process = subprocess.Popen([str(BINARY), "serve", "--config", str(config)], stdout=sink, stderr=sink, env=env)
    url = f"http://127.0.0.1:{port}"
    end = time.monotonic() + 60
    while answers(f"{url}/api/v1/me") is None:
        assert process.poll() is None and time.monotonic() < end, log.read_text()
        time.sleep(0.1)
    yield url
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0, log.read_text()


def test_what_the_document_says_holds(server, tmp_path):
    done = subprocess.run(
        [
            str(Path(sys.executable).parent / "schemathesis"),
            "run",
            f"{server}/api/v1/openapi.json",
            "--seed=20260101",
            "--generation-deterministic",
            f"--max-examples={EXAMPLES}",
            "--phases=examples,coverage,fuzzing",
            f"--checks={','.join(CHECKS)}",
            # Watches end when their record does.
            "--exclude-path-regex=/events$",
            "--request-timeout=30",
            "--no-color",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
