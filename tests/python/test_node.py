"""Runs the Node client's tests (tests/node) against the shared server."""

import os
import subprocess

import sluice


def test_node_client(server):
    folder = sluice.ROOT / "tests" / "node"
    assert (folder / "node_modules" / "openai").is_dir(), "run scripts/test.sh, which installs tests/node"
    done = subprocess.run(["node", "--test"], cwd=folder, env={**os.environ, "SLUICE_URL": server.url}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
