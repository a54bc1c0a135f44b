"""Every fault of docs/answers.md takes its release back, and what had not begun is answered by the stable revision.

`make test` plays each fault once, the endpoints, forms and shares in turn; with SLUICE_TEST_ALL=1 (`make test-all`) all that
there are: 30 % and all of the answers, in one piece and streamed, four endpoints. Several releases run side by side, each on a
server of its own. For measuring by hand (with `-s`, which shows what it came to):

    SLUICE_TEST_FAULTS     parts of names; only faults that have one of them, all their forms
    SLUICE_TEST_WEIGHT     of the candidate, in percent (50)
    SLUICE_TEST_RATE       requests a second, of each release (25)
    SLUICE_TEST_LANES      how many releases run at once (4)
"""

from __future__ import annotations

import http.client
import itertools
import json
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue
from statistics import median, quantiles

import pytest
from conftest import furnished
from faulty import CHAT, EMBED, FAULTS, RERANK, Fault
from stage import ENDPOINT, Stage

ALL = bool(os.environ.get("SLUICE_TEST_ALL"))
ONLY = os.environ.get("SLUICE_TEST_FAULTS", "").split()
LANES = int(os.environ.get("SLUICE_TEST_LANES", 4))
WEIGHT = float(os.environ.get("SLUICE_TEST_WEIGHT", 50))
RATE = float(os.environ.get("SLUICE_TEST_RATE", 25))
# The default objectives; by default at a weight at which the test ends soon.
RELEASE = {"steps": [{"weight": WEIGHT}, {"analyse": {"min_requests": 1_000_000, "max_duration": "10m"}}], "settle": "1s"}
SECONDS = 60.0


@dataclass(frozen=True)
class Case:
    fault: Fault
    endpoint: str
    stream: bool
    share: float

    def __str__(self) -> str:
        form = "streamed" if self.stream else "whole"
        return f"{self.fault.number} {self.fault.name} of {self.share:.0%}, {self.endpoint}, {form}"


def cases_of(fault: Fault) -> list[Case]:
    shares = (0.3, 1.0)
    forms = {"W": False, "S": True}
    all_of_it = itertools.product(fault.endpoints, (forms[it] for it in fault.forms), shares)
    return [Case(fault, *it) for it in all_of_it if not it[1] or it[0] not in (EMBED, RERANK)]


def cases() -> list[Case]:
    if ONLY:
        return [case for fault in FAULTS.values() if any(it in fault.name for it in ONLY) for case in cases_of(fault)]
    if ALL:
        return [case for fault in FAULTS.values() for case in cases_of(fault)]
    return [(of := cases_of(fault))[number % len(of)] for number, fault in enumerate(FAULTS.values())]


@dataclass
class Outcome:
    case: Case
    why: str = ""
    # Clients whose answer was not what it should have been, before the release was taken back.
    hurt: int = 0
    asked: int = 0
    seconds: float = 0.0
    wrong: list[str] = field(default_factory=list)


class Elsewhere:
    """The faulty server's part that has one fault."""

    process = type("Running", (), {"poll": staticmethod(lambda: 0)})

    def __init__(self, port: int, fault: str = "none", share: float = 0.0):
        self.url = f"http://127.0.0.1:{port}/{fault}/{share}/v1"


def body_of(case: Case, prompt: str) -> dict:
    body = {"model": ENDPOINT}
    if case.endpoint == CHAT:
        body |= {"messages": [{"role": "user", "content": prompt}], "stream": case.stream}
    elif case.endpoint == EMBED:
        body |= {"input": [prompt, "a printer"]}
    elif case.endpoint == RERANK:
        body |= {"query": prompt, "documents": ["a printer"]}
    else:
        body |= {"prompt": prompt, "stream": case.stream}
    return body


