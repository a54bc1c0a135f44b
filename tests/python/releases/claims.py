"""What must hold whatever a release comes to. Each says which requests speak against it."""

from __future__ import annotations

from collections.abc import Iterable

from load import Request
from stage import Stage

# From a decision's time stamp to the client's, with processes that wait for a core in between.
SLACK = 1.0


def nobody_saw_a_fault(records: Iterable[Request]):
    spoilt = [request for request in records if request.fault]
    assert not spoilt, (len(spoilt), spoilt[:5])


def faults_are_what_the_candidate_had_begun(records: Iterable[Request], candidate: str, verdict: float):
    """What fails before its first token is asked again on stable; only what had begun may break, on the candidate, and
    only if it was asked before the verdict."""
    for request in records:
        if request.fault:
            assert request.revision == candidate and request.begun, request
            assert request.sent < verdict + SLACK, (request, verdict)


def answers_name_who_gave_them(records: Iterable[Request], revisions: dict[str, str]):
    """`revisions`: by upstream."""
    for request in records:
        if request.upstream:
            assert request.revision == revisions[request.upstream], (request, revisions)


def users_stay(records: Iterable[Request], stable: str, candidate: str):
    """While weights rise a user changes once, from stable to the candidate, and never back."""
    moved: set[str] = set()
    for request in sorted(records, key=lambda request: request.sent):
        if request.revision == candidate:
            moved.add(request.user)
        else:
            assert request.revision == stable, request
            assert request.user not in moved, f"{request.user} went back to {stable}: {request}"


def all_are_served_by(stage: Stage, revision: str):
    """Every user, at this moment, without a fault."""
    made = stage.everyone()
    nobody_saw_a_fault(made)
    others = {request.revision for request in made} - {revision}
    assert not others, (revision, others)


def steps_were_done_in_order(decisions: list[dict], until: int):
    """Each step was begun once, after the one before it. `until`: how many were begun."""
    entered = [it["action"]["step"] for it in decisions if (it["action"] or {}).get("action") == "enter"]
    assert entered == list(range(until)), decisions


def share(records: Iterable[Request], revision: str) -> float:
    mine = [request.revision == revision for request in records]
    return sum(mine) / len(mine)


def users_of(records: Iterable[Request], revision: str) -> set[str]:
    return {request.user for request in records if request.revision == revision}
