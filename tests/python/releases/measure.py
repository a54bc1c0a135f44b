"""How long after `POST …/rollback` was sent the last new request reaches the candidate: with the database up, stopped, and
hanging. And whom a candidate hurts that is in order until it has all of the traffic. `make bench` runs it; a PostgreSQL of its own is
made by scripts/postgres.sh.

    python tests/python/releases/measure.py [ROUNDS] [up|stopped|hanging|promoting]...
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

from conftest import STRATEGY, furnished  # noqa: E402
from postgres import Postgres  # noqa: E402
from stage import Stage  # noqa: E402

# Load and commands are threads of this process: each gets its turn at once.
sys.setswitchinterval(0.0002)

HELD = {"analyse": {"min_requests": 1_000_000, "max_duration": "10m"}}
RATE = 200.0


def once(stage: Stage, away, back) -> tuple[float, float]:
    """Seconds from the command to the last new request on the candidate, and to the answer."""
    release = stage.release("v2", STRATEGY | {"steps": [{"weight": 50}, HELD]})
    stage.until_step(release, 1)
    with stage.load(rate=RATE):
        time.sleep(0.5)
        away()
        asked = time.time()
        answer = stage.ask("POST", f"/releases/{release}/rollback", {"reason": "measured"})
        answered = time.time()
        assert answer.status_code in (200, 202), answer.text
        time.sleep(0.3)
    last = max(line["at"] for line in stage.upstream("v2").seen())
    back()
    stage.until(release, "rolled_back")
    return max(0.0, last - asked), answered - asked


def promoting(stage: Stage, **manner: float) -> tuple[int, float]:
    """Users hurt by a candidate that misbehaves from the moment on at which it is promoted, and seconds until it is taken back."""
    stage.upstream("v2").behaves(first_token=0.02, token=0.0)
    with stage.load(rate=100.0) as load:
        release = stage.release("v2", {"steps": [{"weight": 50}, {"analyse": {"min_requests": 50, "max_duration": "30s"}}], "settle": "3s"})
        stage.until(release, "promoting")
        stage.upstream("v2").behaves(**manner)
        began = time.time()
        stage.until(release, "rolled_back")
        seconds = time.time() - began
    wrong = [it for it in load.records if it.fault or not it.tokens or it.ended - it.sent > 0.5]
    return len({it.user for it in wrong}), seconds


def tell_promoting(stage: Stage, rounds: int):
    for name, manner in (("answers nothing", {"empties": 1.0}), ("is 50 times slower", {"first_token": 1.0})):
        users, seconds = zip(*(promoting(stage, **manner) for _ in range(rounds)))
        at = lambda them, share: sorted(them)[min(rounds - 1, int(rounds * share))]  # noqa: E731
        print(
            f"promoted, then {name}: users hurt P50 {at(users, 0.5)}, P90 {at(users, 0.9)}; "
            f"taken back after P50 {at(seconds, 0.5):.1f} s, P90 {at(seconds, 0.9):.1f} s",
            flush=True,
        )


def main():
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    wanted = sys.argv[2:] or ["up", "stopped", "hanging", "promoting"]
    nothing = lambda: None  # noqa: E731
    postgres = Postgres()
    with tempfile.TemporaryDirectory() as folder:
        stage = Stage(Path(folder) / "stage", database=postgres.url)
        try:
            furnished(stage)
            stage.version(2)
            # What they see is written down at once, and not behind the tokens of others.
            for name in ("v1", "v2"):
                stage.upstream(name).behaves(first_token=0.0, token=0.0)
            for name, away, back in (
                ("up", nothing, nothing),
                ("stopped", postgres.stop, postgres.start),
                ("hanging", postgres.hang, postgres.go_on),
            ):
                if name not in wanted:
                    continue
                found = [once(stage, away, back) for _ in range(rounds)]
                for what, times in zip(("last new request", "answer"), zip(*found)):
                    times = sorted(it * 1000 for it in times)
                    at = lambda share: times[min(rounds - 1, int(rounds * share))]  # noqa: E731, B023
                    print(f"database {name}: {what} after P50 {at(0.5):.1f} ms, P99 {at(0.99):.1f} ms, most {times[-1]:.1f} ms", flush=True)
            if "promoting" in wanted:
                tell_promoting(stage, max(1, rounds // 10))
        finally:
            stage.close()
            postgres.remove()


if __name__ == "__main__":
    main()
