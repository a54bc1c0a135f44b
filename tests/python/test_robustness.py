"""Clients that hang up, floods, drains and rubbish: nothing stays behind, nothing is mixed up."""

import json
import os
import signal
import socket
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
import sluice

MODEL = "helpdesk"
V2 = "examples/helpdesk/models/v2"


def chat(text, **options):
    return {"model": MODEL, "messages": [{"role": "user", "content": text}], "temperature": 0, **options}


def running(server):
    return server.gauge("vllm:num_requests_running", model_name=MODEL) + server.gauge("vllm:num_requests_waiting", model_name=MODEL)


def open_and_drop(server, index):
    body = json.dumps(chat(f"Hello number {index}, my printer is broken", stream=True, max_tokens=200, ignore_eos=True))
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.port)) as raw:
        raw.sendall((head + body).encode())
        # Some drop before the answer begins, some after its first bytes.
        if index % 2:
            raw.recv(200)


def test_dropped_streams_leave_nothing_behind(start):
    server = start([{"name": MODEL, "path": V2, "slots": 8}])
    server.client.post("/v1/chat/completions", json=chat("warm up", max_tokens=4))

    def round_of_drops():
        with ThreadPoolExecutor(32) as pool:
            list(pool.map(lambda index: open_and_drop(server, index), range(200)))
        server.wait_until(lambda: running(server) == 0, what="every slot being free")

    round_of_drops()
    server.wait_until(lambda: server.sockets() < 30, what="sockets being closed")
    memory = server.resident_mb()
    for _ in range(3):
        round_of_drops()
    # A listener, the runtime's own and this test's client: whatever one of 800 dropped streams leaves is more.
    server.wait_until(lambda: server.sockets() < 10, what="sockets being closed")
    assert server.resident_mb() < memory + 30


