"""The data directory of an earlier binary opens and serves, and its upgrade says who would be refused."""

import json
import sqlite3
import subprocess
import tarfile
import threading
from http.server import ThreadingHTTPServer

import pytest
import sluice
from fixtures_of_earlier_data import ROOT_KEY, UPSTREAM, Answers

FIXTURE = sluice.ROOT / "tests" / "fixtures" / "earlier-data.tar.gz"
ASK = {"model": "helpdesk", "messages": [{"role": "user", "content": "hello"}]}


@pytest.fixture
def upstream():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()


@pytest.fixture
def earlier(tmp_path, upstream):
    """The data directory, with the upstream's address in it that holds now."""
    with tarfile.open(FIXTURE) as archive:
        archive.extractall(tmp_path, filter="data")
    database = tmp_path / "data" / "sluice.db"
    with sqlite3.connect(database) as rows:
        for table, column in (("work_orders", "snapshot"), ("deployments", "engine_options")):
            rows.execute(f"UPDATE {table} SET {column} = replace({column}, '{UPSTREAM}', '{upstream}')")
    rows.close()
    return database


def test_it_opens_serves_and_says_who_would_be_refused(start, tmp_path, earlier):
    keys = json.loads((earlier.parent / "keys.json").read_text())
    keys_file = tmp_path / "keys.toml"
    keys_file.write_text(f'[[key]]\nname = "root"\nsha256 = "{ROOT_KEY}"\nrole = "admin"\n')
    sections = {
        "auth": {"required": True, "keys_file": keys_file},
        "control": {"database": f"sqlite:{earlier}"},
        # What a deployment of then names has to be listed now.
        "control.allow": {"upstreams": ["127.0.0.0/8"]},
    }
    server = start([], sections=sections)

    def ask(holder: str, **changed):
        headers = {"authorization": f"Bearer {keys[holder]}"}
        return server.client.post("/v1/chat/completions", json=ASK | changed, headers=headers)

    server.wait_until(lambda: ask("it-viewer").status_code == 200, what="the answer of what was live")
    assert ask("root").status_code == 200
    # Of another department: as a model that does not exist.
    refused, unknown = ask("sales-viewer"), ask("sales-viewer", model="helpdes")
    assert refused.status_code == unknown.status_code == 404
    assert refused.text == unknown.text.replace("helpdes`", "helpdesk`")
    headers = {"authorization": f"Bearer {keys['sales-viewer']}"}
    assert server.client.get("/v1/models", headers=headers).json()["data"] == []
    person = server.client.get("/api/v1/me", headers={"authorization": f"Bearer {keys['root']}"}).json()["principal"]
    assert person["name"] == "root", "the key of the file is who it was before"

    config = next(tmp_path.glob("*/sluice.toml"))

    def doctor(*arguments: str):
        command = [sluice.BINARY, "doctor", "access", "--config", config, "--days", "3650", "-o", "json", *arguments]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=tmp_path)
        return ran.returncode, json.loads(ran.stdout)

    status, found = doctor()
    assert status == 1
    assert [(it["holder"], it["deployment"], it["can_be_granted"]) for it in found] == [("sales-viewer", "helpdesk", True)]
    assert doctor("--grant") == (0, [])
    server.wait_until(lambda: ask("sales-viewer").status_code == 200, seconds=5, what="the grant")
