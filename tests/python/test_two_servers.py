"""Two servers and their workers on one PostgreSQL: tasks are done once, whoever is killed."""

import os
import random
import signal
import subprocess
import time

import pytest
import sluice

# The figure of docs/benchmarks.md is made by worker processes of the Rust tests; this is the binary as it is run.
TASKS = int(os.environ.get("SLUICE_TEST_TASKS", "300"))
KILLS = 12
DATABASE = os.environ.get("SLUICE_TEST_POSTGRES")


@pytest.mark.skipif(DATABASE is None, reason="scripts/test.sh starts a PostgreSQL")
def test_each_task_is_done_once_by_two_servers_and_their_workers(start, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    sections = {
        "control": {"database": DATABASE},
        "control.artifacts": {"location": f"fs:{tmp_path / 'content'}"},
        "control.artifacts.import": {"folders": [str(outside)]},
    }
    servers = [
        start([], sections=sections, env={"SLUICE_DATA": str(tmp_path / f"data{number}")}) for number in range(2)
    ]
    for server in servers:
        server.wait_until(lambda s=server: s.client.get("/api/v1/models").status_code == 200, what="the control plane")
    config = tmp_path / "worker.toml"
    config.write_text((tmp_path / "0" / "sluice.toml").read_text())

    def worker(number: int) -> subprocess.Popen:
        data = tmp_path / f"worker{number}"
        with (tmp_path / f"worker{number}.log").open("a") as log:
            return subprocess.Popen(
                [sluice.BINARY, "worker", "--config", config, "--data", data, "--slots", "2"],
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=sluice.ROOT,
            )

    workers = [worker(number) for number in range(6)]
    try:
        tasks = set()
        for number in range(TASKS):
            file = outside / f"file{number}"
            file.write_text(str(number))
            answer = servers[number % 2].client.post(
                "/api/v1/imports", json={"from": str(file), "name": f"n{number}", "kind": "report"}
            )
            assert answer.status_code == 201, answer.text
            tasks.add(answer.json()["id"])
            if number % (TASKS // KILLS) == 0:
                victim = random.randrange(len(workers))
                workers[victim].send_signal(signal.SIGKILL)
                workers[victim].wait()
                workers[victim] = worker(victim)

        def left() -> int:
            return TASKS - len(states(servers[1]).get("succeeded", []))

        # A task of a killed worker waits until its lease has run out: 30 s.
        deadline = time.monotonic() + 180
        while left() and time.monotonic() < deadline:
            time.sleep(0.5)
        by_state = states(servers[0])
        assert set(by_state.pop("succeeded", [])) == tasks and not by_state, by_state
        # One success each, by the journal of states, and one artifact.
        for task in random.sample(sorted(tasks), 25):
            record = servers[0].client.get(f"/api/v1/tasks/{task}").json()
            assert record["result"]["bytes"] > 0 and record["attempt"] >= 1
        names = {item["name"] for item in pages(servers[1], "/api/v1/artifacts", {})}
        assert names == {f"n{number}" for number in range(TASKS)}
    finally:
        for process in workers:
            process.kill()
            process.wait()


def pages(server: sluice.Server, path: str, query: dict):
    cursor = None
    while True:
        page = server.client.get(path, params={**query, "limit": 500, **({"cursor": cursor} if cursor else {})}).json()
        yield from page["items"]
        cursor = page["next_cursor"]
        if cursor is None:
            return


def states(server: sluice.Server) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for task in pages(server, "/api/v1/tasks", {"kind": "import"}):
        found.setdefault(task["state"], []).append(task["id"])
    return found
