"""`kill -9` of the server at each step of a release, and a database that goes away in the middle of one."""

import os
import random
import sys
import threading
import time

import claims
import httpx
import pytest
from conftest import STRATEGY
from stage import Stage, moment

# Kills at random moments of a release that goes wrong.
KILLS = int(os.environ.get("SLUICE_TEST_KILLS", "3"))
# More requests than a test makes: the step is held until a person says otherwise.
HELD = {"analyse": {"min_requests": 1_000_000, "max_duration": "10m"}}


def killed(stage: Stage):
    """Killed and started again."""
    stage.kill()
    stage.start()


def killed_with_traffic_as_it_was(stage: Stage, candidate: str):
    """The very same users are with the candidate afterwards."""
    before = claims.users_of(stage.everyone(), candidate)
    killed(stage)
    after = stage.everyone()
    claims.nobody_saw_a_fault(after)
    assert claims.users_of(after, candidate) == before


def killed_at_each_step(stage: Stage):
    stage.version(2)
    steps = [
        {"shadow": {"percent": 100, "for": "5s"}},
        {"weight": 20},
        {"analyse": {"min_requests": 60, "max_duration": "5m"}},
        {"weight": 50},
        {"pause": {}},
    ]
    release = stage.release("v2", STRATEGY | {"steps": steps, "settle": "8s", "on_inconclusive": "extend"})
    view = stage.until_step(release, 0)
    stable, candidate = view["stable"]["revision"], view["candidate"]["revision"]

    # While requests are only copied, nobody is served by the candidate.
    killed(stage)
    early = stage.everyone(60)
    claims.nobody_saw_a_fault(early)
    if stage.view(release)["step"] == 0:
        assert {request.revision for request in early} == {stable}

    # At the first weight; without traffic the analysis waits.
    stage.until_step(release, 2)
    killed_with_traffic_as_it_was(stage, candidate)
    view = stage.view(release)
    assert (view["phase"], view["weight"]) == ("running", 20) and view["step"] == 2, view

    # What was gathered before the kill is forgotten, and gathered again.
    with stage.load():
        view = stage.until(release, "paused")
    assert (view["why"]["why"], view["step"], view["weight"]) == ("step", 4, 50), view
    killed_with_traffic_as_it_was(stage, candidate)
    view = stage.view(release)
    assert (view["phase"], view["why"]["why"], view["weight"]) == ("paused", "step", 50), view

    stage.wait("being taken on", lambda: stage.ask("POST", f"/releases/{release}/resume", {}).status_code == 200)
    stage.until(release, "promoting")
    stage.wait("all traffic", lambda: len(claims.users_of(stage.everyone(50), candidate)) == 50)
    killed_with_traffic_as_it_was(stage, candidate)
    claims.all_are_served_by(stage, candidate)
    view = stage.until(release, "promoted")
    killed(stage)
    claims.all_are_served_by(stage, candidate)
    claims.steps_were_done_in_order(stage.decisions(release), len(steps))
    assert stage.view(release)["phase"] == "promoted"
    return candidate


def killed_while_it_is_taken_back(stage: Stage, stable: str):
    """Asked for by a person; the process is killed before, while or after it answers."""
    stage.version(3)
    for number in range(KILLS):
        release = stage.release("v3", STRATEGY | {"steps": [{"weight": 30}, HELD]})
        view = stage.until_step(release, 1)
        candidate = view["candidate"]["revision"]
        url = f"{stage.server.url}/api/v1/releases/{release}/abort"
        answers: list[int] = []

        def abort(url=url, answers=answers):
            try:
                answers.append(httpx.post(url, json={"reason": "a test"}, timeout=30).status_code)
            except httpx.TransportError:
                pass

        asking = threading.Thread(target=abort)
        asking.start()
        time.sleep(number * 0.02)
        killed(stage)
        asking.join()
        made = stage.everyone(100)
        claims.nobody_saw_a_fault(made)
        now = {request.revision for request in made}
        # All of it or nothing of it; what was said to be done is done.
        assert now in ({stable}, {stable, candidate}), now
        if answers == [200]:
            assert now == {stable}
        if stage.view(release)["phase"] == "running":
            stage.command(release, "abort")
        stage.until(release, "rolled_back")
        claims.all_are_served_by(stage, stable)


def killed_around_a_verdict(stage: Stage, stable: str):
    """The candidate fails all that it is asked, and the process is killed at any moment of that."""
    stage.version(4)
    stage.upstream("v4").behaves(errs=1.0)
    for _ in range(KILLS):
        with stage.load() as load:
            release = stage.release("v4", STRATEGY | {"steps": [{"weight": 20}, HELD]})
            stage.until_step(release, 0)
            time.sleep(random.uniform(0, 3))
            killed(stage)
            view = stage.until(release, "rolled_back")
        # The server's clients lose their connections when it is killed; but no answer is the candidate's.
        answered = {request.revision for request in load.records if request.status == 200}
        assert answered == {stable}, answered
        assert view["why"]["why"] == "breach", view
        assert len([d for d in stage.decisions(release) if (d["action"] or {}).get("action") == "roll_back"]) == 1
        killed(stage)
        claims.all_are_served_by(stage, stable)


