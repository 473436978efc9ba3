"""How a run is interrupted: signals and requests in ``RUN/control`` become flags that stages ask for."""

from __future__ import annotations

import os
import signal
import threading
import time
from types import FrameType

from engine.rundir import RunDir

POLL_SECONDS = 0.2
SECOND_INTERRUPT_SECONDS = 3.0
INTERRUPTED_CODE = 130


class Control:
    """SIGTERM and SIGINT ask to stop, SIGUSR1 to checkpoint; a second SIGINT within 3 s ends the process at once."""

    def __init__(self, run: RunDir) -> None:
        self._run = run
        self._stop = False
        self._checkpoint = False
        self.paused = False
        self._polled = 0.0

    def install(self) -> None:
        """Take over the signals of this process; in its main thread."""
        # Python runs handlers between two steps of the main thread, which may be inside one long call. The second
        # interrupt must not wait for it, so a thread is told of every signal through a pipe.
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        threading.Thread(target=_end_at_second_interrupt, args=(reader,), name="interrupts", daemon=True).start()
        signal.signal(signal.SIGTERM, self._on_stop)
        signal.signal(signal.SIGINT, self._on_stop)
        signal.signal(signal.SIGUSR1, self._on_checkpoint)

    def _on_stop(self, _signal: int, _frame: FrameType | None) -> None:
        self._stop = True

    def _on_checkpoint(self, _signal: int, _frame: FrameType | None) -> None:
        self._checkpoint = True

    def stop_asked(self) -> bool:
        """True once the run must stop; never blocks."""
        self._poll()
        return self._stop

    def wait(self, seconds: float) -> None:
        """Sleep, but no longer than until the run must stop."""
        deadline = time.monotonic() + seconds
        while not self.stop_asked() and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)

    def _poll(self) -> None:
        now = time.monotonic()
        if now - self._polled < POLL_SECONDS:
            return
        self._polled = now
        self._stop = self._run.take_request("stop") or self._stop
        self._checkpoint = self._run.take_request("checkpoint-now") or self._checkpoint
        if self._run.take_request("pause"):
            self.paused = True
        if self._run.take_request("unpause"):
            self.paused = False

    def interrupted(self) -> bool:
        """True once the run must stop. Blocks while it is paused."""
        self._poll()
        while self.paused and not self._stop:
            time.sleep(POLL_SECONDS)
            self._poll()
        return self._stop

    def checkpoint_asked(self) -> bool:
        """True once for each request to checkpoint now."""
        asked, self._checkpoint = self._checkpoint, False
        return asked


def _end_at_second_interrupt(reader: int) -> None:
    """Read the numbers of signals; two interrupts within 3 s end the process, which leaves its last checkpoints."""
    last = float("-inf")
    while True:
        for number in os.read(reader, 64):
            if number != signal.SIGINT:
                continue
            now = time.monotonic()
            if now - last < SECOND_INTERRUPT_SECONDS:
                os._exit(INTERRUPTED_CODE)
            last = now
