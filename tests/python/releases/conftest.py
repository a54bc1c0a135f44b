"""A stage for each test of a release: a server and its upstreams, with version 1 live."""

import os

import pytest
from postgres import Postgres
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


def furnished(stage: Stage) -> Stage:
    stage.furnish()
    stage.go_live(STRATEGY)
    return stage


@pytest.fixture
def stage(tmp_path):
    stage = Stage(tmp_path / "stage")
    try:
        yield furnished(stage)
    finally:
        stage.close()


@pytest.fixture
def postgres():
    if "SLUICE_TEST_POSTGRES" not in os.environ:
        pytest.skip("scripts/test.sh sees to it that there is a PostgreSQL")
    postgres = Postgres()
    try:
        yield postgres
    finally:
        postgres.remove()


@pytest.fixture
def stage_on_postgres(tmp_path, postgres):
    stage = Stage(tmp_path / "stage", database=postgres.url)
    try:
        yield furnished(stage)
    finally:
        stage.close()
