"""The story of `examples/release.sh`, told to its end: real models, a good release and a bad one."""

import os

import sluice


def test_the_story_of_two_releases_is_told_to_its_end(tmp_path):
    environment = {**os.environ, "SLUICE_BIN": str(sluice.BINARY), "SLUICE_DATA": str(sluice.DATA), "TMPDIR": str(tmp_path)}
    told = sluice.run_script(sluice.ROOT / "examples" / "release.sh", environment, 1200)
    assert told.returncode == 0, told.stdout[-4000:] + told.stderr[-4000:]
    assert told.stdout.count(" 0 errors") == 3, told.stdout
    good, bad = told.stdout.split("v3 is released")
    assert "promoted" in good and "shadow agreement" in bad, told.stdout
    # What is named is gone back to, although something was taken back a moment before.
    assert "\n  v1-" in told.stdout.split("v1 was not so bad")[1], told.stdout
