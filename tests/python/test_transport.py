"""TLS, HTTP/2 and the ways in which clients misbehave on a socket."""

import asyncio
import json
import socket
import ssl
import subprocess

import h2.config
import h2.connection
import h2.events
import httpx
import openai
import pytest
import sluice

V2 = sluice.HELPDESK / "v2"
ONE = {"name": "helpdesk", "path": V2, "slots": 4}
CHAT = {"model": "helpdesk", "messages": [{"role": "user", "content": "asset PC081745. Our new colleague needs access to ERP"}], "temperature": 0}


@pytest.fixture(scope="session")
def certificate(tmp_path_factory):
    """A key and a certificate for 127.0.0.1 that vouches for itself."""
    folder = tmp_path_factory.mktemp("certificate")
    cert, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
        + ["-keyout", key, "-out", cert, "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"]
        + ["-addext", "basicConstraints=critical,CA:FALSE"],
        check=True,
        capture_output=True,
    )
    return cert, key


@pytest.fixture(scope="session")
def secure(tmp_path_factory, certificate):
    cert, key = certificate
    server = sluice.start(tmp_path_factory.mktemp("secure"), [ONE], sections={"server": {"tls_cert": cert, "tls_key": key}}, verify=str(cert))
    yield server
    server.stop()


# --- TLS


def test_the_stock_client_over_https(secure, certificate):
    assert secure.url.startswith("https://")
    trusted = httpx.Client(verify=ssl.create_default_context(cafile=str(certificate[0])))
    client = openai.OpenAI(base_url=secure.v1, api_key="unused", http_client=trusted)
    whole = client.chat.completions.create(**CHAT).choices[0].message.content
    pieces = [chunk.choices[0].delta.content or "" for chunk in client.chat.completions.create(**CHAT, stream=True) if chunk.choices]
    assert "".join(pieces) == whole and len(pieces) > 2


def test_the_command_line_over_https(secure, certificate):
    command = [str(sluice.BINARY), "models", "--url", secure.url]
    trusting = subprocess.run([*command, "--ca-file", str(certificate[0])], capture_output=True, text=True)
    assert trusting.returncode == 0 and "helpdesk" in trusting.stdout, trusting.stderr
    wary = subprocess.run(command, capture_output=True, text=True)
    assert wary.returncode == 1 and "certificate" in wary.stderr and "--ca-file" in wary.stderr
    nothing = subprocess.run([*command, "--ca-file", str(V2 / "genai_config.json")], capture_output=True, text=True)
    assert nothing.returncode == 1 and "PEM certificates" in nothing.stderr


def test_plain_http_on_the_tls_port_does_no_harm(secure):
    with socket.create_connection(("127.0.0.1", secure.port)) as raw:
        raw.sendall(b"GET /v1/models HTTP/1.1\r\nhost: localhost\r\n\r\n")
        assert b"200" not in raw.recv(4096)
    assert secure.client.get("/health/ready").status_code == 200


def test_wrong_certificates_are_refused_at_start(tmp_path, certificate):
    cert, key = certificate
    other = tmp_path / "other.pem"
    subprocess.run(["openssl", "ecparam", "-genkey", "-name", "prime256v1", "-noout", "-out", other], check=True, capture_output=True)
    missing, empty = tmp_path / "missing.pem", tmp_path / "empty.pem"
    empty.write_text("")
    for index, (pair, at_fault) in enumerate([((missing, key), missing), ((empty, key), empty), ((cert, missing), missing), ((cert, empty), empty), ((key, key), key), ((cert, other), cert)]):
        with pytest.raises(sluice.StartFailed) as refused:
            sluice.start(tmp_path / str(index), [ONE], sections={"server": {"tls_cert": pair[0], "tls_key": pair[1]}})
        message = str(refused.value)
        assert "`server.tls_" in message and str(at_fault) in message, message


# --- HTTP/2


def test_http2_is_negotiated_over_tls(secure, certificate):
    context = ssl.create_default_context(cafile=str(certificate[0]))
    with httpx.Client(http2=True, verify=context, base_url=secure.url) as client:
        answer = client.post("/v1/chat/completions", json=CHAT)
        assert answer.status_code == 200 and answer.http_version == "HTTP/2"
    with httpx.Client(http1=True, verify=context, base_url=secure.url) as client:
        assert client.get("/v1/models").http_version == "HTTP/1.1"


