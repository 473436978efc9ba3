"""A program on a pseudo-terminal of a known size: what it sends is counted and, on request, shown on a screen by pyte.

There are no threads here: whoever waits also reads, so a full pipe never stalls the program under observation for
longer than the caller looks away.
"""

from __future__ import annotations

import errno
import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType

import psutil
import pyte

READ_BYTES = 1 << 16
QUIET_SECONDS = 0.02
#: Longer than the pauses within one repaint.
SILENCE_SECONDS = 0.1
LEAVE_SECONDS = 10.0
KEYS = {
    "enter": "\r", "escape": "\x1b", "tab": "\t", "backtab": "\x1b[Z", "up": "\x1b[A", "down": "\x1b[B",
    "right": "\x1b[C", "left": "\x1b[D", "f2": "\x1bOQ", "f4": "\x1bOS", "f5": "\x1b[15~", "space": " ",
    "ctrl+r": "\x12", "backspace": "\x7f", "end": "\x1b[F",
}  # fmt: skip


class Gone(Exception):
    """The program ended, or a deadline passed, before what was waited for came; the text is the last screen."""


def dashboard(*arguments: str) -> list[str]:
    """The command line of ``wmdd-tui`` in this environment."""
    return [sys.executable, "-m", "wmdd_tui", *arguments]


