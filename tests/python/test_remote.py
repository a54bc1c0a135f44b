"""The gateway in front of servers that a team already runs (here: other sluices)."""

import json
import signal
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import openai
import pytest

V2 = "examples/helpdesk/models/v2"
BODY = {"model": "desk", "messages": [{"role": "user", "content": "my VPN is down"}], "temperature": 0}


@pytest.fixture
def pair(start):
    """Two upstreams with keys, and a gateway before them under another model name."""
    keys = {"SLUICE_API_KEYS": "gateway:sk-upstream-secret"}
    upstreams = [start([{"name": "helpdesk", "path": V2, "slots": 8}], env=keys, sections={"auth": {"required": True}}) for _ in range(2)]
    gateway = start(
        [{"name": "desk", "upstream": [up.v1 for up in upstreams], "model": "helpdesk", "api_key_env": "UPSTREAM_KEY"}],
        env={"UPSTREAM_KEY": "sk-upstream-secret"},
    )
    return gateway, upstreams


def test_stock_client_through_two_hops(pair):
    gateway, upstreams = pair
    client = openai.OpenAI(base_url=gateway.v1, api_key="the clients own key", max_retries=0)
    whole = client.chat.completions.create(**BODY).choices[0].message.content
    assert json.loads(whole)["intent"]
    chunks = client.chat.completions.create(**BODY, stream=True)
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == whole
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(**{**BODY, "temperature": 9})
    assert "sk-upstream-secret" not in gateway.log.read_text()


def test_load_spreads_and_a_dead_upstream_hurts_nobody(pair):
    gateway, upstreams = pair

    def ask(_):
        answer = gateway.client.post("/v1/chat/completions", json={**BODY, "max_tokens": 20})
        return answer.status_code

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(ask, range(60))) == {200}
    shares = [up.gauge("vllm:request_success_total") for up in upstreams]
    assert min(shares) > 10, shares
    # Stopped before its next request: connections are refused, so nothing was
    # started there and the other upstream answers.
    upstreams[0].stop(signal.SIGKILL)
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(ask, range(60))) == {200}


def test_hang_up_reaches_the_upstream(pair):
    gateway, upstreams = pair
    body = {**BODY, "stream": True, "max_tokens": 200, "ignore_eos": True}
    for _ in range(10):
        with httpx.Client(base_url=gateway.url) as client, client.stream("POST", "/v1/chat/completions", json=body) as answer:
            next(answer.iter_lines())
    for upstream in upstreams:
        idle = lambda: upstream.gauge("vllm:num_requests_running") == 0  # noqa: B023
        upstream.wait_until(idle, what="the upstream having noticed the hang-up")


class Scripted(BaseHTTPRequestHandler):
    """An upstream that answers what the test tells it to."""

    protocol_version = "HTTP/1.1"
    status, seen = 400, 0

    def do_POST(self):
        type(self).seen += 1
        self.rfile.read(int(self.headers["content-length"]))
        body = b'{"error": {"message": "scripted", "type": "invalid_request_error", "param": null, "code": null}}'
        self.send_response(self.status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def scripted():
    handler = type("Handler", (Scripted,), {})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield handler, f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    thread.join()
    server.server_close()


def test_client_faults_never_eject(start, scripted):
    handler, url = scripted
    gateway = start([{"name": "desk", "upstream": url, "model": "x"}])
    for _ in range(50):
        assert gateway.client.post("/v1/chat/completions", json=BODY).status_code == 400
    assert handler.seen == 50


def test_unreachable_upstream_is_a_clear_error(start):
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        gateway = start([{"name": "desk", "upstream": f"http://127.0.0.1:{held.getsockname()[1]}/v1", "model": "x"}])
        answer = gateway.client.post("/v1/chat/completions", json=BODY)
    assert answer.status_code in (502, 503) and answer.json()["error"]["message"]
