"""A release over two servers on one PostgreSQL: the same users, one decision, and both leave a bad candidate."""

import sys
import time

import claims
from conftest import STRATEGY
from load import Load, everyone
from stage import ENDPOINT, moment

HELD = {"analyse": {"min_requests": 1_000_000, "max_duration": "10m"}}


def test_what_one_server_finds_both_leave(stage_on_postgres):
    stage = stage_on_postgres
    other = stage.join()
    stage.version(2)
    with Load(other.url, ENDPOINT, 40) as beside, stage.load(80) as load:
        release = stage.release("v2", STRATEGY | {"steps": [{"weight": 30}, HELD]})
        view = stage.until_step(release, 1)
        stable, candidate = view["stable"]["revision"], view["candidate"]["revision"]
        time.sleep(2)
        # A user is with the same revision on whichever server.
        here = claims.users_of(stage.everyone(), candidate)
        there = claims.users_of(everyone(other.url, ENDPOINT), candidate)
        assert here == there and 60 < len(here) < 120, (len(here), len(there))
        stage.upstream("v2").behaves(errs=1.0)
        view = stage.until(release, "rolled_back")
        time.sleep(2)
    assert view["why"]["why"] == "breach", view
    claims.nobody_saw_a_fault(load.records)
    claims.nobody_saw_a_fault(beside.records)
    (taken,) = [it for it in stage.decisions(release) if (it["action"] or {}).get("action") == "roll_back"]
    verdict = moment(taken["at"])
    last = max(line["at"] for line in stage.upstream("v2").seen())
    print(f"\ntwo servers: last new request {(last - verdict) * 1000:+.0f} ms from the verdict", file=sys.stderr)
    claims.all_are_served_by(stage, stable)
    assert {request.revision for request in everyone(other.url, ENDPOINT)} == {stable}


def test_a_server_that_dies_leaves_the_release_to_the_other(stage_on_postgres):
    stage = stage_on_postgres
    other = stage.join()
    stage.version(2)
    steps = [{"weight": 30}, {"analyse": {"min_requests": 60, "max_duration": "5m"}}, {"weight": 60}, {"pause": {"for": "1s"}}]
    release = stage.release("v2", STRATEGY | {"steps": steps, "on_inconclusive": "extend"})
    candidate = stage.until_step(release, 1)["candidate"]["revision"]
    stage.kill()
    # What is asked from here on is asked of the other.
    stage.server, stage.others = other, []
    with stage.load() as load:
        stage.until(release, "promoted")
    claims.nobody_saw_a_fault(load.records)
    claims.steps_were_done_in_order(stage.decisions(release), len(steps))
    claims.all_are_served_by(stage, candidate)
