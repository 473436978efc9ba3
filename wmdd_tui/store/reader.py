"""Incremental reading of an event file by stat and read, which also works on network file systems."""

from __future__ import annotations

from pathlib import Path

from engine import events

CHUNK_BYTES = 4 << 20


class EventTail:
    """Reads what was appended since the last poll, up to the last newline.

    Survives a file that is missing, truncated or replaced. ``damaged`` counts lines that are no known event;
    ``newer`` is a message once a process with a newer schema has written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self._inode = 0
        self.damaged = 0
        self.newer = ""

    def poll(self, limit: int = CHUNK_BYTES) -> list[events.AnyEvent]:
        """New events, reading at most ``limit`` bytes; an empty list when there is nothing new."""
        try:
            with self._path.open("rb") as file:
                facts = self._path.stat()
                if facts.st_ino != self._inode or facts.st_size < self._offset:
                    self._inode, self._offset = facts.st_ino, 0
                file.seek(self._offset)
                data = file.read(limit)
        except OSError:
            return []
        end = data.rfind(b"\n") + 1
        if not end and len(data) == limit:
            end = limit  # a line longer than the limit is garbage: pass over it
        self._offset += end
        return self._decode(data[:end])

    def _decode(self, data: bytes) -> list[events.AnyEvent]:
        found = []
        for line in data.splitlines():
            event = events.decode(line)
            if event is None:
                self.damaged += bool(line.strip())
            elif isinstance(event, events.Hello) and event.schema > events.SCHEMA:
                self.newer = f"this run was written by a newer version (schema {event.schema}); please upgrade wmdd-tui"
            else:
                found.append(event)
        return found
