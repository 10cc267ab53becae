"""``calls.jsonl``: the state of each changed call as a line of JSON, for people and ``tail``.

The database is authoritative: the journal is written after the commit and is not flushed to disk,
so it may lose its last lines in a crash.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

from voicecall.model import CallRecord
from voicecall.store import TurnRow

from .snapshot import journal_line

__all__ = ["Journal"]

Kept = TypeVar("Kept")

_log = logging.getLogger("voicecall.store")

_MOST_WAITING = 1000
_MOST_KNOWN = 500


class Journal:
    """Appends to ``path`` (mode 0600). A file that would exceed ``max_bytes`` is renamed to
    ``path``.1 (if that fails, it grows further); one that was moved or deleted is created again.

    For one thread. No method raises: a failure to write is logged once, and the lines (the newest
    of each call, for at most 1000 calls) are kept and retried with the next ones.
    """

    def __init__(self, path: Path, *, max_bytes: int) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._waiting: dict[str, CallRecord] = {}
        self._known: dict[str, CallRecord] = {}
        self._turns: dict[str, TurnRow] = {}
        self._fd: int | None = None
        self._failing = False
        self._stuck = False

    def append(self, changes: Iterable[CallRecord | TurnRow]) -> None:
        """Write the records in order, after those that are waiting. A turn is written as its
        call's newest record with the turn's figures."""
        for change in changes:
            self._note(change)
        if not self._waiting:
            return
        turns = self._turns
        try:
            self._write(
                b"".join(
                    journal_line(record, turns.get(call_id))
                    for call_id, record in self._waiting.items()
                )
            )
        except OSError as error:
            self._forget_file()
            while len(self._waiting) > _MOST_WAITING:
                del self._waiting[next(iter(self._waiting))]
            if not self._failing:
                _log.error("the call journal %s cannot be written: %s", self._path, error.strerror)
            self._failing = True
        else:
            self._waiting.clear()
            self._failing = False

    def _note(self, change: CallRecord | TurnRow) -> None:
        call_id = change.call_id
        if isinstance(change, TurnRow):
            _renew(self._turns, call_id, change)
            record = self._known.get(call_id)
            if record is None:
                # Its record is from before a restart: the call's next record has the figures.
                return
        else:
            record = change
            _renew(self._known, call_id, record)
        self._waiting.pop(call_id, None)
        self._waiting[call_id] = record

    def close(self) -> None:
        self.append(())
        self._forget_file()

    def _write(self, data: bytes) -> None:
        if self._fd is not None and not _is_at(self._path, self._fd):
            self._forget_file()
        if self._fd is None:
            self._fd = _open(self._path)
        size = os.fstat(self._fd).st_size
        if size and size + len(data) > self._max_bytes and self._put_aside():
            self._forget_file()
            self._fd = _open(self._path)
            size = 0
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(self._fd, rest) :]
        except OSError:
            # Half a line would spoil the next one.
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, size)
            raise

    def _put_aside(self) -> bool:
        """Rename the full file; False if that failed."""
        try:
            os.replace(self._path, self._path.with_name(self._path.name + ".1"))
        except OSError as error:
            if not self._stuck:
                text = "the call journal %s cannot be renamed and keeps growing: %s"
                _log.error(text, self._path, error.strerror)
            self._stuck = True
            return False
        self._stuck = False
        return True

    def _forget_file(self) -> None:
        if self._fd is not None:
            fd, self._fd = self._fd, None
            with contextlib.suppress(OSError):
                os.close(fd)


def _renew(known: dict[str, Kept], call_id: str, value: Kept) -> None:
    """Put ``value`` last. If there are too many, forget the call that changed longest ago."""
    known.pop(call_id, None)
    known[call_id] = value
    if len(known) > _MOST_KNOWN:
        del known[next(iter(known))]


def _is_at(path: Path, fd: int) -> bool:
    """Whether ``path`` still names the file ``fd``: it may have been moved or deleted."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(fd))
    except FileNotFoundError:
        return False


def _open(path: Path) -> int:
    """Open for appending; cut off the partial line that a crash may have left at the end."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.fchmod(fd, 0o600)
        end = os.fstat(fd).st_size
        whole = end
        while whole > 0:
            start = max(0, whole - 65536)
            newline = os.pread(fd, whole - start, start).rfind(b"\n")
            if newline >= 0:
                whole = start + newline + 1
                break
            whole = start
        if whole < end:
            os.ftruncate(fd, whole)
    except OSError:
        os.close(fd)
        raise
    return fd