def test_64_clients_get_their_own_answers(start):
    server = start([{"name": MODEL, "path": V2, "slots": 16}])
    prompts = [f"Please reset the password of user{index} on host srv-{index * 37 % 1000:03d}" + " thanks" * (index % 9) for index in range(64)]

    def ask(prompt):
        body = chat(prompt, max_tokens=90, stream=False)
        answer = server.client.post("/v1/chat/completions", json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()["choices"][0]["message"]["content"]

    alone = [ask(prompt) for prompt in prompts]
    assert len(set(alone)) > 32, "the prompts must have different answers for the test to mean anything"
    with ThreadPoolExecutor(64) as pool:
        together = list(pool.map(ask, prompts))
    assert together == alone


def test_overload_sheds_at_once_and_keeps_deadlines(start):
    """Three times what fits: the accepted keep their deadline, the rest are told so at once."""
    server = start([{"name": MODEL, "path": V2, "slots": 4, "max_waiting": 8}])
    deadline_ms = 20_000
    server.client.post("/v1/chat/completions", json=chat("warm up", max_tokens=4))
    memory = server.resident_mb()

    def ask(index):
        with httpx.Client(base_url=server.url, timeout=60) as client:
            began = time.monotonic()
            answer = client.post(
                "/v1/chat/completions",
                json=chat(f"request {index}", max_tokens=100, ignore_eos=True),
                headers={"x-request-timeout-ms": str(deadline_ms)},
            )
            return answer, time.monotonic() - began

    with ThreadPoolExecutor(36) as pool:
        results = list(pool.map(ask, range(180)))
    accepted = [(answer, took) for answer, took in results if answer.status_code == 200]
    refused = [(answer, took) for answer, took in results if answer.status_code != 200]
    assert accepted and refused
    assert {answer.status_code for answer, _ in refused} <= {429, 503}
    assert all(int(answer.headers["retry-after"]) >= 1 for answer, _ in refused)
    assert all(answer.json()["error"]["message"] for answer, _ in refused)
    assert all(took < deadline_ms / 1000 for _, took in accepted)
    assert server.resident_mb() < memory + 60
    server.wait_until(lambda: running(server) == 0, what="the queue being empty")


def test_expired_deadline_is_refused(server):
    answer = server.client.post("/v1/chat/completions", json=chat("hello", max_tokens=400, ignore_eos=True), headers={"x-request-timeout-ms": "1"})
    assert answer.status_code in (408, 503, 504) and answer.json()["error"]["message"]


@pytest.mark.parametrize("stream", [False, True])
def test_sigterm_loses_no_request(start, stream):
    server = start([{"name": MODEL, "path": V2, "slots": 8}])
    started = threading.Barrier(9)
    results = []

    def ask(index):
        body = chat(f"request {index}", max_tokens=1200, ignore_eos=True, stream=stream)
        with httpx.Client(base_url=server.url, timeout=60) as client, client.stream("POST", "/v1/chat/completions", json=body) as answer:
            if stream:
                lines = answer.iter_lines()
                next(lines)
                started.wait()
                text = "\n".join(lines)
                results.append(answer.status_code == 200 and text.rstrip().endswith("data: [DONE]"))
            else:
                results.append(answer.status_code == 200 and json.loads(answer.read())["usage"]["completion_tokens"] == 1200)

    threads = [threading.Thread(target=ask, args=(index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    if stream:
        started.wait()
    else:
        server.wait_until(lambda: running(server) == 8, what="all eight running")
    server.process.send_signal(signal.SIGTERM)
    for thread in threads:
        thread.join()
    assert results == [True] * 8
    assert server.process.wait(20) == 0


MALFORMED = [
    # body, status, code, param
    (b"{", 400, None, None),
    (b"", 400, None, None),
    (b"[]", 400, None, None),
    (b"null", 400, None, None),
    (b"\xff\xfe", 400, None, None),
    (b'{"model": "helpdesk"}', 400, None, "messages"),
    (b'{"messages": [{"role":"user","content":"x"}]}', 400, None, "model"),
    (b'{"model": "helpdesk", "messages": "hi"}', 400, None, "messages"),
    (b'{"model": "helpdesk", "messages": []}', 400, None, "messages"),
    (b'{"model": "helpdesk", "messages": [{"role":"wizard","content":"x"}]}', 400, None, "messages[0].role"),
    (b'{"model": "helpdesk", "messages": [{"role":"user","content":5}]}', 400, None, "messages[0].content"),
    (b'{"model": 5, "messages": [{"role":"user","content":"x"}]}', 400, None, "model"),
    (b'{"model": "nope", "messages": [{"role":"user","content":"x"}]}', 404, "model_not_found", "model"),
    (b'{"model": "helpdesk", "messages": [{"role":"user","content":"x"}], "temperature": "hot"}', 400, None, "temperature"),
    (b'{"model": "helpdesk", "messages": [{"role":"user","content":"x"}], "temperature": 9}', 400, None, "temperature"),
    (b'{"model": "helpdesk", "messages": [{"role":"user","content":"x"}], "top_p": 0}', 400, None, "top_p"),
    (b'{"model": "helpdesk", "messages": [{"role":"user","content":"x"}], "n": 0}', 400, None, "n"),
    (b'{"model": "helpdesk", "messages": [{"role":"user","content":"x"}], "max_tokens": -1}', 400, None, "max_tokens"),
    (b'{"model": "helpdesk", "messages": [{"role":"user","content":"x"}], "logit_bias": {"a": 1}}', 400, None, "logit_bias"),
    (b'{"model": "helpdesk", "messages": [{"role":"user","content":"x"}], "tool_choice": "required"}', 400, None, "tool_choice"),
    (b'{"model": "helpdesk", "messages": [{"role":"user","content":"\\ud800"}]}', 400, None, None),
    (b'{"model": "helpdesk", "messages": [{"role":"user","content":"x"}], "response_format": {"type": "xml"}}', 400, None, "response_format.type"),
]


def test_a_log_that_nobody_reads_any_more_harms_nothing(tmp_path):
    """As when the collector behind a pipe has died: requests are answered, and the server can be stopped."""
    port = sluice.free_port()
    (tmp_path / "sluice.toml").write_text(sluice.config_text(port, [{"name": MODEL, "path": V2}], {"control": {"enabled": False}}))
    command = [str(sluice.BINARY), "serve", "--config", str(tmp_path / "sluice.toml")]
    environment = {**os.environ, "SLUICE_DATA": str(sluice.DATA)}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=sluice.ROOT, env=environment
    ) as server:
        try:
            assert any("Ready on" in line for line in server.stdout)
            server.stdout.close()
            for _ in range(3):
                answer = httpx.post(f"http://127.0.0.1:{port}/v1/chat/completions", json=chat("Hello", max_tokens=4), timeout=60)
                assert answer.status_code == 200
            server.terminate()
            assert server.wait(30) == 0
        finally:
            server.kill()



@pytest.mark.parametrize("body,status,code,param", MALFORMED, ids=lambda value: str(value)[:60] if isinstance(value, bytes) else "")
def test_malformed_requests(server, body, status, code, param):
    answer = server.client.post("/v1/chat/completions", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert error["type"] == "invalid_request_error" and error["message"]
    if code:
        assert error["code"] == code
    if param:
        assert error["param"] == param


def test_100_mb_body_is_refused_early(server):
    memory = server.resident_mb()
    with socket.create_connection(("127.0.0.1", server.port)) as raw:
        size = 100 * 2**20
        raw.sendall(f"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {size}\r\n\r\n".encode())
        answer = raw.recv(65536)
    assert b" 413 " in answer.split(b"\r\n")[0]
    assert server.resident_mb() < memory + 40


def test_chunked_oversized_body_is_refused(server):
    def endless():
        for _ in range(100):
            yield b"x" * 2**20

    try:
        answer = server.client.post("/v1/chat/completions", content=endless(), headers={"content-type": "application/json"})
        assert answer.status_code == 413 and answer.json()["error"]["message"]
    except (httpx.WriteError, httpx.ReadError):
        # The server may answer and close before the client has sent everything.
        pass
    assert server.client.get("/health/ready").status_code == 200


def test_unknown_routes_and_methods(server):
    assert server.client.get("/v1/nothing").status_code == 404
    assert server.client.get("/v1/chat/completions").status_code == 405
    assert server.client.get("/v1/nothing").json()["error"]["type"] == "invalid_request_error"
