"""Releases from end to end: a candidate that errs, slows, stalls, dies, degrades, and one that is fine. Each ends as it
should, and no client sees an error that stable would not have given."""

import time

import claims
import pytest
from conftest import STRATEGY
from stage import moment, told


def verdict_of(decisions: list[dict]) -> float:
    taken = [it for it in decisions if (it["action"] or {}).get("action") == "roll_back"]
    assert len(taken) == 1, decisions
    return moment(taken[0]["at"])


def test_a_candidate_that_is_fine_is_promoted(stage):
    stage.version(2)
    strategy = STRATEGY | {
        "steps": [{"shadow": {"percent": 100, "for": "5s"}}, *STRATEGY["steps"]],
        "objectives": [*STRATEGY["objectives"], {"shadow_agreement": {"min": 0.9}}],
        # A machine that is busy with other things is no reason to ask a person.
        "on_inconclusive": "extend",
    }
    with stage.load() as load:
        release = stage.release("v2", strategy)
        view = stage.until(release, "promoted")
        time.sleep(0.5)
    stable, candidate = view["stable"]["revision"], view["candidate"]["revision"]
    decisions = stage.decisions(release)
    told("fine", load.records, stage.upstream("v2"), decisions)
    claims.nobody_saw_a_fault(load.records)
    claims.users_stay(load.records, stable, candidate)
    claims.answers_name_who_gave_them(load.records, {"v1": stable, "v2": candidate})
    claims.steps_were_done_in_order(decisions, len(strategy["steps"]))
    claims.all_are_served_by(stage, candidate)
    assert view["weight"] == 100 and view["finished_at"], view
    assert stage.get("/deployments/desk")["live_work_order"] == release


# How the candidate behaves, and the objective that finds it.
BAD = {
    "errs": ({"errs": 0.4}, "error"),
    "breaks": ({"breaks": 0.4}, "error"),
    "slows": ({"first_token": 1.0}, "slow_ttft"),
    "stalls": ({"stalls": 0.5}, "error"),
}


@pytest.mark.parametrize("manner", BAD)
def test_a_candidate_that_is_bad_is_taken_back(stage, manner):
    behaviour, objective = BAD[manner]
    stage.version(2)
    stage.upstream("v2").behaves(**behaviour)
    with stage.load() as load:
        release = stage.release("v2")
        view = stage.until(release, "rolled_back")
        time.sleep(1)
    it_was_taken_back(stage, manner, load.records, view)
    assert objective in view["why"]["because"], view["why"]
    # It never got beyond the share that it began with.
    claims.steps_were_done_in_order(stage.decisions(release), 2)


def it_was_taken_back(stage, name: str, records, view):
    stable, candidate = view["stable"]["revision"], view["candidate"]["revision"]
    decisions = stage.decisions(view["id"])
    verdict = verdict_of(decisions)
    upstream = stage.upstream("v2")
    told(name, records, upstream, decisions)
    assert view["why"]["why"] == "breach" and view["weight"] == 0, view
    claims.faults_are_what_the_candidate_had_begun(records, candidate, verdict)
    claims.answers_name_who_gave_them(records, {"v1": stable, "v2": candidate})
    # Who was tried on it: some users, and the same ones all the time, whoever answered them in the end.
    tried = {line["prompt"].split()[0] for line in upstream.seen() if not line["shadow"]}
    assert 0 < len(tried) < 75, len(tried)
    before = [request for request in records if request.ended < verdict]
    others = {request.user for request in before} - tried
    assert not claims.users_of(before, candidate) & others
    late = [request for request in records if request.sent > verdict + claims.SLACK]
    assert late and {request.revision for request in late} == {stable}
    claims.nobody_saw_a_fault(late)
    claims.all_are_served_by(stage, stable)


def test_a_candidate_that_dies_is_taken_back(stage):
    stage.version(2)
    strategy = STRATEGY | {"steps": [{"weight": 20}, {"analyse": {"min_requests": 100_000, "max_duration": "60s"}}]}
    with stage.load() as load:
        release = stage.release("v2", strategy)
        stage.until_step(release, 1)
        time.sleep(1)
        stage.upstream("v2").stop()
        view = stage.until(release, "rolled_back")
        time.sleep(1)
    it_was_taken_back(stage, "dies", load.records, view)


def test_other_answers_are_found_before_anybody_gets_one(stage):
    stage.version(2)
    stage.upstream("v2").behaves(degrades=0.5)
    strategy = STRATEGY | {
        "steps": [{"shadow": {"percent": 50, "for": "30s"}}, *STRATEGY["steps"]],
        "objectives": [*STRATEGY["objectives"], {"shadow_agreement": {"min": 0.9}}],
    }
    with stage.load() as load:
        release = stage.release("v2", strategy)
        view = stage.until(release, "rolled_back")
    told("degrades", load.records, stage.upstream("v2"), stage.decisions(release))
    claims.nobody_saw_a_fault(load.records)
    assert {request.revision for request in load.records} == {view["stable"]["revision"]}
    seen = stage.upstream("v2").seen()
    assert seen and all(line["shadow"] for line in seen)
    assert view["why"]["why"] == "breach" and "agree" in view["why"]["because"], view["why"]
    claims.all_are_served_by(stage, view["stable"]["revision"])


