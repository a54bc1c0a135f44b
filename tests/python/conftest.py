"""Fixtures: servers with the example models, shared by a whole test session where they can be."""

import signal
from contextlib import ExitStack

import pytest
import sluice

# A job in the background of a script ignores SIGINT, and so would all that it starts, the programs
# that tests interrupt among them.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """The two models of `make run`."""
    running = sluice.start(
        tmp_path_factory.mktemp("server"),
        [
            {"name": "helpdesk", "path": sluice.HELPDESK / "v2", "slots": 8},
            {"name": "all-minilm-l6-v2", "path": sluice.MINILM},
        ],
    )
    yield running
    running.stop()


@pytest.fixture
def start(tmp_path):
    """Starts servers of a test's own and stops them after it."""
    begun = 0
    # One that does not stop in time does not keep the others from being stopped.
    with ExitStack() as running:

        def begin(deployments, **options):
            nonlocal begun
            server = sluice.start(tmp_path / str(begun), deployments, **options)
            begun += 1
            running.callback(server.stop)
            return server

        yield begin
