"""What must hold after every kill: the exchange's ledger is compared with the store."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from voicecall.model import Direction, MediaPath
from voicecall_mock.exchange import Exchange

__all__ = ["Judge", "Store"]

OPENING = {"call.initiated", "call.ringing", "call.answered"}
RETRIED = {None, 429, 500, 503}


class Store:
    """The gateway's database, read from outside."""

    def __init__(self, database: Path) -> None:
        self._database = database

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        # Read only: looking must not checkpoint the write-ahead log for the next gateway.
        with closing(sqlite3.connect(f"file:{self._database}?mode=ro", uri=True)) as connection:
            yield connection

    def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        with self._open() as connection:
            return connection.execute(query, values).fetchall()

    def live(self) -> list[dict[str, Any]]:
        """The documents of all calls that are not over."""
        return [json.loads(row[0]) for row in self.rows("SELECT document FROM calls WHERE live")]

    def missing_keys(self, keys: list[str]) -> set[str]:
        """Those of ``keys`` that are not stored as processed."""
        query = (
            "SELECT value FROM json_each(?)"
            " WHERE NOT EXISTS (SELECT 1 FROM processed_keys WHERE key = value)"
        )
        return {row[0] for row in self.rows(query, json.dumps(keys))}


class Judge:
    """Every method raises ``AssertionError`` with what is wrong."""

    def __init__(self, exchange: Exchange, store: Store) -> None:
        self._exchange = exchange
        self._store = store
        self._last: dict[str, Any] | None = None
        self._accepted: dict[str, dict[str, Any]] = {}
        self._references: set[str] = set()
        self._numbers: set[str] = set()
        self.ignored = 0
        """Accepted webhooks that were about calls which the gateway never had a record of."""

    @property
    def webhooks(self) -> int:
        """Webhooks answered 200 and looked up in the store."""
        return len(self._accepted)

    @property
    def dials(self) -> int:
        return len(self._numbers)

    # --- after a kill -----------------------------------------------------------------------

    def after_kill(self, output: str) -> None:
        """The gateway is dead, and the next one is not started yet."""
        fresh = self._fresh_entries()
        self._no_number_twice(fresh)
        self._accepted_is_stored(fresh)
        self._every_live_call_has_a_deadline()
        complaints = [
            line
            for line in output.splitlines()
            if "Traceback" in line or " error voicecall" in line or " critical " in line
        ]
        assert not complaints, "\n".join([*complaints, "", output])

    def _fresh_entries(self) -> list[dict[str, Any]]:
        entries = self._exchange.ledger.entries()
        fresh: list[dict[str, Any]] = []
        for entry in reversed(entries):
            if entry is self._last:
                break
            fresh.append(entry)
        else:
            assert self._last is None, "the ledger has forgotten entries that were not judged yet"
        self._last = entries[-1] if entries else None
        return fresh[::-1]

    def _no_number_twice(self, fresh: list[dict[str, Any]]) -> None:
        for entry in fresh:
            if entry["kind"] != "dialled" or entry["direction"] != Direction.OUTBOUND:
                continue
            assert entry["to"] not in self._numbers, f"dialled twice: {entry}"
            assert entry["reference"] not in self._references, f"a call dialled twice: {entry}"
            self._numbers.add(entry["to"])
            self._references.add(entry["reference"])

    def _accepted_is_stored(self, fresh: list[dict[str, Any]]) -> None:
        given_up = [entry for entry in fresh if entry["kind"] == "webhook-given-up"]
        assert not given_up
        deliveries = [entry for entry in fresh if entry["kind"] == "webhook"]
        refused = [e for e in deliveries if e["status"] != 200 and e["status"] not in RETRIED]
        assert not refused
        accepted = {f"mock:{e['id']}": e for e in deliveries if e["status"] == 200}
        for key in self._store.missing_keys(list(accepted)):
            self._may_be_ignored(accepted.pop(key))
        self._accepted |= accepted

    def _may_be_ignored(self, delivery: dict[str, Any]) -> None:
        """The gateway may ignore events only of an inbound call whose first webhook never came
        through."""
        call = self._exchange.calls[delivery["call"]]
        assert call.plan.direction is Direction.INBOUND, f"accepted and lost: {delivery}"
        assert delivery["type"] not in OPENING, f"accepted and lost: {delivery}"
        known = self._store.rows(
            "SELECT call_id FROM call_aliases WHERE provider_call_id = ?", delivery["call"]
        )
        assert not known, f"accepted and lost: {delivery} of {known}"
        self.ignored += 1

    def _every_live_call_has_a_deadline(self) -> None:
        bare = self._store.rows(
            "SELECT call_id, document FROM calls WHERE live"
            " AND call_id NOT IN (SELECT call_id FROM deadlines)"
        )
        assert not bare, f"live without a deadline: {bare}"

    # --- after a restart --------------------------------------------------------------------

    def connected(self) -> set[str]:
        """The exchange's ids of the calls on which somebody talks."""
        return {call.id for call in self._exchange.calls.values() if call.status == "in-progress"}

    def disagreements(self) -> list[str]:
        """How gateway and exchange differ about live calls. Empty when every call is recovered
        (with its media socket, if it uses one) or over with a reason."""
        records = self._store.live()
        up = {call.id: call for call in self._exchange.calls.values() if not call.over.is_set()}
        found = []
        for record in records:
            call = up.pop(record["provider_call_id"], None)
            name = f"call {record['call_id']} ({record['state']})"
            if call is None:
                found.append(f"{name} is not up at the exchange")
            elif record["recovering"] or record["ending"]:
                found.append(f"{name} is being recovered or ended")
            elif (record["answered_at"] is not None) != (call.status == "in-progress"):
                found.append(f"{name} is {call.status} at the exchange")
            elif (
                record["answered_at"] is not None
                and record["media"] == MediaPath.STREAM
                and call.line.stream is None
            ):
                found.append(f"{name} has no media socket")
        found += [f"the exchange has {call.to_json()}" for call in up.values()]
        return found

    def all_ends_have_reasons(self) -> None:
        bare = self._store.rows(
            "SELECT call_id FROM calls WHERE NOT live"
            " AND (ended_at IS NULL OR json_extract(document, '$.end_reason') IS NULL)"
        )
        assert not bare, f"over without time or reason: {bare}"
        refused = self._store.rows(
            "SELECT call_id FROM calls WHERE json_extract(document, '$.end_detail') = 'capacity'"
        )
        assert not refused, f"a place was not given back: {refused}"

    def finally_(self) -> None:
        """Everything ever accepted is still in the store."""
        lost = self._store.missing_keys(list(self._accepted))
        assert not lost, f"accepted, stored and lost again: {lost}"