def test_many_streams_on_one_http2_connection(server):
    expected = server.client.post("/v1/chat/completions", json=CHAT).json()["choices"][0]["message"]["content"]

    async def ask(client: httpx.AsyncClient) -> str:
        async with client.stream("POST", "/v1/chat/completions", json={**CHAT, "stream": True}) as answer:
            assert answer.http_version == "HTTP/2" and answer.status_code == 200
            events = [line[6:] async for line in answer.aiter_lines() if line.startswith("data: ")]
        assert events[-1] == "[DONE]"
        return "".join(json.loads(event)["choices"][0]["delta"].get("content") or "" for event in events[:-1])

    # Tasks rather than threads: the client's threads share the connection's state without a lock.
    async def ask_all() -> list[str]:
        async with httpx.AsyncClient(http1=False, http2=True, base_url=server.url, timeout=120) as client:
            return await asyncio.gather(*(ask(client) for _ in range(64)))

    assert asyncio.run(ask_all()) == [expected] * 64


class Http2:
    """An HTTP/2 connection by hand (prior knowledge, in the clear)."""

    def __init__(self, port: int):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
        self.h2.initiate_connection()
        self.flush()

    def flush(self):
        self.socket.sendall(self.h2.data_to_send())

    def post(self, path: str, body: dict) -> int:
        stream, data = self.h2.get_next_available_stream_id(), json.dumps(body).encode()
        head = [(":method", "POST"), (":path", path), (":scheme", "http"), (":authority", "localhost"), ("content-type", "application/json")]
        self.h2.send_headers(stream, head)
        self.h2.send_data(stream, data, end_stream=True)
        self.flush()
        return stream

    def events(self):
        for event in self.h2.receive_data(self.socket.recv(65536)):
            if isinstance(event, h2.events.DataReceived):
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            yield event
        self.flush()


def test_a_reset_stream_frees_its_slot(start):
    server = start([{"name": "helpdesk", "path": V2, "slots": 1}])
    client = Http2(server.port)
    # More than the only slot does in the time of this test.
    body = {"model": "helpdesk", "prompt": "a", "max_tokens": 1500, "n": 100, "ignore_eos": True, "stream": True}
    stream = client.post("/v1/completions", body)
    while not any(isinstance(event, h2.events.DataReceived) for event in client.events()):
        pass
    held = lambda: server.gauge("vllm:num_requests_running") + server.gauge("vllm:num_requests_waiting")  # noqa: E731
    assert held() > 0, "the request was refused"
    client.h2.reset_stream(stream, error_code=8)
    client.flush()
    server.wait_until(lambda: held() == 0, what="a free slot")
    # The connection lives on.
    client.post("/v1/chat/completions", CHAT)
    ended = False
    while not ended:
        ended = any(isinstance(event, h2.events.StreamEnded) for event in client.events())
    client.socket.close()


def test_a_client_that_is_gone_does_not_hold_up_a_drain(start):
    server = start([ONE], sections={"server": {"drain_grace": "0s", "drain_timeout": "10m", "head_timeout": "1s"}})
    client = Http2(server.port)
    client.post("/v1/chat/completions", CHAT)
    while not any(isinstance(event, h2.events.StreamEnded) for event in client.events()):
        pass
    # Reads nothing from here on, so that the farewell is never answered.
    assert server.stop(seconds=60) == 0
    client.socket.close()


# --- HTTP/1.1, as it comes


