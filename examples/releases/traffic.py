#!/usr/bin/env python3
"""People who write to the helpdesk until this is ended, and what they got: requests, errors, and by revision how many
of the tickets were right. Standard library only; `examples/release.sh` runs it."""

import argparse
import http.client
import json
import signal
import sys
import threading
import time
from urllib.parse import urlsplit

over = threading.Event()


def ask(connection: http.client.HTTPConnection, model: str, person: str, row: dict) -> tuple[int, str, bool]:
    """Status, revision, and whether the ticket is the right one."""
    body = json.dumps({"model": model, "messages": row["messages"], "temperature": 0, "max_tokens": 120})
    headers = {"content-type": "application/json", "x-session-id": person}
    connection.request("POST", "/v1/chat/completions", body, headers)
    answer = connection.getresponse()
    said = json.loads(answer.read())
    if answer.status != 200:
        return answer.status, "", False
    try:
        ticket = json.loads(said["choices"][0]["message"]["content"])
    except ValueError:
        ticket = None
    return answer.status, answer.headers["x-sluice-revision"], ticket == row["ticket"]


def write(place: str, model: str, rows: list[dict], share: range, pause: float, got: list):
    """Some of the people, one after the other."""
    connection = http.client.HTTPConnection(place, timeout=60)
    number = share.start
    while not over.wait(pause):
        number = number + 1 if number + 1 < share.stop else share.start
        # Others write other tickets.
        row = rows[(len(got) * 7 + share.start) % len(rows)]
        try:
            got.append(ask(connection, model, f"person-{number}", row))
        except (OSError, http.client.HTTPException, ValueError) as error:
            got.append((0, f"{error}", False))
            connection.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("tickets", type=argparse.FileType())
    parser.add_argument("--model", default="helpdesk")
    parser.add_argument("--people", type=int, default=80)
    parser.add_argument("--at-once", type=int, default=4)
    parser.add_argument("--pause", type=float, default=0.1, help="seconds between two messages of one of those")
    asked = parser.parse_args()
    for ending in (signal.SIGTERM, signal.SIGINT):
        signal.signal(ending, lambda *_: over.set())
    rows = [json.loads(line) for line in asked.tickets]
    each = max(1, asked.people // asked.at_once)
    got: list[list] = [[] for _ in range(asked.at_once)]
    threads = [
        threading.Thread(
            target=write,
            args=(urlsplit(asked.url).netloc, asked.model, rows, range(at * each, (at + 1) * each), asked.pause, got[at]),
        )
        for at in range(asked.at_once)
    ]
    for thread in threads:
        thread.start()
    while not over.is_set():
        time.sleep(0.1)
    for thread in threads:
        thread.join()
    made = [request for part in got for request in part]
    failed = [request for request in made if request[0] != 200]
    print(f"  {len(made)} requests, {len(failed)} errors")
    for revision in sorted({revision for status, revision, _ in made if status == 200}):
        right = [is_right for status, found, is_right in made if status == 200 and found == revision]
        print(f"  {revision}: {len(right)} answers, {sum(right) / len(right):.0%} of the tickets right")
    for status, why, _ in failed[:5]:
        print(f"  failed: {status or why}", file=sys.stderr)
    return 1 if failed or not made else 0


if __name__ == "__main__":
    sys.exit(main())
