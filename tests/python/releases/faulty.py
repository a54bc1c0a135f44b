"""A model server that answers wrongly in every way that docs/answers.md lists, as a process of its own.

    python faulty.py        # prints its port, then serves

Which way, and of which share of its answers, stands in front of the path: `/cut-json/0.3/v1/chat/completions` answers three in
ten of the prompts with JSON that is cut off, and the others as it should. Written on bare connections: no library sends what
half of these are.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import struct
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from socket import SO_LINGER, SOL_SOCKET

CHAT, TEXT, EMBED, RERANK = "/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/rerank"
BOTH = (CHAT, TEXT)
ALL = (CHAT, TEXT, EMBED, RERANK)
# Instead of bytes: the connection is closed as it should be, reset, or held and silent.
CLOSE, RESET, HANG = object(), object(), object()
WORDS = ("the ", "printer ", "works ", "again")


@dataclass(frozen=True)
class Asked:
    endpoint: str
    stream: bool


def whole_of(endpoint: str) -> dict:
    """A right answer in one piece."""
    usage = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
    if endpoint == CHAT:
        choice = {"index": 0, "message": {"role": "assistant", "content": "".join(WORDS)}, "finish_reason": "stop"}
        return {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], "usage": usage}
    if endpoint == TEXT:
        choice = {"index": 0, "text": "".join(WORDS), "finish_reason": "stop", "logprobs": None}
        return {"id": "c", "object": "text_completion", "created": 1, "model": "m", "choices": [choice], "usage": usage}
    if endpoint == EMBED:
        return vectors([0.25, -0.5, 0.125], [0.5, 0.5, -0.125])
    return {"id": "r", "model": "m", "results": [{"index": 0, "relevance_score": 0.5}]}


def vectors(*them: list) -> dict:
    """An answer to as many inputs."""
    data = [{"object": "embedding", "index": index, "embedding": it} for index, it in enumerate(them)]
    return {"object": "list", "data": data, "model": "m", "usage": {"prompt_tokens": 3, "total_tokens": 3}}


def event(endpoint: str, text: str | None = None, role: bool = False, finish: str | None = None) -> dict:
    if endpoint == CHAT:
        delta = ({"role": "assistant", "content": ""} if role else {}) | ({"content": text} if text else {})
        choice, kind = {"index": 0, "delta": delta, "finish_reason": finish}, "chat.completion.chunk"
    else:
        choice, kind = {"index": 0, "text": text or "", "finish_reason": finish}, "text_completion"
    return {"id": "c", "object": kind, "created": 1, "model": "m", "choices": [choice]}


def events_of(endpoint: str, role_alone: bool = False, ended: bool = True) -> list[dict]:
    """A right stream's events, or its role alone, or all up to its end."""
    events = [event(endpoint, role=True)]
    if not role_alone:
        events += [event(endpoint, word) for word in WORDS]
    return events + ([event(endpoint, finish="stop")] if ended else [])


def data(value: dict | str) -> bytes:
    return b"data: " + (value if isinstance(value, str) else json.dumps(value)).encode() + b"\n\n"


def head(status: str = "200 OK", media: str | None = "application/json", length: int | None = None, **more: str) -> bytes:
    lines = [f"HTTP/1.1 {status}"] + ([f"content-type: {media}"] if media else [])
    lines += [f"content-length: {length}"] if length is not None else []
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in more.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def full(body: bytes | dict, status: str = "200 OK", media: str | None = "application/json", **more: str) -> list:
    body = json.dumps(body).encode() if isinstance(body, dict) else body
    return [head(status, media, len(body), **more) + body]


def chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


def streamed(*pieces: bytes, end: object = b"0\r\n\r\n", media: str = "text/event-stream") -> list:
    return [head(media=media, transfer_encoding="chunked"), *(chunk(piece) for piece in pieces), end]


def right(asked: Asked) -> list:
    if asked.stream:
        return streamed(*map(data, events_of(asked.endpoint)), data("[DONE]"))
    return full(whole_of(asked.endpoint))


def begun(asked: Asked) -> list[bytes]:
    """What has reached the client when a stream breaks."""
    return [data(it) for it in events_of(asked.endpoint, ended=False)[:3]]


@dataclass(frozen=True)
class Fault:
    """`number` is that of docs/answers.md; `forms` says whether answers in one piece (W) or streams (S) have it."""

    number: int
    name: str
    forms: str
    answer: Callable[[Asked], list]
    endpoints: tuple[str, ...] = ALL
    # What takes the release back.
    objective: str = "error"
    # Behind the first output: clients see it.
    begun: bool = False
    # Clients leave after so many seconds.
    patience: float | None = None


