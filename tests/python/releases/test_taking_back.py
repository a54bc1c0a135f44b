"""Taking back waits for nothing: with a database that is stopped, and with one that hangs."""

import claims
from conftest import STRATEGY

HELD = {"analyse": {"min_requests": 1_000_000, "max_duration": "10m"}}


def begun(stage) -> tuple[str, str]:
    """A release of version 2 at 40 %. Its id, and the revision that it may be taken back to."""
    release = stage.release("v2", STRATEGY | {"steps": [{"weight": 40}, HELD]})
    stable = stage.until_step(release, 1)["stable"]["revision"]
    stage.wait("its share", lambda: {it.upstream for it in stage.everyone(40)} == {"v1", "v2"})
    return release, stable


def taken_back(stage, path: str, stable: str):
    """From the answer on no request reaches the candidate."""
    answer = stage.ask("POST", path, {"reason": "it is slow"})
    assert answer.status_code == 202 and answer.json()["queued"] is True, answer.text
    assert answer.json()["revision"] == stable, answer.text
    before = len(stage.upstream("v2").seen())
    claims.all_are_served_by(stage, stable)
    assert len(stage.upstream("v2").seen()) == before
    # The button is pressed again.
    again = stage.ask("POST", "/deployments/desk/rollback", {})
    assert again.status_code == 200 and again.json()["already"] is True, again.text
    claims.all_are_served_by(stage, stable)


def test_taking_back_waits_for_no_database(stage_on_postgres, postgres):
    stage = stage_on_postgres
    stage.version(2)
    for away, back in ((postgres.stop, postgres.start), (postgres.hang, postgres.go_on)):
        release, stable = begun(stage)
        # Nothing is known of it yet: it was there a moment ago.
        away()
        taken_back(stage, f"/releases/{release}/abort", stable)
        # By now it is known to be away, and what needs it says what to use instead.
        for command in ("pause", "promote"):
            refused = stage.ask("POST", f"/releases/{release}/{command}", {})
            assert refused.status_code == 503 and "sluice rollback" in refused.json()["detail"], refused.text
        back()
        view = stage.until(release, "rolled_back")
        assert view["why"]["why"] == "person" and "it is slow" in view["ended_because"], view
        claims.all_are_served_by(stage, stable)
    # One that was promoted, too.
    release = stage.release("v2", STRATEGY | {"steps": [{"weight": 50}]})
    stage.until(release, "promoted")
    postgres.hang()
    taken_back(stage, "/deployments/desk/rollback", stable)
    postgres.go_on()

    def is_back() -> bool:
        return stage.get("/deployments/desk")["live_work_order"] != release

    stage.wait("the records to say so", is_back)
    claims.all_are_served_by(stage, stable)
