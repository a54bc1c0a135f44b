"""An OpenAI-compatible server that misbehaves as it is told to, as a process of its own.

    python upstream.py --name v1 --port 0 --log seen.jsonl      # prints its port, then serves

What it says follows from the prompt alone, so that two of them agree while both are in order; who said it stands in
`system_fingerprint`. Its manner is set by `POST /manner`; each request is a line in the log as soon as it arrives, which
a killed process leaves behind.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import time
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from aiohttp import web

WORDS = "the printer mail badge laptop screen account portal works fails again today slowly for me".split()
HELD = asyncio.Event()  # never set: what stalls waits for it


@dataclass
class Manner:
    """Shares are of requests, from 0 to 1, and follow from the prompt; times are in seconds."""

    errs: float = 0.0
    # The same for what says that it comes later; refuses as a client's fault; answers nothing.
    errs_later: float = 0.0
    refuses: float = 0.0
    empties: float = 0.0
    first_token: float = 0.01
    token: float = 0.002
    # Ends in the middle of the answer: no more comes, or the connection is cut.
    stalls: float = 0.0
    breaks: float = 0.0
    # Another text than it should be.
    degrades: float = 0.0

    @classmethod
    def of(cls, wanted: dict) -> Manner:
        unknown = set(wanted) - {field.name for field in fields(cls)}
        if unknown:
            raise web.HTTPBadRequest(text=f"a manner has no {', '.join(sorted(unknown))}")
        return cls(**wanted)


def draw(prompt: str, what: str) -> float:
    """A number from 0 to 1 that is the same whenever the same is drawn."""
    digest = hashlib.blake2b(f"{what}:{prompt}".encode(), digest_size=8).digest()
    return int.from_bytes(digest) / 2**64


def words(prompt: str, salt: str = "") -> list[str]:
    digest = hashlib.blake2b(f"{salt}{prompt}".encode(), digest_size=16).digest()
    return [WORDS[byte % len(WORDS)] + " " for byte in digest[: 8 + digest[0] % 8]]


class Upstream:
    def __init__(self, name: str, log: Path):
        self.name = name
        self.manner = Manner()
        self.log = log.open("a", buffering=1)

    def app(self) -> web.Application:
        app = web.Application()
        app.add_routes(
            [
                web.get("/manner", self.show),
                web.post("/manner", self.behave),
                web.post("/v1/chat/completions", self.answer),
                web.post("/v1/completions", self.answer),
            ]
        )
        return app

    async def show(self, _: web.Request) -> web.Response:
        return web.json_response(asdict(self.manner))

    async def behave(self, request: web.Request) -> web.Response:
        self.manner = Manner.of(await request.json())
        return await self.show(request)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        body, manner = await request.json(), self.manner
        chat = "messages" in body
        prompt = body["messages"][-1]["content"] if chat else body["prompt"]
        line = {"at": time.time(), "prompt": prompt, "shadow": "x-sluice-shadow" in request.headers}
        self.log.write(json.dumps(line) + "\n")
        if draw(prompt, "refuses") < manner.refuses:
            error = {"message": "no", "type": "invalid_request_error", "param": None, "code": None}
            return web.json_response({"error": error}, status=400)
        if draw(prompt, "errs") < (manner.errs_later if "later" in prompt else manner.errs):
            error = {"message": f"{self.name} was told to", "type": "server_error", "param": None, "code": None}
            return web.json_response({"error": error}, status=500)
        said = words(prompt, self.name if draw(prompt, "degrades") < manner.degrades else "")
        if draw(prompt, "empties") < manner.empties:
            said = []
        # Where it ends: tokens, and whether more would have come.
        middle = len(said) // 2
        ends = "stalls" if draw(prompt, "stalls") < manner.stalls else None
        ends = "breaks" if draw(prompt, "breaks") < manner.breaks else ends
        if body.get("stream"):
            return await self.stream(request, Reply(self.name, body, chat), said, ends, middle, manner)
        return await self.whole(request, Reply(self.name, body, chat), said, ends, manner)

    async def whole(self, request, reply: Reply, said, ends, manner) -> web.StreamResponse:
        await asyncio.sleep(manner.first_token + manner.token * len(said))
        if ends == "stalls":
            await HELD.wait()
        text = json.dumps(reply.whole(said)).encode()
        if ends != "breaks":
            return web.Response(body=text, content_type="application/json")
        response = web.StreamResponse(headers={"content-type": "application/json", "content-length": str(len(text))})
        await response.prepare(request)
        await response.write(text[: len(text) // 2])
        request.transport.abort()
        return response

    async def stream(self, request, reply: Reply, said, ends, middle, manner) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream", "cache-control": "no-cache"})
        await response.prepare(request)

        async def send(chunk: dict):
            await response.write(b"data: " + json.dumps(chunk).encode() + b"\n\n")

        if reply.chat:
            await send(reply.chunk({"role": "assistant", "content": ""}))
        await asyncio.sleep(manner.first_token)
        for at, word in enumerate(said):
            if ends and at == middle:
                if ends == "stalls":
                    await HELD.wait()
                request.transport.abort()
                return response
            await send(reply.chunk({"content": word}))
            await asyncio.sleep(manner.token)
        await send(reply.chunk({}, finish="stop"))
        if (reply.body.get("stream_options") or {}).get("include_usage"):
            await send(reply.chunk(None, usage=reply.usage(said)))
        await response.write(b"data: [DONE]\n\n")
        return response


class Reply:
    """The shapes of OpenAI's answers to one request."""

    def __init__(self, name: str, body: dict, chat: bool):
        self.name, self.body, self.chat = name, body, chat
        self.id = f"{'chatcmpl' if chat else 'cmpl'}-{os.urandom(8).hex()}"
        self.created = int(time.time())

    def base(self, kind: str) -> dict:
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.body.get("model"),
            "system_fingerprint": self.name,
        }

    def usage(self, said: list[str]) -> dict:
        return {"prompt_tokens": 12, "completion_tokens": len(said), "total_tokens": 12 + len(said)}

    def whole(self, said: list[str]) -> dict:
        text = "".join(said)
        choice = {"message": {"role": "assistant", "content": text}} if self.chat else {"text": text}
        choice |= {"index": 0, "finish_reason": "stop", "logprobs": None}
        kind = "chat.completion" if self.chat else "text_completion"
        return self.base(kind) | {"choices": [choice], "usage": self.usage(said)}

    def chunk(self, delta: dict | None, finish: str | None = None, usage: dict | None = None) -> dict:
        kind = "chat.completion.chunk" if self.chat else "text_completion"
        choices = []
        if delta is not None:
            said = {"delta": delta} if self.chat else {"text": delta.get("content", "")}
            choices = [said | {"index": 0, "finish_reason": finish, "logprobs": None}]
        return self.base(kind) | {"choices": choices} | ({"usage": usage} if usage else {})


async def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name", required=True)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--log", type=Path, required=True)
    asked = parser.parse_args()
    runner = web.AppRunner(Upstream(asked.name, asked.log).app(), access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", asked.port)
    await site.start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