def error(status: str) -> list:
    return full({"error": {"message": "no", "type": "error", "param": None, "code": None}}, status)


def bare(status: str, **more: str) -> list:
    return [head(status, None, **more)]


def with_choices(asked: Asked, change: Callable[[dict], None]) -> list:
    """A right answer with its list changed; each event's, in a stream."""
    if asked.stream:
        events = events_of(asked.endpoint)
        for it in events:
            change(it)
        return streamed(*map(data, events), data("[DONE]"))
    answer = whole_of(asked.endpoint)
    change(answer)
    return full(answer)


def field_of(answer: dict) -> str:
    return next(it for it in ("choices", "results", "data") if it in answer)


def emptied(answer: dict):
    answer[field_of(answer)] = []


def mistyped(answer: dict):
    answer[field_of(answer)] = "none"


def hollowed(answer: dict):
    answer["choices"] = [{"index": 0, "finish_reason": None}]


def swapped(asked: Asked) -> list:
    return right(Asked(TEXT if asked.endpoint == CHAT else CHAT, asked.stream))


def cut(asked: Asked) -> list:
    if asked.stream:
        return streamed(data(json.dumps(event(asked.endpoint, "the"))[:-9]), data("[DONE]"))
    return full(json.dumps(whole_of(asked.endpoint)).encode()[:-9])


def compressed(asked: Asked) -> list:
    media = "text/event-stream" if asked.stream else "application/json"
    return full(b"\x1f\x8b\x08\x00rubbish", media=media, content_encoding="gzip")


