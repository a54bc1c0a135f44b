"""A load of many users who each keep to their session, and what became of every one of their requests."""

from __future__ import annotations

import asyncio
import itertools
import json
import threading
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

import aiohttp

PATIENCE = 60.0


@dataclass(slots=True)
class Request:
    """One request and its answer. Times are those of the wall clock, as the server's decisions have them."""

    user: str
    prompt: str
    streamed: bool
    sent: float
    ended: float = 0.0
    status: int | None = None
    revision: str | None = None
    upstream: str | None = None
    tokens: list[str] = field(default_factory=list)
    # What is wrong with it; an answer as it should be has none.
    fault: str | None = None

    @property
    def begun(self) -> bool:
        """Part of an answer had reached the client."""
        return self.status == 200 and bool(self.tokens)

    @property
    def text(self) -> str:
        return "".join(self.tokens)


class Users:
    """Asks one deployment. A user waits for an answer before asking again."""

    def __init__(self, url: str, model: str, count: int = 300):
        self.url, self.model = url, model
        self.idle = deque(f"user-{number}" for number in range(count))
        self.count = itertools.count()

    async def ask(self, session: aiohttp.ClientSession, user: str) -> Request:
        number = next(self.count)
        streamed, chat = number % 2 == 0, number % 5 != 0
        prompt = f"{user} asks {number} at {time.time_ns()}"
        body = {"model": self.model, "stream": streamed, "temperature": 0, "max_tokens": 64}
        body |= {"messages": [{"role": "user", "content": prompt}]} if chat else {"prompt": prompt}
        path = "/v1/chat/completions" if chat else "/v1/completions"
        made = Request(user, prompt, streamed, time.time())
        try:
            async with session.post(self.url + path, json=body, headers={"x-session-id": user}) as answer:
                made.status = answer.status
                made.revision = answer.headers.get("x-sluice-revision")
                if answer.status != 200:
                    made.fault = f"{answer.status}: {(await answer.text())[:300]}"
                elif streamed:
                    await read_events(answer, made)
                else:
                    read_whole(await answer.json(), made)
        except (aiohttp.ClientError, asyncio.TimeoutError, ConnectionError, ValueError) as error:
            made.fault = f"{type(error).__name__}: {error}"
        made.ended = time.time()
        return made


def read_whole(body: dict, made: Request):
    choice = body["choices"][0]
    made.upstream = body.get("system_fingerprint")
    made.tokens.append(choice["message"]["content"] if "message" in choice else choice["text"])


async def read_events(answer: aiohttp.ClientResponse, made: Request):
    done = False
    async for line in answer.content:
        if not line.startswith(b"data:"):
            continue
        data = line.removeprefix(b"data:").strip()
        if data == b"[DONE]":
            done = True
            continue
        event = json.loads(data)
        if "error" in event:
            made.fault = f"event: {event['error'].get('message')}"
            continue
        made.upstream = event.get("system_fingerprint", made.upstream)
        for choice in event["choices"]:
            text = choice["delta"].get("content") if "delta" in choice else choice.get("text")
            if text:
                made.tokens.append(text)
    if not done and made.fault is None:
        made.fault = "the stream ended without [DONE]"


def session() -> aiohttp.ClientSession:
    # As many connections as there are users; a server that was restarted is connected to anew.
    timeout = aiohttp.ClientTimeout(total=PATIENCE)
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=5), timeout=timeout)


class Load:
    """Requests at a steady rate, by a thread of its own, from `with` to its end."""

    def __init__(self, url: str, model: str, rate: float = 120.0, users: int = 300):
        self.users = Users(url, model, users)
        self.rate = rate
        self.records: list[Request] = []
        self.crowded = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)
        self._failure: BaseException | None = None

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self) -> list[Request]:
        """Ends it; what is under way ends as it would have."""
        self._over.set()
        self._thread.join(PATIENCE + 10)
        assert not self._thread.is_alive(), "the load does not end"
        if self._failure:
            raise self._failure
        return self.records

    async def _run(self):
        try:
            async with session() as open_session:
                await self._pace(open_session)
        except BaseException as failure:  # of the load itself: told by stop
            self._failure = failure

    async def _pace(self, open_session: aiohttp.ClientSession):
        under_way: set[asyncio.Task] = set()
        due = time.monotonic()
        while not self._over.is_set():
            due += 1 / self.rate
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            if not self.users.idle:
                self.crowded += 1
                continue
            task = asyncio.create_task(self._one(open_session, self.users.idle.popleft()))
            under_way.add(task)
            task.add_done_callback(under_way.discard)
        await asyncio.gather(*under_way)

    async def _one(self, open_session: aiohttp.ClientSession, user: str):
        self.records.append(await self.users.ask(open_session, user))
        self.users.idle.append(user)


def everyone(url: str, model: str, count: int = 300, at_once: int = 12) -> list[Request]:
    """One request of each user: who is served by whom at this moment."""
    users = Users(url, model, count)

    async def ask_all() -> list[Request]:
        async with session() as open_session:

            async def some() -> list[Request]:
                made = []
                while users.idle:
                    made.append(await users.ask(open_session, users.idle.popleft()))
                return made

            parts = await asyncio.gather(*(some() for _ in range(at_once)))
            return [request for part in parts for request in part]

    return asyncio.run(ask_all())


def faults(records: Iterable[Request]) -> list[Request]:
    return [request for request in records if request.fault]
