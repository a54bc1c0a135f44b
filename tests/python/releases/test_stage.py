"""The stage itself: what an upstream does wrong is seen by the load, so that a test which sees nothing wrong means it."""

import httpx
import pytest
from load import everyone


def test_upstreams_agree_while_they_are_in_order(stage):
    first, second = stage.upstream("v1"), stage.upstream("v2")
    prompt = {"messages": [{"role": "user", "content": "the same"}]}
    said = [httpx.post(f"{up.url}/chat/completions", json=prompt).json() for up in (first, second)]
    assert [answer["system_fingerprint"] for answer in said] == ["v1", "v2"]
    assert said[0]["choices"] == said[1]["choices"]
    second.behaves(degrades=1.0)
    said.append(httpx.post(f"{second.url}/chat/completions", json=prompt).json())
    assert said[2]["choices"] != said[0]["choices"]


@pytest.mark.parametrize("manner", ["errs", "stalls", "breaks"])
def test_what_an_upstream_does_wrong_is_seen(stage, manner):
    good = stage.everyone(40)
    assert not [request for request in good if request.fault]
    assert {(request.revision[:3], request.upstream) for request in good} == {("v1-", "v1")}
    stage.upstream("v1").behaves(**{manner: 1.0})
    bad = everyone(stage.server.url, "desk", 40, at_once=40)
    assert all(request.fault for request in bad), [request for request in bad if not request.fault]
    # Streams had begun unless they were refused.
    begun = {request.begun for request in bad if request.streamed}
    assert begun == {manner != "errs"}, bad
