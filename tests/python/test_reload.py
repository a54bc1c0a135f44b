"""Signals: SIGHUP reads the configuration again, SIGTERM drains, both under load."""

import hashlib
import json
import signal
import subprocess
import threading
import time

import httpx
import pytest
import sluice

CHAT = {"model": "helpdesk", "messages": [{"role": "user", "content": "asset PC081745. Our new colleague needs access to ERP"}], "temperature": 0}
V1 = {"name": "helpdesk", "path": sluice.HELPDESK / "v1", "slots": 4}
V2 = {"name": "helpdesk", "path": sluice.HELPDESK / "v2", "slots": 4}
MINILM = {"name": "minilm", "path": sluice.MINILM}


class Load:
    """Clients that ask for `helpdesk` without a pause and keep what they get."""

    def __init__(self, server, clients: int = 4):
        self.server, self.stopping = server, threading.Event()
        self.failures: list[str] = []
        self.revisions: set[str] = set()
        self.answered = 0
        self.threads = [threading.Thread(target=self.ask, args=(index,)) for index in range(clients)]

    def ask(self, index: int):
        with httpx.Client(base_url=self.server.url, timeout=60) as client:
            while not self.stopping.is_set():
                try:
                    answer = client.post("/v1/chat/completions", json={**CHAT, "stream": index % 2 == 0})
                except httpx.HTTPError as error:
                    self.failures.append(repr(error))
                    continue
                whole = "data: [DONE]" in answer.text if index % 2 == 0 else '"finish_reason":"stop"' in answer.text
                if answer.status_code != 200 or not whole:
                    self.failures.append(answer.text[:300])
                self.revisions.add(answer.headers.get("x-sluice-revision", "?"))
                self.answered += 1

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        self.some_more()
        return self

    def some_more(self, count: int = 8):
        """Waits for answers to requests that begin from now on."""
        target = self.answered + count + len(self.threads)
        self.server.wait_until(lambda: self.answered >= target or self.failures, what="more answers")

    def __exit__(self, *_):
        self.stopping.set()
        for thread in self.threads:
            thread.join()


def reconfigure(server, deployments, sections=None, expect="configuration read again") -> str:
    """Writes the file, sends SIGHUP and returns the log from then until it says `expect`."""
    config = server.log.parent / "sluice.toml"
    config.write_text(sluice.config_text(server.port, deployments, sections) if isinstance(deployments, list) else deployments)
    seen = len(server.log.read_text())
    server.process.send_signal(signal.SIGHUP)
    server.wait_until(lambda: expect in server.log.read_text()[seen:], 60, what=expect)
    return server.log.read_text()[seen:]


def models(server) -> list[str]:
    return [model["id"] for model in server.client.get("/v1/models").json()["data"]]


def test_deployments_change_under_load_without_an_error(start):
    server = start([V1])
    with Load(server) as load:
        (first,) = load.revisions
        log = reconfigure(server, [V1, MINILM])
        assert "loaded=1" in log and "kept=1" in log
        assert models(server) == ["helpdesk", "minilm"]
        embedding = {"model": "minilm", "input": "x"}
        assert server.client.post("/v1/embeddings", json=embedding).status_code == 200
        load.some_more()
        assert load.revisions == {first}, "what was not changed was loaded again"

        reconfigure(server, [MINILM, V2])
        load.some_more()
        load.revisions.clear()
        load.some_more()
        (second,) = load.revisions
        assert second != first and models(server) == ["minilm", "helpdesk"]

        reconfigure(server, [V2])
        gone = server.client.post("/v1/embeddings", json=embedding)
        assert (gone.status_code, gone.json()["error"]["code"]) == (404, "model_not_found")
        load.some_more()
    assert load.failures == []


@pytest.mark.parametrize(
    "broken,words",
    [
        ("listen = \n", ["sluice.toml:1"]),
        ([V1, {"name": "helpdesk", "path": "elsewhere"}], ["unique"]),
        ([V1, {"name": "other", "path": "/nowhere"}], ["other", "/nowhere"]),
        ([V2, {"name": "far", "upstream": "http://h/v1", "api_key_env": "SLUICE_TEST_UNSET"}], ["SLUICE_TEST_UNSET"]),
    ],
    ids=["not TOML", "twice", "no folder", "no key"],
)
def test_a_wrong_configuration_changes_nothing(start, broken, words):
    server = start([V1])
    before = server.client.get("/v1/models").json()
    with Load(server, clients=2) as load:
        log = reconfigure(server, broken, expect="the old one stays")
        assert all(word in log for word in words), log
        load.some_more()
    assert load.failures == [] and len(load.revisions) == 1
    assert server.client.get("/v1/models").json() == before
    # And the next right one is taken.
    reconfigure(server, [V1, MINILM])
    assert models(server) == ["helpdesk", "minilm"]


