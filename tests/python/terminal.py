"""Runs a command on a terminal of its own and reads what stands on its screen.

Knows as much of a terminal as `sluice top` uses: text, where the cursor goes, clearing.
"""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import struct
import termios
import time
import unicodedata
from fcntl import ioctl

ESCAPE = re.compile(r"\x1b\[([?>]?)([0-9;]*)([A-Za-z])|\x1b[()][A-Z0-9]|\x1b[=>78]")


class Terminal:
    def __init__(self, argv: list[str], env: dict[str, str] | None = None, columns: int = 160, rows: int = 40):
        self.rows, self.columns = rows, columns
        self.cells = [[" "] * columns for _ in range(rows)]
        self.row = self.column = 0
        self.raw = ""
        self.alternate = False
        self.pid, self.master = pty.fork()
        if self.pid == 0:
            os.execve(argv[0], argv, {**os.environ, "TERM": "xterm-256color", **(env or {})})
        self.before = termios.tcgetattr(self.master)
        ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.pending = b""

    def type(self, text: str):
        os.write(self.master, text.encode())

    def interrupt(self):
        os.kill(self.pid, signal.SIGINT)

    def read(self, seconds: float = 0.1) -> bool:
        """Takes in what has come; false once the command has closed the terminal."""
        if not select.select([self.master], [], [], seconds)[0]:
            return True
        try:
            data = os.read(self.master, 65536)
        except OSError:
            return False
        self.pending += data
        text = self.pending.decode(errors="ignore")
        # A sequence or a character may be cut in two: keep the tail for the next piece.
        cut = text.rfind("\x1b")
        whole = text if cut < 0 or ESCAPE.match(text, cut) else text[:cut]
        self.pending = self.pending[len(whole.encode()) :]
        self.raw += whole
        self.show(whole)
        return bool(data)

    def show(self, text: str):
        at = 0
        while at < len(text):
            match = ESCAPE.match(text, at)
            if match:
                self.control(match)
                at = match.end()
                continue
            self.put(text[at])
            at += 1

    def control(self, match: re.Match):
        numbers = [int(number or 0) for number in (match[2] or "").split(";")]
        match match[3], match[1]:
            case "H", "":
                self.row = max(numbers[0], 1) - 1
                self.column = max(numbers[1] if len(numbers) > 1 else 1, 1) - 1
            case "J", "":
                self.cells = [[" "] * self.columns for _ in range(self.rows)]
            case ("h" | "l") as what, "?" if 1049 in numbers:
                self.alternate = what == "h"

    def put(self, character: str):
        if character == "\r":
            self.column = 0
        elif character == "\n":
            self.row = min(self.row + 1, self.rows - 1)
        elif self.row < self.rows and self.column < self.columns:
            self.cells[self.row][self.column] = character
            self.column += 2 if unicodedata.east_asian_width(character) in "WF" else 1

    def screen(self) -> str:
        return "\n".join("".join(row).rstrip() for row in self.cells)

    def wait_until(self, condition, seconds: float = 20.0):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.read()
            if condition(self.screen()):
                return
        raise AssertionError(f"not on the screen after {seconds} s:\n{self.screen()}")

    def finish(self, seconds: float = 20.0) -> int:
        """Waits for the command to end; its exit status, as a shell says it."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.read(0.05)
            done, status = os.waitpid(self.pid, os.WNOHANG)
            if done:
                while self.read(0.05) and select.select([self.master], [], [], 0)[0]:
                    pass
                code = os.waitstatus_to_exitcode(status)
                return code if code >= 0 else 128 - code
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        raise AssertionError(f"still running after {seconds} s:\n{self.screen()}")

    def restored(self) -> bool:
        """Whether the terminal is as the command found it."""
        after = termios.tcgetattr(self.master)
        flags = termios.ECHO | termios.ICANON | termios.ISIG
        return not self.alternate and (after[3] & flags) == (self.before[3] & flags)

    def close(self):
        os.close(self.master)