def exchange(server, data: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as raw:
        raw.sendall(data)
        answer = b""
        while piece := raw.recv(65536):
            answer += piece
    return answer


def request(body: bytes, *headers: str, path="/v1/chat/completions") -> bytes:
    head = ["POST " + path + " HTTP/1.1", "host: localhost", "content-type: application/json", "connection: close", *headers]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


BODY = json.dumps(CHAT | {"max_tokens": 4}).encode()


def test_expect_100_continue(server):
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as raw:
        raw.sendall(request(b"", f"content-length: {len(BODY)}", "expect: 100-continue"))
        assert raw.recv(4096).startswith(b"HTTP/1.1 100")
        raw.sendall(BODY)
        assert raw.recv(65536).startswith(b"HTTP/1.1 200")


def test_an_oversized_body_is_refused_before_100_continue(server):
    answer = exchange(server, request(b"", "content-length: 100000000", "expect: 100-continue"))
    assert answer.startswith(b"HTTP/1.1 413")


def test_a_body_in_chunks(server):
    chunks = b"".join(b"1\r\n" + BODY[at : at + 1] + b"\r\n" for at in range(len(BODY))) + b"0\r\n\r\n"
    assert exchange(server, request(chunks, "transfer-encoding: chunked")).startswith(b"HTTP/1.1 200")


def test_pipelined_requests_are_answered_in_order(server):
    one = b"GET /v1/models/helpdesk HTTP/1.1\r\nhost: localhost\r\n\r\n"
    two = b"GET /v1/models/nope HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
    answer = exchange(server, one + one + two)
    assert [part[:3] for part in answer.split(b"HTTP/1.1 ")[1:]] == [b"200", b"200", b"404"]


@pytest.mark.parametrize(
    "data",
    [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        request(BODY, "content-length: nine"),
        request(BODY, "content-length: 5", "content-length: 6"),
        b"GET /v1/models HTTP/1.1\r\nhost: localhost\r\nbad header\r\n\r\n",
    ],
)
def test_what_is_not_http_is_refused(server, data):
    answer = exchange(server, data)
    assert answer.startswith(b"HTTP/1.1 400") or answer.startswith(b"HTTP/1.0 400") or answer.startswith(b"HTTP/1.1 505")
    assert server.client.get("/health/live").status_code == 200


def test_length_and_chunks_at_once_do_not_smuggle(server):
    hidden = b"GET /v1/models HTTP/1.1\r\nhost: localhost\r\n\r\n"
    answer = exchange(server, request(b"0\r\n\r\n" + hidden, "content-length: 5", "transfer-encoding: chunked"))
    assert answer.count(b"HTTP/1.1 ") <= 1 and b'"helpdesk"' not in answer


def test_a_compressed_body_is_refused_with_what_is_taken(server):
    answer = server.client.post("/v1/chat/completions", content=b"\x1f\x8b", headers={"content-encoding": "gzip", "content-type": "application/json"})
    assert answer.status_code == 415 and answer.headers["accept-encoding"] == "identity"
    assert answer.json()["error"]["code"] == "unsupported_content_encoding"


@pytest.mark.parametrize(
    "method,path,allow",
    [
        ("GET", "/v1/chat/completions", "POST"),
        ("OPTIONS", "/v1/embeddings", "POST"),
        ("POST", "/v1/models", "GET, HEAD"),
        ("DELETE", "/v1/models/helpdesk", "GET, HEAD"),
        ("POST", "/health/live", "GET, HEAD"),
        ("POST", "/metrics", "GET, HEAD"),
        ("PUT", "/v2/models/helpdesk/infer", "POST"),
    ],
)
def test_a_wrong_method_is_told_the_right_ones(server, method, path, allow):
    answer = server.client.request(method, path)
    assert (answer.status_code, answer.headers["allow"]) == (405, allow)


def test_head_is_get_without_a_body(server):
    for path in ["/v1/models", "/v1/models/helpdesk", "/health/ready", "/metrics", "/api/v1/stats"]:
        answer = server.client.head(path)
        assert answer.status_code == 200 and answer.content == b"", path


@pytest.mark.parametrize("value", ["0", "-1", "soon", "1.5", "9" * 30])
def test_a_wrong_timeout_is_refused(server, value):
    answer = server.client.post("/v1/chat/completions", json=CHAT, headers={"x-request-timeout-ms": value})
    assert answer.status_code == 400 and answer.json()["error"]["param"] == "x-request-timeout-ms"


# --- browsers


def preflight(server, origin: str) -> httpx.Response:
    asked = {"origin": origin, "access-control-request-method": "POST", "access-control-request-headers": "authorization,content-type"}
    return server.client.options("/v1/chat/completions", headers=asked)


def test_browsers_get_nothing_by_default(server):
    assert "access-control-allow-origin" not in preflight(server, "https://app.example.com").headers
    assert "access-control-allow-origin" not in server.client.get("/v1/models", headers={"origin": "https://app.example.com"}).headers


def test_pages_of_configured_origins_may_ask(start):
    origin = "https://app.example.com"
    server = start([ONE], sections={"server": {"cors_origins": [origin, "http://localhost:3000"]}, "auth": {"required": True}}, env={"SLUICE_API_KEYS": "ada:sk-ada"})
    allowed = preflight(server, origin)
    assert allowed.status_code == 204 and allowed.headers["access-control-allow-origin"] == origin
    assert "POST" in allowed.headers["access-control-allow-methods"] and "authorization" in allowed.headers["access-control-allow-headers"]
    assert "access-control-allow-origin" not in preflight(server, "https://evil.example.com").headers
    # Errors can be read too, or the page would only learn that something failed.
    refused = server.client.post("/v1/chat/completions", json=CHAT, headers={"origin": origin})
    assert refused.status_code == 401 and refused.headers["access-control-allow-origin"] == origin
    answer = server.client.post("/v1/chat/completions", json=CHAT, headers={"origin": origin, "authorization": "Bearer sk-ada"})
    assert answer.status_code == 200 and answer.headers["vary"] == "origin"
    assert "x-request-id" in answer.headers["access-control-expose-headers"]
