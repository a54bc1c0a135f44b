"""What a strategy may ask for beside taking back: freezing, asking a person when nothing is known, cohorts."""

import time

import claims
import httpx
from conftest import STRATEGY
from stage import ENDPOINT

HELD = {"analyse": {"min_requests": 1_000_000, "max_duration": "10m"}}


def test_a_breach_may_freeze_and_wait_for_a_person(stage):
    stage.version(2)
    stage.upstream("v2").behaves(errs=0.5)
    strategy = STRATEGY | {"steps": [{"weight": 20}, HELD], "on_breach": "freeze"}
    with stage.load() as load:
        release = stage.release("v2", strategy)
        view = stage.until(release, "paused")
        stable, candidate = view["stable"]["revision"], view["candidate"]["revision"]
        assert view["why"]["why"] == "breach" and view["weight"] == 20, view
        refused = stage.ask("POST", f"/releases/{release}/promote", {"reason": "a test"})
        assert refused.status_code == 409 and "error" in refused.json()["detail"], refused.text
        # Put in order, looked at, and resumed: what was held against it is forgotten.
        stage.upstream("v2").behaves()
        stage.command(release, "resume")
        time.sleep(3)
        assert stage.view(release)["phase"] == "running"
        stage.command(release, "promote")
        stage.until(release, "promoted")
    claims.nobody_saw_a_fault(load.records)
    claims.all_are_served_by(stage, candidate)
    kinds = [decision["kind"] for decision in stage.decisions(release)]
    assert "refused" in kinds and stable != candidate, kinds


def test_without_traffic_a_person_is_asked(stage):
    stage.version(2)
    strategy = STRATEGY | {"steps": [{"weight": 20}, {"analyse": {"min_requests": 50, "max_duration": "2s"}}]}
    release = stage.release("v2", strategy)
    view = stage.until(release, "paused")
    assert view["why"]["why"] == "inconclusive" and "no_data" in view["why"]["because"], view
    assert view["waits_for"] and view["weight"] == 20, view
    stage.command(release, "rollback")
    view = stage.until(release, "rolled_back")
    claims.all_are_served_by(stage, view["stable"]["revision"])


def test_a_cohort_is_with_the_candidate_whatever_the_weight(stage):
    stage.version(2)
    strategy = STRATEGY | {"steps": [{"weight": 1}, HELD], "cohorts": [{"header": {"x-sluice-cohort": "beta"}}]}
    release = stage.release("v2", strategy)
    candidate = stage.until_step(release, 1)["candidate"]["revision"]

    def ask(user: str, **headers: str) -> str:
        body = {"model": ENDPOINT, "messages": [{"role": "user", "content": f"{user} asks"}]}
        headers |= {"x-session-id": user}
        answer = httpx.post(f"{stage.server.v1}/chat/completions", json=body, headers=headers)
        assert answer.status_code == 200, answer.text
        return answer.headers["x-sluice-revision"]

    beta = [ask(f"user-{number}", **{"x-sluice-cohort": "beta"}) for number in range(40)]
    assert set(beta) == {candidate}
    others = [ask(f"user-{number}", **{"x-sluice-cohort": "gamma"}) for number in range(40)]
    assert others.count(candidate) < 5, others
    stage.command(release, "abort")
    stage.until(release, "rolled_back")
    assert ask("user-1", **{"x-sluice-cohort": "beta"}) != candidate


def test_an_evaluation_that_comes_in_late_takes_back(stage):
    stage.version(2)
    stage.upstream("v2").behaves(degrades=0.5)
    # The release waits for its score; the gate does not.
    stage.evaluation("worth", {"engine_options": {"upstream": [stage.upstream("v2").url]}}, required=False)
    stage.evaluate("worth", "v1")
    objectives = [*STRATEGY["objectives"], {"evaluation": "worth", "min_delta": -0.05}]
    with stage.load() as load:
        release = stage.release("v2", STRATEGY | {"steps": [{"weight": 20}, {"pause": {}}], "objectives": objectives})
        view = stage.until(release, "paused")
        stage.evaluate("worth", "v2")
        view = stage.until(release, "rolled_back")
    claims.nobody_saw_a_fault(load.records)
    assert view["why"]["why"] == "breach" and "worth" in view["why"]["because"], view["why"]
    claims.all_are_served_by(stage, view["stable"]["revision"])