def test_what_waits_for_a_restart_is_said(start):
    server = start([V1])
    log = reconfigure(server, [V1], {"server": {"max_body": "1MiB"}, "log": {"format": "off"}})
    assert "wait for a restart" in log and "[server], [log]" in log


def test_a_folder_whose_files_changed_is_loaded_again(start, tmp_path):
    folder = tmp_path / "model"
    subprocess.run(["cp", "-r", sluice.HELPDESK / "v1", folder], check=True)
    mine = {"name": "helpdesk", "path": folder, "slots": 2}
    server = start([mine])
    first = server.client.get("/v1/models/helpdesk").json()["revision"]
    subprocess.run(f"rm -r '{folder}' && cp -r '{sluice.HELPDESK / 'v2'}' '{folder}'", shell=True, check=True)
    assert "loaded=1" in reconfigure(server, [mine])
    assert server.client.get("/v1/models/helpdesk").json()["revision"] != first
    assert "loaded=0" in reconfigure(server, [mine])


def keys_text(**keys: str) -> str:
    return "".join(f'[[key]]\nname = "{name}"\nsha256 = "{hashlib.sha256(key.encode()).hexdigest()}"\n' for name, key in keys.items())


def test_keys_change_under_load(start, tmp_path):
    keys = tmp_path / "keys.toml"
    keys.write_text(keys_text(ada="sk-ada", bob="sk-bob"))
    auth = {"auth": {"required": True, "keys_file": keys}}
    server = start([V1], sections=auth)

    def status(key: str) -> int:
        return server.client.get("/v1/models", headers={"authorization": f"Bearer {key}"}).status_code

    assert (status("sk-ada"), status("sk-bob"), status("sk-eve")) == (200, 200, 401)
    keys.write_text(keys_text(ada="sk-ada", eve="sk-eve"))
    statuses, stop = [], threading.Event()

    def ada():
        with httpx.Client(base_url=server.url, headers={"authorization": "Bearer sk-ada"}) as client:
            while not stop.is_set():
                statuses.append(client.get("/v1/models").status_code)

    thread = threading.Thread(target=ada)
    thread.start()
    assert "keys=2" in reconfigure(server, [V1], auth)
    assert (status("sk-ada"), status("sk-bob"), status("sk-eve")) == (200, 401, 200)
    for wrong in ["[[key]]\nname = 'x'\n", ""]:
        keys.write_text(wrong)
        reconfigure(server, [V1], auth, expect="the old one stays")
    assert (status("sk-ada"), status("sk-eve")) == (200, 200)
    stop.set()
    thread.join()
    assert set(statuses) == {200}


def test_a_drain_loses_no_request(start):
    server = start([V2], sections={"server": {"drain_grace": "1s"}})
    # Streams that have begun, and a client that keeps asking until it is told to leave.
    long = {"model": "helpdesk", "prompt": "a", "max_tokens": 1500, "ignore_eos": True, "stream": True, "n": 4}
    whole, statuses = [], []

    def stream():
        with httpx.Client(base_url=server.url, timeout=240) as client, client.stream("POST", "/v1/completions", json=long) as answer:
            begun.release()
            whole.append(list(answer.iter_lines())[-2:])

    def ask():
        with httpx.Client(base_url=server.url, timeout=240) as client:
            while True:
                try:
                    statuses.append(client.post("/v1/chat/completions", json=CHAT).status_code)
                except httpx.ConnectError:
                    return
                time.sleep(0.01)

    begun = threading.Semaphore(0)
    threads = [threading.Thread(target=stream) for _ in range(6)] + [threading.Thread(target=ask)]
    for thread in threads:
        thread.start()
    for _ in range(6):
        begun.acquire()
    server.process.send_signal(signal.SIGTERM)
    server.wait_until(lambda: server.client.get("/health/ready").status_code == 503, what="not ready")
    for thread in threads:
        thread.join()
    assert [lines[0] if lines[0] else lines[1] for lines in whole] == ["data: [DONE]"] * 6, whole
    assert statuses and set(statuses) == {200}
    assert server.process.wait(60) == 0
    assert json.loads(next(line for line in server.log.read_text().splitlines() if '"route":"completions"' in line))["status"] == 200
