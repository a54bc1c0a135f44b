"""What the processes of unapproved models cost their neighbours: latency of a served model with nothing beside it, beside an
evaluation in a child process, and while children are killed one after the other; and what a child costs to start.
`make bench` runs it.

    python tests/python/measure_children.py [SECONDS]
"""

from __future__ import annotations

import sys
import tempfile
import threading
import time
from pathlib import Path

import sluice
from test_sandbox import House, concat, loop

PACE = 0.05


class Neighbour:
    """Asks the served model again and again from a thread, at a pace."""

    def __init__(self, server):
        self.client = server.client
        self.times: list[float] = []
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self.ask)

    def ask(self):
        body = {"model": "neighbour", "messages": [{"role": "user", "content": "My VPN is down"}], "max_tokens": 8, "temperature": 0}
        while not self.stopped.is_set():
            began = time.perf_counter()
            answer = self.client.post("/v1/chat/completions", json=body)
            assert answer.status_code == 200, answer.text
            self.times.append(time.perf_counter() - began)
            self.stopped.wait(max(0.0, PACE - self.times[-1]))

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stopped.set()
        self.thread.join()

    def told(self, what: str):
        times = sorted(it * 1000 for it in self.times)
        at = lambda share: times[min(len(times) - 1, int(len(times) * share))]  # noqa: E731
        print(f"{what}: {len(times)} requests, P50 {at(0.5):.1f} ms, P99 {at(0.99):.1f} ms, most {times[-1]:.1f} ms", flush=True)


def main():
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 20.0
    with tempfile.TemporaryDirectory() as folder:
        servers = []

        def start(deployments, **options):
            servers.append(sluice.start(Path(folder) / "server", deployments, **options))
            return servers[-1]

        (Path(folder) / "house").mkdir()
        try:
            measure(House(start, Path(folder) / "house", load_timeout="2s", request_timeout="2s"), seconds)
        finally:
            for server in servers:
                server.stop()


def measure(house: House, seconds: float):
    ordinary = house.model("ordinary")
    began = time.perf_counter()
    run = house.ended(house.begin(ordinary))
    assert run["status"] == "succeeded", run
    print(f"registered and evaluated on two rows in a child process: {time.perf_counter() - began:.2f} s")
    with Neighbour(house.server) as alone:
        time.sleep(seconds)
    alone.told("nothing beside it")
    with Neighbour(house.server) as beside:
        until, runs = time.monotonic() + seconds, 0
        while time.monotonic() < until:
            house.ended(house.post("/evaluations/e/runs", {"model_version": "m@v1"})["id"])
            runs += 1
    beside.told(f"beside {runs} evaluations of an ordinary model")
    hostile = [house.graph("memory", concat()), house.graph("time", loop())]
    with Neighbour(house.server) as beside:
        until, killed = time.monotonic() + seconds, 0
        while time.monotonic() < until:
            run = house.ended(house.begin(hostile[killed % 2]))
            assert run["status"] == "failed", run
            killed += 1
    beside.told(f"while {killed} children were killed")


if __name__ == "__main__":
    main()