def ask(port: int, case: Case, number: int) -> str | None:
    """What is wrong with the answer, as its client sees it; `left` if that one left."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=case.fault.patience or 30.0)
    prompt = f"{number} {time.time_ns()}"
    headers = {"content-type": "application/json", "x-session-id": prompt}
    try:
        connection.request("POST", case.endpoint, json.dumps(body_of(case, prompt)), headers)
        answer = connection.getresponse()
        text = read(answer, case.stream)
    except TimeoutError:
        return "left"
    except (OSError, http.client.HTTPException) as error:
        return f"{type(error).__name__}: {error}"
    finally:
        connection.close()
    if answer.status != 200:
        return f"{answer.status}: {text[:200]}"
    return of_stream(text) if case.stream else of_whole(text)


def read(answer: http.client.HTTPResponse, stream: bool) -> str:
    """All of it. Behind the error event of a stream the connection breaks, for clients that know no such events."""
    try:
        return answer.read().decode()
    except http.client.IncompleteRead as error:
        if not stream:
            raise
        return error.partial.decode()


def of_whole(text: str) -> str | None:
    answer = json.loads(text)
    items = answer.get("choices") or answer.get("data") or answer.get("results")
    return None if items and "error" not in answer else f"200 with {text[:200]}"


def of_stream(text: str) -> str | None:
    """None for a whole stream; `event` for one that ends with one error event; anything else should not be."""
    events = [it.removeprefix("data:").strip() for it in text.split("\n\n") if it.startswith("data:")]
    if not events:
        return f"a stream without events: {text[:200]}"
    errors = [number for number, it in enumerate(events) if it != "[DONE]" and "error" in json.loads(it)]
    if not errors:
        return None if events[-1] == "[DONE]" else f"a stream without its end: {text[-200:]}"
    behind = [it for it in events[errors[0] + 1 :] if it != "[DONE]"]
    return "event" if not behind else f"something behind the error event: {text[-300:]}"


class Lane:
    """A server on which one release after the other is played."""

    def __init__(self, folder: Path, port: int):
        self.port = port
        self.stage = Stage(folder)
        self.stage.upstreams["v1"] = Elsewhere(port)
        try:
            furnished(self.stage).version(2)
        except BaseException:
            self.stage.close()
            raise

    def play(self, case: Case) -> Outcome:
        outcome = Outcome(case)
        self.stage.upstreams["v2"] = Elsewhere(self.port, case.fault.name, case.share)
        release = self.stage.release("v2", RELEASE)
        self.stage.until_step(release, 1)
        began = time.monotonic()
        results, over = SimpleQueue(), threading.Event()
        load = threading.Thread(target=self.load, args=(case, results, over))
        load.start()
        try:
            view = self.stage.until(release, "rolled_back", seconds=SECONDS)
            outcome.why = str(view["why"])
            if view["why"].get("why") != "breach" or case.fault.objective not in view["why"]["because"]:
                outcome.wrong.append(f"taken back for another reason: {view['why']}")
        except Exception as error:  # told with the others, when all were played
            outcome.wrong.append(f"not taken back: {error}"[:600])
            self.stage.ask("POST", f"/releases/{release}/rollback", {"reason": "the test"})
        outcome.seconds = time.monotonic() - began
        over.set()
        load.join()
        self.judge(outcome, results)
        return outcome

    def load(self, case: Case, results: SimpleQueue, over: threading.Event):
        server = int(self.stage.server.port)
        with ThreadPoolExecutor(200) as pool:
            for number in itertools.count():
                if over.wait(1 / RATE):
                    return
                pool.submit(lambda number=number: results.put(ask(server, case, number)))

    def judge(self, outcome: Outcome, results: SimpleQueue):
        fault = outcome.case.fault
        allowed = {"event"} if fault.begun else {"left"} if fault.patience else set()
        while True:
            try:
                found = results.get_nowait()
            except Empty:
                return
            outcome.asked += 1
            outcome.hurt += found is not None
            if found is not None and found not in allowed:
                outcome.wrong.append(f"a client saw {found}")


def lane(folder: Path, port: int, waiting: SimpleQueue, outcomes: list[Outcome]):
    played = Lane(folder, port)
    try:
        while True:
            case = waiting.get_nowait()
            outcome = played.play(case)
            print(f"{case}: {outcome.seconds:.1f} s, {outcome.hurt} of {outcome.asked} hurt; {outcome.why}", flush=True)
            outcomes.append(outcome)
    except Empty:
        pass
    finally:
        played.stage.close()


@pytest.mark.timeout(3 * 3600 if ALL or ONLY else 600)
def test_every_fault_takes_its_release_back(tmp_path):
    faulty = subprocess.Popen([sys.executable, Path(__file__).with_name("faulty.py")], stdout=subprocess.PIPE, text=True)
    waiting, outcomes = SimpleQueue(), []
    wanted = cases()
    for case in wanted:
        waiting.put(case)
    try:
        port = int(faulty.stdout.readline())
        with ThreadPoolExecutor(LANES) as pool:
            lanes = [pool.submit(lane, tmp_path / f"lane{number}", port, waiting, outcomes) for number in range(LANES)]
            for it in lanes:
                it.result()
    finally:
        faulty.kill()
        faulty.wait()
        faulty.stdout.close()
    tell(outcomes)
    wrong = [f"{it.case}: {len(it.wrong)}: {it.wrong[0]}" for it in outcomes if it.wrong]
    assert not wrong, "\n".join(wrong)
    assert len(outcomes) == len(wanted)


def tell(outcomes: list[Outcome]):
    """What it came to. None of it is a condition: other work shares the machine."""
    kinds = {
        "before the first output": lambda it: not it.begun and not it.patience,
        "behind it": lambda it: it.begun,
        "clients that leave": lambda it: it.patience,
    }
    for kind, of in kinds.items():
        mine = [it for it in outcomes if of(it.case.fault)]
        if len(mine) < 2:
            continue
        hurt, seconds = [it.hurt for it in mine], [it.seconds for it in mine]
        at = lambda them: f"{median(them):.1f}, P90 {quantiles(them, n=10, method='inclusive')[-1]:.1f}"  # noqa: E731
        print(f"{kind}: {len(mine)} releases; clients hurt: median {at(hurt)}; seconds until taken back: {at(seconds)}", flush=True)
