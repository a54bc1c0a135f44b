"""What the binary of each earlier step has left, its records and its sluice.toml, opens with this one, serves, and rolls back."""

import json
import os
import sqlite3
import subprocess
import tarfile
import threading
import uuid
from http.server import ThreadingHTTPServer

import pytest
import sluice
from fixtures_of_earlier_data import UPSTREAM, Answers

FIXTURES = sluice.ROOT / "tests" / "fixtures"
# What was resolved, in order; each was made by its own binary.
STEPS = ["trust"]
DATABASE = os.environ.get("SLUICE_TEST_POSTGRES")
ASK = {"model": "helpdesk", "messages": [{"role": "user", "content": "hello"}]}
# Where the address of the upstream stands.
ADDRESSES = [("work_orders", "snapshot"), ("deployments", "engine_options")]


@pytest.fixture
def upstream():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()


def moved(upstream: str) -> list[str]:
    """SQL that puts the upstream's address of now into the records."""
    return [
        f"UPDATE {table} SET {column} = replace(cast({column} as text), '{UPSTREAM}', '{upstream}')" for table, column in ADDRESSES
    ]


def in_sqlite(folder, upstream: str) -> None:
    with sqlite3.connect(folder / "data" / "sluice.db") as rows:
        for statement in moved(upstream):
            rows.execute(statement)
    rows.close()


def in_postgres(folder, upstream: str) -> None:
    """The same in a database of its own, which the configuration names."""
    name = f"upgrade_{uuid.uuid4().hex}"
    database = f"{DATABASE.rsplit('/', 1)[0]}/{name}"

    def sql(where: str, *arguments):
        command = ["psql", "--quiet", "--set", "ON_ERROR_STOP=1", "--output", os.devnull, where, *arguments]
        subprocess.run(command, check=True, timeout=120)

    sql(DATABASE, "--command", f"CREATE DATABASE {name}")
    sql(database, "--file", folder / "postgres" / "dump.sql")
    for statement in moved(upstream):
        sql(database, "--command", statement)
    for left in (folder / "data").iterdir():
        left.unlink()
    (folder / "postgres" / "keys.json").rename(folder / "data" / "keys.json")
    config = folder / "sluice.toml"
    config.write_text(config.read_text().replace("sqlite:data/sluice.db", database))


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("placed", [in_sqlite, in_postgres])
def test_an_earlier_data_directory_opens_serves_and_rolls_back(tmp_path, upstream, step, placed):
    if placed is in_postgres and DATABASE is None:
        pytest.skip("scripts/test.sh starts a PostgreSQL")
    with tarfile.open(FIXTURES / f"{step}.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    placed(tmp_path, upstream)
    keys = json.loads((tmp_path / "data" / "keys.json").read_text())
    port = sluice.free_port()
    # The folder of then, and not one that the environment names.
    env = {"SLUICE_LISTEN": f"127.0.0.1:{port}", "SLUICE_DATA": "data"}
    server = sluice.serve(tmp_path / "sluice.toml", port, env=env, cwd=tmp_path)
    operator = {"authorization": f"Bearer {keys['it-operator']}"}
    try:

        def ask(holder: str):
            return server.client.post("/v1/chat/completions", json=ASK, headers={"authorization": f"Bearer {keys[holder]}"})

        def live() -> str:
            found = server.client.get("/api/v1/deployments/helpdesk", headers=operator).json()["live_version"]
            versions = server.client.get("/api/v1/models/helpdesk/versions", headers=operator).json()["items"]
            return next(f"v{version['number']}" for version in versions if version["id"] == found)

        server.wait_until(lambda: ask("it-viewer").status_code == 200, what="the answer of what was live")
        assert live() == "v2"
        # Of another department, by the grant of then.
        assert ask("sales-viewer").status_code == 200
        before = ask("root").headers["x-sluice-revision"]

        command = [sluice.BINARY, "rollback", "helpdesk", "--url", server.url, "--key", keys["it-operator"], "-r", "upgraded"]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert ran.returncode == 0, ran.stderr
        server.wait_until(lambda: live() == "v1", what="the version before")
        answer = ask("it-viewer")
        assert answer.status_code == 200 and answer.headers["x-sluice-revision"] != before
    finally:
        server.stop()