@pytest.mark.timeout(600)
def test_killed_at_each_step_it_goes_on_as_it_was(stage):
    stable = killed_at_each_step(stage)
    killed_while_it_is_taken_back(stage, stable)
    killed_around_a_verdict(stage, stable)


@pytest.mark.timeout(600)
def test_killed_at_each_step_on_postgresql(stage_on_postgres):
    killed_at_each_step(stage_on_postgres)


def without_database(stage: Stage, postgres):
    postgres.stop()
    stage.wait("the database to be missed", lambda: stage.ask("GET", "/models").status_code == 503)


def with_database(stage: Stage, postgres):
    postgres.start()
    stage.wait("the database", lambda: stage.ask("GET", "/models").status_code == 200)


def test_what_fails_is_taken_back_while_the_database_is_away(stage_on_postgres, postgres):
    stage = stage_on_postgres
    stage.version(2)
    with stage.load() as load:
        release = stage.release("v2", STRATEGY | {"steps": [{"weight": 20}, HELD]})
        view = stage.until_step(release, 1)
        stable, candidate = view["stable"]["revision"], view["candidate"]["revision"]
        time.sleep(2)
        without_database(stage, postgres)
        went = time.time()
        stage.upstream("v2").behaves(errs=1.0)

        def is_left() -> bool:
            last = max(line["at"] for line in stage.upstream("v2").seen())
            return time.time() - last > 2

        stage.wait("the candidate to be left alone", is_left)
        back = time.time()
        with_database(stage, postgres)
        view = stage.until(release, "rolled_back")
        time.sleep(1)
    claims.nobody_saw_a_fault(load.records)
    decisions = stage.decisions(release)
    (taken,) = [it for it in decisions if (it["action"] or {}).get("action") == "roll_back"]
    # Written later, with the time and the evidence of the moment itself.
    assert went < moment(taken["at"]) < back, (went, taken["at"], back)
    assert taken["evidence"]["verdict"] == "breach" and view["why"]["why"] == "breach", taken
    claims.steps_were_done_in_order(decisions, 2)
    last = max(line["at"] for line in stage.upstream("v2").seen())
    print(f"\nwithout the database: last new request {(last - moment(taken['at'])) * 1000:+.0f} ms from the verdict", file=sys.stderr)
    claims.all_are_served_by(stage, stable)
    assert candidate not in {request.revision for request in load.records if request.sent > back}


def test_people_take_back_while_the_database_is_away(stage_on_postgres, postgres):
    stage = stage_on_postgres
    stage.version(2)
    with stage.load() as load:
        release = stage.release("v2", STRATEGY | {"steps": [{"weight": 40}, HELD]})
        stable = stage.until_step(release, 1)["stable"]["revision"]
        time.sleep(1)
        without_database(stage, postgres)
        answer = stage.ask("POST", "/deployments/desk/rollback", {"reason": "it is slow"})
        asked = time.time()
        assert answer.status_code == 202, answer.text
        told = answer.json()
        assert told["queued"] is True and told["deployment"] == "desk" and told["revision"] == stable, told
        time.sleep(1)
        claims.all_are_served_by(stage, stable)
        # The decision outlives the process, too.
        load.stop()
        killed(stage)
        claims.all_are_served_by(stage, stable)
        with_database(stage, postgres)
        view = stage.until(release, "rolled_back")
    claims.nobody_saw_a_fault(load.records)
    assert {r.revision for r in load.records if r.sent > asked} == {stable}
    assert view["why"]["why"] == "person", view
    (taken,) = [it for it in stage.decisions(release) if (it["action"] or {}).get("action") == "roll_back"]
    assert taken["kind"] == "command" and taken["reason"] == "it is slow" and moment(taken["at"]) <= asked + 1, taken
    claims.all_are_served_by(stage, stable)


def test_what_was_promoted_is_taken_back_while_the_database_is_away(stage_on_postgres, postgres):
    stage = stage_on_postgres
    stage.version(2)
    with stage.load() as load:
        release = stage.release("v2", STRATEGY | {"steps": [{"weight": 50}]})
        view = stage.until(release, "promoted")
        # Published, with what it came from kept warm.
        claims.all_are_served_by(stage, view["candidate"]["revision"])
        time.sleep(1)
        without_database(stage, postgres)
        answer = stage.ask("POST", "/deployments/desk/rollback", {"reason": "it is slow"})
        asked = time.time()
        assert answer.status_code == 202, answer.text
        time.sleep(1)
    claims.nobody_saw_a_fault(load.records)
    assert {request.upstream for request in load.records if request.sent > asked} == {"v1"}
    killed(stage)
    claims.nobody_saw_a_fault(after := stage.everyone())
    assert {request.upstream for request in after} == {"v1"}
    with_database(stage, postgres)

    def back() -> dict | None:
        order = stage.get("/work_orders?deployment=desk&limit=1")["items"][0]
        return order if order["state"] == "promoted" and order["id"] != release else None

    order = stage.wait("the order that brings it back", back)
    assert order["reason"] == "it is slow" and stage.get("/deployments/desk")["live_work_order"] == order["id"]
    claims.nobody_saw_a_fault(after := stage.everyone())
    assert {request.upstream for request in after} == {"v1"} and len({request.revision for request in after}) == 1
