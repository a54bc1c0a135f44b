"""Clients that are not nice, and models that are not there yet, against the real server."""

import hashlib
import json
import socket
import threading
import time
from contextlib import ExitStack

import httpx
import sluice

V2 = sluice.HELPDESK / "v2"
ADMIN = {"authorization": "Bearer sk-admin"}


def keys_file(folder):
    path = folder / "keys.toml"
    digest = hashlib.sha256(b"sk-admin").hexdigest()
    path.write_text(f'[[key]]\nname = "admin"\nsha256 = "{digest}"\nrole = "admin"\n')
    return path


def one_byte(port, key=None):
    """A request to the control plane that announces a body and sends its first byte."""
    raw = socket.create_connection(("127.0.0.1", port), timeout=20)
    authorization = f"authorization: Bearer {key}\r\n" if key else ""
    head = f"POST /api/v1/models HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n{authorization}\r\n{{"
    raw.sendall(head.encode())
    return raw


def test_silent_bodies_hold_nobody_up(start, tmp_path):
    sections = {"auth": {"required": True, "keys_file": keys_file(tmp_path)}, "server": {"head_timeout": "1s", "body_timeout": "8s", "min_body_rate": "0", "linger_timeout": "1s"}}
    server = start([], sections=sections)
    server.wait_until(lambda: server.client.get("/api/v1/me", headers=ADMIN).status_code == 200, what="the control plane")
    before = server.resident_mb()
    with ExitStack() as open_sockets:
        # Without a key none of the body is waited for.
        for raw in [open_sockets.enter_context(one_byte(server.port)) for _ in range(300)]:
            assert raw.recv(4096).startswith(b"HTTP/1.1 401")
        # With one it is, by so many at once, and not for ever.
        silent = [open_sockets.enter_context(one_byte(server.port, "sk-admin")) for _ in range(300)]
        asked = time.monotonic()
        assert server.client.get("/api/v1/me", headers=ADMIN).status_code == 200
        assert time.monotonic() - asked < 2
        assert server.resident_mb() - before < 120, "less than 200 KiB each"
        answers = [int(raw.recv(4096).split()[1]) for raw in silent]
        assert set(answers) == {408, 429} and answers.count(408) <= 128, answers
    made = server.client.post("/api/v1/models", headers=ADMIN, json={"name": "m"})
    assert made.status_code == 201, made.text


def test_a_configured_model_that_is_still_loading_is_not_unknown(start):
    port, seen = sluice.free_port(), []

    def ask():
        end = time.monotonic() + 60
        while time.monotonic() < end and (not seen or seen[-1].status_code == 503):
            try:
                body = {"model": "helpdesk", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}
                seen.append(httpx.post(f"http://127.0.0.1:{port}/v1/chat/completions", json=body))
                ready = httpx.get(f"http://127.0.0.1:{port}/v2/models/helpdesk/ready")
                assert ready.json()["ready"] == (ready.status_code == 200)
            except httpx.TransportError:
                time.sleep(0.005)

    asking = threading.Thread(target=ask)
    asking.start()
    start([{"name": "helpdesk", "path": V2}, {"name": "minilm", "path": sluice.MINILM}], port=port)
    asking.join()
    statuses = [answer.status_code for answer in seen]
    assert statuses[0] == 503 and statuses[-1] == 200 and set(statuses) == {503, 200}, statuses
    assert int(seen[0].headers["retry-after"]) >= 1
    assert json.loads(seen[0].text)["error"]["code"] == "model_not_ready"


def test_a_big_text_takes_no_big_memory(start):
    server = start([{"name": "helpdesk", "path": V2}])
    warm = server.client.post("/tokenize", json={"model": "helpdesk", "prompt": "The VPN is down. " * 8000})
    assert warm.status_code == 200
    before, text = server.resident_mb(), "The VPN is down. " * 420_000
    answers = []

    def ask(path, field):
        with httpx.Client(timeout=60) as client:
            answers.append(client.post(f"{server.url}{path}", json={"model": "helpdesk", field: text}).status_code)

    asked = time.monotonic()
    threads = [threading.Thread(target=ask, args=("/tokenize" if index % 2 else "/v1/completions", "prompt")) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [400] * 8
    assert time.monotonic() - asked < 15
    assert server.resident_mb() - before < 400