def test_people_pause_resume_promote_and_abort(stage):
    stage.version(2)
    stage.version(3)
    waits = STRATEGY | {"steps": [{"weight": 20}, {"pause": {}}, {"weight": 50}, {"analyse": {"max_duration": "60s"}}]}
    # Ordered as code: with the rest of the document, or not at all.
    wanted = {"kind": "release", "deployment": "desk", "version": "v2", "upstream": [stage.upstream("v2").url], "strategy": waits}

    def apply(*records: dict, dry_run: bool = False) -> list[dict]:
        return stage.post("/apply", {"records": [*records], "dry_run": dry_run})["results"]

    with stage.load() as load:
        assert apply(wanted, dry_run=True)[0]["outcome"] == "ordered"
        refused = stage.ask("POST", "/apply", {"records": [wanted, {"kind": "model", "name": "not a name"}]})
        assert refused.status_code == 422 and not stage.get("/releases")["items"], refused.text
        (ordered,) = apply(wanted)
        release = ordered["id"]
        assert ordered["outcome"] == "ordered", ordered
        view = stage.until(release, "paused")
        (again,) = apply(wanted)
        assert (again["outcome"], again["id"]) == ("unchanged", release), again
        stable, candidate = view["stable"]["revision"], view["candidate"]["revision"]
        assert view["why"]["why"] == "step" and view["weight"] == 20, view
        assert 0.1 < claims.share(stage.everyone(), candidate) < 0.3
        stage.command(release, "resume")
        stage.until_step(release, 3)
        stage.command(release, "pause")
        view = stage.until(release, "paused")
        assert view["why"]["why"] == "person" and view["weight"] == 50, view
        assert view["paused_by"] and view["paused_because"] == "a test", view
        assert 0.4 < claims.share(stage.everyone(), candidate) < 0.6
        # One at a time.
        refused = stage.ask("POST", "/releases", {"deployment": "desk", "version": "v3", "reason": "too early"})
        assert refused.status_code == 409, refused.text
        stage.command(release, "promote")
        view = stage.until(release, "promoted")
        assert apply(wanted)[0]["outcome"] == "unchanged"
    claims.nobody_saw_a_fault(load.records)
    claims.users_stay(load.records, stable, candidate)
    claims.all_are_served_by(stage, candidate)
    over = stage.ask("POST", f"/releases/{release}/pause", {"reason": "too late"})
    assert over.status_code == 409 and "promoted" in over.json()["detail"], over.text

    with stage.load() as load:
        given_up = stage.release("v3", waits)
        view = stage.until(given_up, "paused")
        stage.command(given_up, "abort")
        view = stage.until(given_up, "rolled_back")
        assert view["why"]["why"] == "person" and view["weight"] == 0, view
        time.sleep(0.5)
    claims.nobody_saw_a_fault(load.records)
    claims.all_are_served_by(stage, candidate)
    assert [it["id"] for it in stage.get("/releases?deployment=desk")["items"]] == [given_up, release]
    assert stage.get("/releases?deployment=desk&active=true")["items"] == []


def test_nothing_is_promoted_past_the_gate(stage):
    stage.version(2)
    waits = STRATEGY | {"steps": [{"weight": 20}, {"pause": {}}]}
    with stage.load() as load:
        release = stage.release("v2", waits)
        view = stage.until(release, "paused")
        (run,) = stage.get("/evaluation_runs?model_version=desk@v2")["items"]
        stage.post(f"/evaluation_runs/{run['id']}/withdraw", {"reason": "the test set was wrong"})
        refused = stage.ask("POST", f"/releases/{release}/promote", {"reason": "all the same"})
        assert refused.status_code == 409, refused.text
        stage.command(release, "resume")
        view = stage.until(release, "paused")
        assert view["why"]["why"] == "gate" and view["weight"] == 20, view
        stage.command(release, "abort")
        stage.until(release, "rolled_back")
    claims.nobody_saw_a_fault(load.records)
    claims.all_are_served_by(stage, view["stable"]["revision"])


def test_a_promoted_release_is_taken_back_under_load(stage):
    stage.version(2)
    # Answers of a second, so that many are in the middle at any time.
    stage.upstream("v2").behaves(token=0.08)
    with stage.load() as load:
        release = stage.release("v2", STRATEGY | {"steps": [{"weight": 50}]})
        view = stage.until(release, "promoted")
        time.sleep(1)
        asked = time.time()
        order = stage.post("/deployments/desk/rollback", {"reason": "a test"})
        answered = time.time()
        stage.wait("the earlier revision", lambda: stage.record(f"/work_orders/{order['id']}", "state", "promoted"))
        over = time.time()
        time.sleep(1)
    last = max(line["at"] for line in stage.upstream("v2").seen())
    print(
        f"\nrollback of a promoted release: last new request on it {(last - asked) * 1000:.0f} ms after it was asked for,"
        f" answered after {(answered - asked) * 1000:.0f} ms, over after {(over - asked) * 1000:.0f} ms"
    )
    claims.nobody_saw_a_fault(load.records)
    # Who was in the middle of an answer got the rest of it.
    between = [request for request in load.records if request.sent < asked and request.ended > answered]
    assert len(between) > 10 and {request.upstream for request in between} == {"v2"}, between[:5]
    late = [request for request in load.records if request.sent > over]
    assert late and view["candidate"]["revision"] not in {request.revision for request in late}
    # The revision before, from its own upstream.
    assert {request.upstream for request in late} == {"v1"}
    claims.all_are_served_by(stage, late[0].revision)
