"""An observer that keeps what an engine publishes, and a store that can be made to fail."""

from __future__ import annotations

from dataclasses import dataclass, field

import anyio

from voicecall import events as ev
from voicecall.errors import StoreError
from voicecall.model import CallRecord, TranscriptEntry
from voicecall.store import Commit, TurnRow
from voicecall_calls.store import SqliteStore

__all__ = ["FailingStore", "Watcher"]


class FailingStore(SqliteStore):
    """The SQLite store, with faults. The next ``failures`` commits fail. The next ``lost`` ones
    are stored, but raise as if their outcome were unknown. Every commit takes ``delay_s``
    longer."""

    failures = 0
    lost = 0
    delay_s = 0.0

    async def commit(self, commit: Commit) -> None:
        if self.delay_s:
            await anyio.sleep(self.delay_s)
        if self.failures:
            self.failures -= 1
            raise StoreError("the disk is full")
        await super().commit(commit)
        if self.lost:
            self.lost -= 1
            raise StoreError("whether the commit is stored is not known")


@dataclass
class Watcher:
    """Keeps what the engine publishes."""

    events: list[ev.CallEvent] = field(default_factory=list)
    entries: list[TranscriptEntry] = field(default_factory=list)
    turns: list[TurnRow] = field(default_factory=list)
    ends: list[CallRecord] = field(default_factory=list)

    def event(self, record: CallRecord, event: ev.CallEvent) -> None:
        self.events.append(event)

    def said(self, record: CallRecord, entry: TranscriptEntry) -> None:
        self.entries.append(entry)

    def turn(self, row: TurnRow) -> None:
        self.turns.append(row)

    def ended(self, record: CallRecord) -> None:
        self.ends.append(record)
