"""Where a release is played: `sluice serve` with records of its own, in front of two upstreams, all of them processes;
everything is asked for as an operator's program would, by the HTTP API."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path

import httpx
import sluice
from load import Load, Request, everyone
from upstream import words

HERE = Path(__file__).resolve().parent
ENDPOINT = "desk"
OVER = ("promoted", "rolled_back", "aborted")


class Upstream:
    """One upstream as a process."""

    def __init__(self, folder: Path, name: str):
        self.name, self.folder = name, folder
        self.seen_file = folder / f"{name}.jsonl"
        self.seen_file.touch()
        self.process: subprocess.Popen | None = None
        self.port = 0
        self.start()

    def start(self):
        """Starts it, on the port that it had before if it had one."""
        arguments = ["--name", self.name, "--port", str(self.port), "--log", str(self.seen_file)]
        with (self.folder / f"{self.name}.log").open("a") as log:
            self.process = subprocess.Popen(
                [sys.executable, HERE / "upstream.py", *arguments], stdout=subprocess.PIPE, stderr=log, text=True
            )
        self.port = int(self.process.stdout.readline())

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def behaves(self, **manner: float):
        """From now on; what is not named is in order."""
        answer = httpx.post(f"http://127.0.0.1:{self.port}/manner", json=manner)
        assert answer.status_code == 200, answer.text

    def seen(self) -> list[dict]:
        """Every request so far, copies for comparison among them."""
        lines = self.seen_file.read_text().splitlines()
        # A killed process may leave half a line.
        return [json.loads(line) for line in lines if line.endswith("}")]

    def stop(self, how: int = signal.SIGKILL):
        self.process.send_signal(how)
        self.process.wait()
        self.process.stdout.close()


class Stage:
    """A server that serves version 1 from one upstream, and may release another."""

    def __init__(self, folder: Path, database: str | None = None):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.outside = folder / "outside"
        self.outside.mkdir(exist_ok=True)
        self.database = database or f"sqlite:{folder / 'sluice.db'}"
        self.upstreams: dict[str, Upstream] = {}
        self.server: sluice.Server | None = None
        self.others: list[sluice.Server] = []
        self.start()

    # --- processes

    def start(self):
        """Starts the server, or starts it again where it was."""
        self.server = self.serve(self.folder, self.server.port if self.server else None)

    def serve(self, folder: Path, port: int | None = None) -> sluice.Server:
        """A server on these records."""
        sections = {
            # A stalled upstream is given up soon.
            "upstream": {"idle_timeout": "2s", "first_byte_timeout": "4s"},
            "control": {"database": self.database},
            "control.allow": {"upstreams": ["127.0.0.0/8"]},
            "control.artifacts.import": {"folders": [str(self.outside)]},
            "log": {"format": "json", "file": str(folder / "access.log")},
        }
        environment = {"SLUICE_DATA": str(folder / "data"), "RUST_BACKTRACE": "1"}
        return sluice.start(folder, [], sections=sections, env=environment, port=port)

    def join(self) -> sluice.Server:
        """One more server on the same records, with files of its own; serving what the first serves."""
        other = self.serve(self.folder / f"server{len(self.others) + 2}")
        self.others.append(other)
        other.wait_until(lambda: everyone(other.url, ENDPOINT, 1)[0].status == 200, what="the other server to serve")
        return other

    def kill(self):
        self.server.stop(signal.SIGKILL)

    def upstream(self, name: str) -> Upstream:
        if name not in self.upstreams:
            self.upstreams[name] = Upstream(self.folder, name)
        return self.upstreams[name]

    def close(self):
        # One that does not stop in time does not keep the others from being stopped.
        with ExitStack() as stack:
            for server in (self.server, *self.others):
                if server:
                    stack.callback(server.stop)
            for upstream in self.upstreams.values():
                if upstream.process.poll() is None:
                    stack.callback(upstream.stop)

    # --- the API

    def ask(self, method: str, path: str, body: dict | None = None) -> httpx.Response:
        return self.server.client.request(method, f"/api/v1{path}", json=body)

    def get(self, path: str) -> dict:
        answer = self.ask("GET", path)
        assert answer.status_code == 200, (path, answer.status_code, answer.text)
        return answer.json()

    def post(self, path: str, body: dict | None = None) -> dict:
        answer = self.ask("POST", path, {} if body is None else body)
        assert answer.status_code in (200, 201), (path, answer.status_code, answer.text, self.server.log_tail(20))
        return answer.json()

    def wait(self, what: str, look: Callable[[], object], seconds: float = 60.0):
        """What `look` returns as soon as it is something. The time is a limit for giving up."""
        found = None

        def looked() -> bool:
            nonlocal found
            found = look()
            return bool(found)

        self.server.wait_until(looked, seconds, what)
        return found

    def pages(self, path: str) -> list[dict]:
        items, cursor = [], None
        while True:
            page = self.get(path + (f"?cursor={cursor}" if cursor else ""))
            items += page["items"]
            cursor = page["next_cursor"]
            if cursor is None:
                return items

    # --- what there is to release

    def furnish(self):
        """A model with a test set and an evaluation, and a deployment that other servers compute."""
        self.wait("the control plane", lambda: self.ask("GET", "/models").status_code == 200)
        # What an upstream in order says is right.
        asked = [f"row {number}" for number in range(40)]
        rows = [{"messages": [{"role": "user", "content": it}], "reference": "".join(words(it))} for it in asked]
        tickets = self.outside / "tickets.jsonl"
        tickets.write_text("".join(json.dumps(row) + "\n" for row in rows))
        task = self.post("/imports", {"from": str(tickets), "name": "tickets", "kind": "dataset"})
        done = self.wait("the import", lambda: self.record(f"/tasks/{task['id']}", "state", "succeeded"))
        self.post("/datasets", {"name": "tickets"})
        self.post("/datasets/tickets/versions", {"artifact": done["result"]["artifact"], "row_count": len(rows)})
        self.post("/models", {"name": ENDPOINT})
        # Versions are asked where version 1 is: that one answers at all; what a candidate is worth, releases find.
        self.evaluation("answers", {})

    def evaluation(self, name: str, settings: dict, required: bool = True):
        measured = {"metrics": {"measure": [{"kind": "token_f1"}]}, "thresholds": {"rules": [{"metric": "token_f1", "min": 0.0}]}}
        named = {"model": ENDPOINT, "name": name, "test_set": "tickets@v1", "settings": settings, "required": required}
        self.post("/evaluations", named | measured)

    def evaluate(self, evaluation: str, version: str):
        run = self.post(f"/evaluations/{evaluation}/runs", {"model_version": f"{ENDPOINT}@{version}"})
        self.wait("the evaluation", lambda: self.record(f"/evaluation_runs/{run['id']}", "status", "succeeded"))

    def record(self, path: str, field: str, value: str) -> dict | None:
        record = self.get(path)
        assert record[field] not in ("failed", "timed_out", "cancelled") or record[field] == value, record
        return record if record[field] == value else None

    def version(self, number: int) -> str:
        """Adds the next version, evaluated and approved. Returns its name."""
        name = f"v{number}"
        made = self.post(f"/models/{ENDPOINT}/versions", {"note": "elsewhere"})
        assert made["number"] == number, made
        digest = hashlib.sha256(name.encode()).hexdigest()
        self.post(f"/models/{ENDPOINT}/versions/{name}/register", {"digest": f"sha256:{digest}"})
        self.evaluate("answers", name)
        self.post(f"/models/{ENDPOINT}/versions/{name}/request_approval")
        self.post(f"/models/{ENDPOINT}/versions/{name}/approve", {"deployment": ENDPOINT})
        return name

    def go_live(self, strategy: dict):
        """Version 1 from upstream `v1`, all at once: there is nothing to compare it with."""
        deployment = {"endpoint": ENDPOINT, "model": ENDPOINT, "cpu_millis": 0, "strategy": strategy}
        self.post("/deployments", deployment | {"engine_options": {"upstream": [self.upstream("v1").url]}})
        version = self.version(1)
        order = self.post("/work_orders", {"deployment": ENDPOINT, "version": version, "reason": "the first"})
        self.post(f"/work_orders/{order['id']}/approve")
        self.wait("version 1 to be live", lambda: self.record(f"/work_orders/{order['id']}", "state", "promoted"))

    # --- releases

    def release(self, version: str, strategy: dict | None = None, upstream: str | None = None) -> str:
        """Starts one to `version`, which the upstream of that name computes. Returns its id."""
        body = {"deployment": ENDPOINT, "version": version, "upstream": [self.upstream(upstream or version).url]}
        view = self.post("/releases", body | {"reason": "a test"} | ({"strategy": strategy} if strategy else {}))
        return view["id"]

    def view(self, release: str) -> dict:
        """A server that was started again serves before it has its database."""
        path = f"/releases/{release}"
        self.wait("the control plane", lambda: self.ask("GET", path).status_code != 503)
        return self.get(path)

    def command(self, release: str, command: str) -> dict:
        return self.post(f"/releases/{release}/{command}", {"reason": "a test"})

    def until(self, release: str, *phases: str, seconds: float = 90.0) -> dict:
        """Until it is in one of these phases. Another end is a failure at once."""

        def look() -> dict | None:
            view = self.view(release)
            if view["phase"] in phases:
                return view
            assert view["phase"] not in OVER, view
            return None

        return self.wait(f"a release that is {' or '.join(phases)}", look, seconds)

    def until_step(self, release: str, step: int, seconds: float = 60.0) -> dict:
        def look() -> dict | None:
            view = self.view(release)
            assert view["phase"] not in OVER, view
            return view if (view["step"] or 0) >= step and view["phase"] == "running" else None

        return self.wait(f"step {step} of the release", look, seconds)

    def decisions(self, release: str) -> list[dict]:
        return self.pages(f"/releases/{release}/decisions")

    # --- traffic

    def load(self, rate: float = 120.0, users: int = 300) -> Load:
        return Load(self.server.url, ENDPOINT, rate, users)

    def everyone(self, count: int = 300) -> list[Request]:
        return everyone(self.server.url, ENDPOINT, count)


def moment(text: str) -> float:
    """RFC 3339 as the load's clock has it."""
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def told(name: str, records: list[Request], upstream: Upstream, decisions: list[dict]):
    """Prints what a scenario came to. None of it is a condition: other work shares the machine."""
    spoilt = [request for request in records if request.fault]
    said = f"\n{name}: {len(records)} requests of {len({r.user for r in records})} users, {len(spoilt)} spoilt"
    verdicts = [d for d in decisions if d["kind"] in ("action", "command") and (d["action"] or {}).get("action") == "roll_back"]
    live = [line["at"] for line in upstream.seen() if not line["shadow"]]
    if live:
        said += f", {len(live)} to the candidate"
    if verdicts:
        verdict = moment(verdicts[0]["at"])
        said += f"; taken back {verdict - moment(decisions[0]['at']):.1f} s after the first decision"
        if live:
            said += f", last new request on the candidate {(max(live) - verdict) * 1000:+.1f} ms from the verdict"
    print(said, flush=True, file=sys.stderr)


def sent_after(records: list[Request], at: float) -> list[Request]:
    return [request for request in records if request.sent > at]


def now() -> float:
    return time.time()
