"""A stage for each test of a release: a server and its upstreams, with version 1 live."""

import pytest
from stage import Stage

# What a test does not say otherwise: seconds where people say minutes.
STRATEGY = {
    "steps": [
        {"weight": 10},
        {"analyse": {"min_requests": 50, "max_duration": "30s"}},
        {"weight": 50},
        {"analyse": {"min_requests": 100, "max_duration": "30s"}},
    ],
    "objectives": [
        {"event": "error", "compare": "stable"},
        {"event": "error", "max_ratio": 0.1},
        {"event": "slow_ttft", "over": "500ms", "compare": "stable"},
    ],
    "settle": "1s",
}


@pytest.fixture
def stage(tmp_path):
    stage = Stage(tmp_path / "stage")
    try:
        stage.furnish()
        stage.go_live(STRATEGY)
        yield stage
    finally:
        stage.close()