def disconnected(asked: Asked) -> list:
    """Within the body, before any output."""
    if asked.stream:
        return streamed(data(event(asked.endpoint, role=True)), end=CLOSE)
    body = json.dumps(whole_of(asked.endpoint)).encode()
    return [head(length=len(body)) + body[: len(body) // 2], CLOSE]


def silent(asked: Asked) -> list:
    return [head(media="text/event-stream" if asked.stream else "application/json", transfer_encoding="chunked"), HANG]


def large(asked: Asked) -> list:
    return streamed(*begun(asked), b'data: {"x": "' + b"a" * (5 << 20))


PAGE = b"<!doctype html><title>Sign in</title><p>Please sign in."
ELSEWHERE = {"location": "http://127.0.0.1:9/", "content_length": "0"}


def faults() -> Iterator[Fault]:
    def of(number, name, forms, answer, *endpoints, **more):
        constant = answer if callable(answer) else lambda _: answer
        return Fault(number, name, forms, constant, endpoints or ALL, **more)

    failed = {"message": "out of memory", "type": "server_error", "param": None, "code": None}
    yield of(1, "page", "WS", full(PAGE, media="text/html"))
    yield of(2, "plain-text", "WS", lambda it: full(whole_of(it.endpoint), media="text/plain"))
    yield of(3, "stream-unasked", "W", lambda it: right(Asked(it.endpoint, True)), *BOTH)
    yield of(4, "no-stream", "S", lambda it: full(whole_of(it.endpoint)))
    yield of(5, "page-as-json", "W", full(PAGE))
    yield of(6, "no-content", "WS", bare("204 No Content"))
    yield of(7, "reset-content", "WS", bare("205 Reset Content", content_length="0"))
    yield of(8, "partial", "WS", lambda it: full(whole_of(it.endpoint), "206 Partial Content"))
    for number, status in zip(range(9, 14), (301, 302, 303, 307, 308), strict=True):
        yield of(number, f"status-{status}", "WS", bare(f"{status} Elsewhere", **ELSEWHERE))
    yield of(14, "status-101", "WS", bare("101 Switching Protocols", connection="upgrade", upgrade="x") + [CLOSE])
    yield of(15, "status-600", "WS", full({}, "600 Strange"))
    yield of(16, "status-999", "WS", full({}, "999 Denied"))
    yield of(17, "gzip", "WS", compressed)
    yield of(18, "empty-body", "W", full(b""))
    yield of(19, "no-events", "S", streamed())
    yield of(19, "comments", "S", streamed(b": hello\n\n", b": hello\n\n"))
    yield of(20, "done-alone", "S", streamed(data("[DONE]")))
    yield of(21, "ok", "WS", lambda it: streamed(data("OK"), data("[DONE]")) if it.stream else full(b"OK"))
    yield of(22, "cut-json", "WS", cut)
    yield of(23, "two-values", "W", lambda it: full(json.dumps(whole_of(it.endpoint)).encode() * 2))
    yield of(24, "nan", "W", full(json.dumps(vectors([0.5], [float("nan")])).encode()), EMBED)
    yield of(25, "error-object", "W", full({"error": failed}))
    yield of(26, "error-text", "W", full({"error": "out of memory"}))
    yield of(27, "object-error", "W", full({"object": "error", "message": "out of memory", "code": 500}))
    yield of(28, "error-event", "S", streamed(data({"error": failed}), data("[DONE]")))
    yield of(29, "role-then-error", "S", lambda it: streamed(data(event(it.endpoint, role=True)), data({"error": failed})))
    yield of(30, "named-error", "S", streamed(b'event: error\ndata: {"message": "out of memory"}\n\n'))
    yield of(31, "empty-object", "W", full({}))
    yield of(31, "null", "W", full(b"null"))
    yield of(32, "nothing-in-it", "WS", lambda it: with_choices(it, emptied))
    yield of(33, "hollow-choice", "WS", lambda it: with_choices(it, hollowed), *BOTH)
    yield of(34, "mistyped", "WS", lambda it: with_choices(it, mistyped))
    yield of(35, "empty-vector", "W", full(vectors([0.5], [])), EMBED)
    yield of(35, "null-vector", "W", full(vectors([0.5], [None])), EMBED)
    yield of(35, "too-few-vectors", "W", full(vectors([0.5])), EMBED)
    yield of(36, "no-score", "W", full({"results": [{"index": 0}]}), RERANK)
    yield of(37, "other-endpoint", "WS", swapped, *BOTH)
    yield of(38, "role-alone", "S", lambda it: streamed(data(event(it.endpoint, role=True))))
    yield of(39, "closed", "WS", [CLOSE])
    yield of(39, "reset", "WS", [RESET])
    yield of(40, "closed-within", "WS", disconnected)
    for status in (500, 502, 503):
        yield of(41, f"status-{status}", "WS", error(f"{status} Broken"))
    yield of(42, "status-504", "WS", error("504 Gateway Timeout"))
    yield of(42, "no-head", "WS", [HANG])
    yield of(43, "silent", "WS", silent)
    for status in (401, 402, 403, 404, 407, 408, 429):
        yield of(44, f"status-{status}", "WS", error(f"{status} Ours"))
    for status in (400, 405, 409, 413, 415, 418, 422, 451):
        yield of(45, f"status-{status}", "WS", error(f"{status} Refused"), objective="rejected")
    yield of(46, "left", "WS", [HANG], objective="abandoned", patience=0.5)
    late = {"begun": True}
    yield of(47, "no-end", "S", lambda it: streamed(*begun(it)), **late)
    yield of(48, "half-event", "S", lambda it: streamed(*begun(it), b'data: {"id": '), **late)
    yield of(49, "late-error", "S", lambda it: streamed(*begun(it), data({"error": failed})), **late)
    yield of(50, "late-rubbish", "S", lambda it: streamed(*begun(it), data("OK"), data("[DONE]")), **late)
    yield of(51, "late-large", "S", large, **late)
    yield of(52, "late-close", "S", lambda it: streamed(*begun(it), end=CLOSE), **late)
    yield of(52, "late-reset", "S", lambda it: streamed(*begun(it), end=RESET), **late)
    yield of(53, "late-silence", "S", lambda it: streamed(*begun(it), end=HANG), **late)


FAULTS = {fault.name: fault for fault in faults()}


def drawn(prompt: str) -> float:
    """A number from 0 to 1 that a prompt has."""
    return int.from_bytes(hashlib.blake2b(prompt.encode(), digest_size=8).digest()) / 2**64


def answer(path: str, body: dict) -> list:
    _, name, share, rest = path.split("/", 3)
    asked = Asked(f"/{rest}", bool(body.get("stream")))
    if asked.endpoint not in ALL:
        return error("404 Not Found")
    prompt = body["messages"][-1]["content"] if "messages" in body else body.get("prompt") or body.get("input") or body["query"]
    spoilt = name in FAULTS and drawn(str(prompt)) < float(share)
    return FAULTS[name].answer(asked) if spoilt else right(asked)


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter):
    try:
        while await one(reader, writer):
            pass
    except (ConnectionError, asyncio.IncompleteReadError):
        pass
    finally:
        writer.close()


async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    """One request. Returns whether another may come on this connection."""
    lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    path = lines[0].split(" ")[1]
    headers = dict(line.lower().split(": ", 1) for line in lines[1:] if ": " in line)
    body = json.loads(await reader.readexactly(int(headers.get("content-length", 0))) or b"{}")
    for piece in answer(path, body):
        if piece is HANG:
            # Until the other side has enough.
            await reader.read()
            return False
        if piece is RESET:
            writer.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
        if piece in (CLOSE, RESET):
            return False
        writer.write(piece)
        await writer.drain()
        await asyncio.sleep(0)
    return True


async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=1 << 22)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
