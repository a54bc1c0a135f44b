"""What the default objectives find though no status says it: refusals, empty answers, clients that leave, agents."""

import contextlib
from concurrent.futures import ThreadPoolExecutor

import httpx

HELD = {"analyse": {"min_requests": 1_000_000, "max_duration": "10m"}}


def ask(stage, session: str, text: str, timeout: float = 10.0) -> int | None:
    """The status; None for who has left."""
    body = {"model": "desk", "messages": [{"role": "user", "content": f"{session} {text}"}], "max_tokens": 64}
    with contextlib.suppress(httpx.TransportError), httpx.Client(timeout=timeout, trust_env=False) as client:
        url = stage.server.url + "/v1/chat/completions"
        return client.post(url, json=body, headers={"x-session-id": session}).status_code
    return None


def release(stage, version: str, steps: list, settle: str = "1s") -> str:
    return stage.release(version, {"steps": steps, "settle": settle})


def found(stage, made: str, objective: str):
    view = stage.until(made, "rolled_back", seconds=20)
    assert view["why"]["why"] == "breach" and objective in view["why"]["because"], view["why"]


def test_what_only_a_comparison_shows(stage):
    for number in (2, 3, 4, 5):
        stage.version(number)

    # Refused by the model server, where stable answers.
    stage.upstream("v2").behaves(refuses=0.4)
    with stage.load() as load:
        made = release(stage, "v2", [{"weight": 20}, HELD])
        found(stage, made, "rejected")
    assert not [it for it in load.records if it.fault], "stable has answered"

    # Agents: of each session's requests the second fails.
    stage.upstream("v3").behaves(errs_later=1.0)
    made = release(stage, "v3", [{"weight": 50}, HELD])
    stage.until_step(made, 1)
    for agent in range(60):
        assert ask(stage, f"agent-{agent}", "first") == ask(stage, f"agent-{agent}", "later") == 200
    found(stage, made, "error")

    # It takes requests and answers none, and clients leave after half a second.
    stage.upstream("v4").behaves(first_token=30.0)
    made = release(stage, "v4", [{"weight": 50}, HELD])
    stage.until_step(made, 1)
    with ThreadPoolExecutor(10) as pool:
        left = list(pool.map(lambda number: ask(stage, f"caller-{number}", "hello", 0.5), range(60)))
    assert None in left and 200 in left
    found(stage, made, "abandoned")

    # It answers nothing from the moment on at which it has all the traffic.
    made = release(stage, "v5", [{"weight": 50}], settle="3s")
    stage.until(made, "promoting")
    stage.upstream("v5").behaves(empties=1.0)
    for number in range(30):
        ask(stage, f"reader-{number}", "hello")
    found(stage, made, "empty")