class PtySession:
    """One program, its terminal and the bytes it sent.

    With ``emulate`` every byte goes through a terminal emulator and ``text`` is what a person would see; without it
    reading is cheap, which measurements of traffic and CPU need.
    """

    def __init__(
        self,
        command: Sequence[str],
        columns: int = 80,
        rows: int = 24,
        env: Mapping[str, str] | None = None,
        emulate: bool = True,
    ) -> None:
        self._screen = pyte.Screen(columns, rows)
        self.stream = pyte.ByteStream(self._screen) if emulate else None
        self._master, slave = pty.openpty()
        self._set_size(columns, rows)
        environment = {**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor", **(env or {})}
        for name in ("COLUMNS", "LINES", "NO_COLOR"):  # what this process was given says nothing about that terminal
            if name not in (env or {}):
                environment.pop(name, None)
        self.sent = 0
        self.started = time.monotonic()
        self.process = subprocess.Popen(
            command, stdin=slave, stdout=slave, stderr=slave, env=environment, start_new_session=True
        )
        os.close(slave)
        os.set_blocking(self._master, False)

    def __enter__(self) -> PtySession:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the program if it has not ended, and give the terminal back."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._master)

    # --- terminal ------------------------------------------------------------------------------------------

    def _set_size(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def resize(self, columns: int, rows: int) -> None:
        """Change the size as a terminal's window would."""
        self._screen.resize(rows, columns)
        self._set_size(columns, rows)
        self.process.send_signal(signal.SIGWINCH)

    def press(self, *keys: str) -> None:
        """Keys by name (see ``KEYS``); any other text is typed as it stands."""
        for key in keys:
            self._write(KEYS.get(key, key).encode())

    def paste(self, text: str) -> None:
        """Text as a terminal in bracketed-paste mode sends it."""
        self._write(b"\x1b[200~" + text.encode() + b"\x1b[201~")

    def _write(self, data: bytes) -> None:
        while data:
            _, ready, _ = select.select([], [self._master], [], LEAVE_SECONDS)
            if not ready:
                raise Gone(f"the program reads no keys\n{self.text}")
            data = data[os.write(self._master, data) :]

    def pump(self, seconds: float) -> bytes:
        """Read what the program sends within ``seconds``, and show it; returns at the first piece of it."""
        data = self.take(seconds)
        self.show(data)
        return data

    def show(self, data: bytes) -> None:
        """Give the emulator what was read; it is far slower than a terminal."""
        if data and self.stream is not None:
            self.stream.feed(data)

    def take(self, seconds: float) -> bytes:
        """Read what the program sends within ``seconds`` without showing it; returns at the first piece of it."""
        ready, _, _ = select.select([self._master], [], [], max(0.0, seconds))
        if not ready:
            return b""
        try:
            data = os.read(self._master, READ_BYTES)
        except BlockingIOError:
            return b""
        except OSError as error:
            if error.errno == errno.EIO:  # the last holder of the other side closed it
                return b""
            raise
        self.sent += len(data)
        return data

    def drain(self, seconds: float) -> int:
        """Read for ``seconds``; returns the bytes that came."""
        before, deadline = self.sent, time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0 and self.process.poll() is None:
            self.pump(left)
        return self.sent - before

    # --- looking -------------------------------------------------------------------------------------------

    @property
    def lines(self) -> list[str]:
        return list(self._screen.display)

    @property
    def text(self) -> str:
        """The screen as text, a line a row."""
        return "\n".join(line.rstrip() for line in self._screen.display)

    def wait_for(self, found: str | Callable[[str], object], seconds: float) -> float:
        """Until the screen holds a text, or a condition on it is true; returns the seconds since the start.

        Raises Gone, with the screen, when the time is over or the program ends.
        """
        condition = (lambda text: found in text) if isinstance(found, str) else found
        deadline = time.monotonic() + seconds
        while not condition(self.text):
            self._go_on(deadline, f"not seen: {found}")
        return time.monotonic() - self.started

    def _go_on(self, deadline: float, problem: str) -> None:
        if time.monotonic() > deadline:
            raise Gone(f"{problem}\n{self.text}")
        if not self.pump(min(0.1, max(0.0, deadline - time.monotonic()))) and self.process.poll() is not None:
            raise Gone(f"{problem}; the program ended with {self.process.returncode}\n{self.text}")

    def moment(self, condition: Callable[[str], object], seconds: float) -> tuple[float, float]:
        """When the bytes came with which a condition on the screen came true, on the monotonic clock, and the
        program's processor time then. Raises Gone, with the screen, after ``seconds``.

        What comes is read at once, as a terminal does, and shown only when the program is silent: the emulator is so
        slow that showing each piece first would keep the program waiting at its full pipe.
        """
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and self.process.poll() is None:
            pieces = []
            while data := self.take(SILENCE_SECONDS):
                pieces.append((data, time.monotonic(), self.cpu_seconds()))
            found = None
            for data, arrived, busy in pieces:
                self.show(data)
                if found is None and condition(self.text):
                    found = arrived, busy
            if found is not None:
                return found
        raise Gone(f"not seen in time\n{self.text}")

    def wait_exit(self, seconds: float) -> int:
        """Until the program ends; returns its exit code. Raises Gone."""
        deadline = time.monotonic() + seconds
        while self.process.poll() is None:
            if time.monotonic() > deadline:
                raise Gone(f"the program still runs\n{self.text}")
            self.pump(0.05)
        while self.pump(QUIET_SECONDS):
            pass
        return int(self.process.returncode)

    def first_output(self, seconds: float, at_least: int = 1) -> float:
        """Seconds from the start until ``at_least`` bytes came. Raises Gone."""
        deadline = time.monotonic() + seconds
        while self.sent < at_least:
            self._go_on(deadline, f"{self.sent} of {at_least} bytes")
        return time.monotonic() - self.started

    # --- what it costs -------------------------------------------------------------------------------------

    def cpu_seconds(self) -> float:
        """Processor time of the program so far, user and system; to the microsecond where Linux tells it."""
        try:
            tasks = list(Path(f"/proc/{self.process.pid}/task").iterdir())
            return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9
        except (OSError, IndexError, ValueError):
            times = psutil.Process(self.process.pid).cpu_times()
            return float(times.user + times.system)

    def memory(self) -> int:
        """Resident bytes of the program."""
        return int(psutil.Process(self.process.pid).memory_info().rss)
