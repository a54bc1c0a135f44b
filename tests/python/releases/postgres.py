"""A PostgreSQL of a test's own, to be stopped: the one that all tests share must go on. Made by scripts/postgres.sh."""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

import sluice

OPTIONS = "-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder} -c fsync=off -c max_connections=60"


class Postgres:
    def __init__(self):
        told = self._script('start_postgres; printf "%s\\n" "$SLUICE_TEST_POSTGRES" "$POSTGRES_FOLDER" "$POSTGRES_BIN"')
        self.url, self.folder, self.bin = told.splitlines()[-3:]
        self.port = self.url.rsplit(":", 1)[1].split("/")[0]

    def stop(self):
        """As in a crash: connections break, nothing is tidied up."""
        self._control("-m immediate stop")

    def start(self):
        options = OPTIONS.format(port=self.port, folder=self.folder)
        self._control(f'-w -l "$POSTGRES_FOLDER/log" start -o "{options}"')

    def hang(self):
        """It takes connections and says nothing, as on a disk that does not answer."""
        for process in self._processes():
            os.kill(process, signal.SIGSTOP)

    def go_on(self):
        for process in self._processes():
            os.kill(process, signal.SIGCONT)

    def _processes(self) -> list[int]:
        """The one that was started, and all that it has started."""
        first = int((Path(self.folder) / "data" / "postmaster.pid").read_text().split()[0])
        found = [first]
        for status in Path("/proc").glob("[0-9]*/stat"):
            try:
                parent = int(status.read_text().rsplit(")", 1)[1].split()[1])
            except (OSError, IndexError):
                continue
            if parent == first:
                found.append(int(status.parent.name))
        return found

    def remove(self):
        with suppress(OSError):
            self.go_on()
        self._script("stop_postgres")

    def _control(self, what: str):
        self._script(f'as_postgres "$POSTGRES_BIN/pg_ctl" -D "$POSTGRES_FOLDER/data" -s {what} >/dev/null')

    def _script(self, what: str) -> str:
        sources = f". {sluice.ROOT}/scripts/lib.sh; . {sluice.ROOT}/scripts/postgres.sh"
        known = {"POSTGRES_FOLDER": self.folder, "POSTGRES_BIN": self.bin} if hasattr(self, "folder") else {}
        done = subprocess.run(
            ["bash", "-c", f"set -euo pipefail; {sources}; {what}"],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            timeout=120,
            env={**os.environ, **known},
        )
        return done.stdout
