"""Conformance of a call store (:mod:`voicecall.store`)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from hashlib import sha256

import anyio
import pytest
from msgspec.structs import replace

from voicecall.errors import DuplicateKey, StoreError
from voicecall.model import CallState, DeadlineKind, Speaker
from voicecall.seam import SystemSeam
from voicecall.store import (
    Approval,
    CallStore,
    Commit,
    DialReservation,
    RecordedReply,
    StoredEvent,
    TurnRow,
)

from .pruning import PruningContract
from .records import HOUR, NOW, call_record, ended, said

__all__ = ["StoreContract", "call_record"]

_LONG = "".join(sha256(bytes([n])).hexdigest() for n in range(250))
"""16,000 characters that compression does not make much shorter."""


class StoreContract(PruningContract, ABC):
    """Inherit, and override the fixture ``new_store``. The test module marks itself with
    ``pytest.mark.contract`` and ``pytest.mark.anyio``."""

    @pytest.fixture
    def anyio_backend(self) -> str:
        return "asyncio"

    @pytest.fixture
    @abstractmethod
    def new_store(self) -> Callable[[], CallStore]:
        """A function that returns a new store; within a test, all of them have the same data. The
        suite opens one at a time."""

    @pytest.fixture
    async def store(self, new_store: Callable[[], CallStore]) -> AsyncIterator[CallStore]:
        store = new_store()
        async with store.lifespan():
            yield store

    async def test_what_is_not_there(self, store: CallStore) -> None:
        assert await store.load("x") is None
        assert await store.find("carrier", "x") is None
        assert await store.reply("x") is None
        assert await store.reservation("x") is None
        assert not await store.is_processed("x")
        assert list(await store.live()) == []
        assert list(await store.recent(10)) == []
        assert list(await store.events("x")) == []
        assert list(await store.turns()) == []

    async def test_an_empty_commit_is_fine(self, store: CallStore) -> None:
        await store.commit(Commit())
        assert list(await store.recent(10)) == []

    async def test_a_record_is_found_by_both_ids(self, store: CallStore) -> None:
        record = call_record(metadata={"nested": {"n": [1, None, "ü"]}})
        await store.commit(Commit(record=record))
        assert await store.load("call-1") == record
        assert await store.find("carrier", "id-of-call-1") == record
        assert await store.find("another", "id-of-call-1") is None
        unlisted = call_record("call-2", aliases=())
        await store.commit(Commit(record=unlisted))
        assert await store.find("carrier", "id-of-call-2") == unlisted

    async def test_a_record_is_replaced(self, store: CallStore) -> None:
        await store.commit(Commit(record=call_record()))
        later = call_record(
            state=CallState.ACTIVE, deadlines={DeadlineKind.PROBE: NOW + 5}, session_key="s"
        )
        await store.commit(Commit(record=later))
        assert await store.load("call-1") == later
        assert list(await store.recent(10)) == [later]

    async def test_every_alias_finds_the_call(self, store: CallStore) -> None:
        await store.commit(Commit(record=call_record()))
        renamed = call_record().with_alias("second")
        await store.commit(Commit(record=renamed))
        for alias in ("id-of-call-1", "second"):
            assert await store.find("carrier", alias) == renamed

    async def test_an_alias_is_never_moved(self, store: CallStore) -> None:
        mine = call_record("mine")
        await store.commit(Commit(record=mine))
        thief = call_record("thief").with_alias("id-of-mine")
        with pytest.raises(StoreError) as caught:
            await store.commit(Commit(record=thief, processed_keys=["k"]))
        assert not isinstance(caught.value, DuplicateKey)
        assert await store.find("carrier", "id-of-mine") == mine
        assert await store.load("thief") is None
        assert not await store.is_processed("k")

    async def test_one_id_at_two_carriers(self, store: CallStore) -> None:
        one = call_record("one", provider="a", aliases=("same",), provider_call_id="same")
        two = call_record("two", provider="b", aliases=("same",), provider_call_id="same")
        await store.commit(Commit(record=one))
        await store.commit(Commit(record=two))
        assert await store.find("a", "same") == one
        assert await store.find("b", "same") == two

    async def test_the_transcript_grows(self, store: CallStore) -> None:
        first = call_record(transcript=(said("hello"),))
        await store.commit(Commit(record=first))
        more = replace(
            first,
            transcript=(*first.transcript, said("go", Speaker.BOT, complete=False), said("x")),
        )
        await store.commit(Commit(record=more, transcript_from=1))
        assert await store.load("call-1") == more
        assert await store.find("carrier", "id-of-call-1") == more
        assert list(await store.live()) == [more]
        assert list(await store.recent(1)) == [more]

    async def test_live_calls(self, store: CallStore) -> None:
        for record in (call_record("a"), call_record("b"), ended("c", NOW)):
            await store.commit(Commit(record=record))
        await store.commit(Commit(record=ended("a", NOW)))
        assert [record.call_id for record in await store.live()] == ["b"]

    async def test_recent_calls_come_newest_first(self, store: CallStore) -> None:
        for n in (2, 5, 1, 4, 3):
            await store.commit(Commit(record=call_record(f"c{n}", started_at=NOW + n)))
        assert [record.call_id for record in await store.recent(3)] == ["c5", "c4", "c3"]
        assert list(await store.recent(0)) == []

    async def test_events_come_in_order(self, store: CallStore) -> None:
        events = [StoredEvent(NOW + 3 - n, f"E{n}", {"n": n, "x": {"y": None}}) for n in range(3)]
        await store.commit(Commit(record=call_record(), events=events[:2]))
        await store.commit(Commit(record=call_record("other"), events=events[:1]))
        await store.commit(Commit(record=call_record(), events=events[2:]))
        assert list(await store.events("call-1")) == events

    async def test_a_processed_key_exists_once(self, store: CallStore) -> None:
        await store.commit(Commit(record=call_record(), processed_keys=["k1"]))
        assert await store.is_processed("k1")
        changed = call_record(state=CallState.ANSWERED)
        again = Commit(
            record=changed,
            events=[StoredEvent(NOW, "E", {})],
            processed_keys=["k2", "k1"],
            reply=RecordedReply("r", NOW, 200, b"", "text/plain"),
            reservation=DialReservation("d", "call-1", NOW),
            turns=[TurnRow(call_id="call-1", turn_id="t", kind="reply", at=NOW)],
        )
        with pytest.raises(DuplicateKey) as caught:
            await store.commit(again)
        assert (caught.value.kind, caught.value.key) == ("processed", "k1")
        assert await store.load("call-1") == call_record()
        assert not await store.is_processed("k2")
        assert list(await store.events("call-1")) == []
        assert await store.reservation("d") is None
        assert list(await store.turns()) == []

    async def test_a_reply_is_recorded_once(self, store: CallStore) -> None:
        now = SystemSeam().now_ms()
        reply = RecordedReply("r", now, 202, b"\x00\xff<x/>", "application/xml", {"X-A": "ü"})
        await store.commit(Commit(reply=reply))
        assert await store.reply("r") == reply
        with pytest.raises(DuplicateKey) as caught:
            await store.commit(Commit(processed_keys=["k"], reply=replace(reply, status=200)))
        assert (caught.value.kind, caught.value.key) == ("replay", "r")
        assert await store.reply("r") == reply
        assert not await store.is_processed("k")

    async def test_a_reply_is_kept_for_24_hours(self, store: CallStore) -> None:
        now = SystemSeam().now_ms()
        young = RecordedReply("young", now - 23 * HOUR, 200, b"", "text/plain")
        old = RecordedReply("old", now - 25 * HOUR, 200, b"", "text/plain")
        await store.commit(Commit(reply=young))
        await store.commit(Commit(reply=old))
        assert await store.reply("young") == young
        assert await store.reply("old") is None
        renewed = replace(old, at=now)
        await store.commit(Commit(reply=renewed))
        assert await store.reply("old") == renewed

    async def test_a_reservation_dials_once(self, store: CallStore) -> None:
        reservation = DialReservation("key", "call-1", NOW)
        await store.commit(Commit(record=call_record(), reservation=reservation))
        assert await store.reservation("key") == reservation
        with pytest.raises(DuplicateKey) as caught:
            await store.commit(
                Commit(
                    record=call_record("second"),
                    reservation=DialReservation("key", "second", NOW),
                )
            )
        assert (caught.value.kind, caught.value.key) == ("dial", "key")
        assert await store.load("second") is None
        assert await store.reservation("key") == reservation

    async def test_turns_come_newest_first(self, store: CallStore) -> None:
        rows = [
            TurnRow(
                call_id=f"c{n % 2}",
                turn_id=f"t{n}",
                kind="reply",
                at=NOW + n,
                speech_ended=NOW,
                first_audio_sent=NOW + n,
                filler=n == 1,
                failed="agent" if n == 2 else None,
            )
            for n in range(4)
        ]
        await store.commit(Commit(turns=rows[:3]))
        await store.commit(Commit(turns=rows[3:]))
        assert list(await store.turns()) == rows[::-1]
        assert list(await store.turns(limit=2)) == [rows[3], rows[2]]
        assert list(await store.turns(call_id="c1")) == [rows[3], rows[1]]

    async def test_a_turn_is_replaced(self, store: CallStore) -> None:
        turn = TurnRow(call_id="c", turn_id="t", kind="reply", at=NOW)
        await store.commit(Commit(turns=[turn]))
        done = replace(turn, playback_done=NOW + 9, barge_in_at=NOW + 8, barge_in_stop_ms=40)
        await store.commit(Commit(turns=[done]))
        assert list(await store.turns(call_id="c")) == [done]

    async def test_approvals_come_newest_first(self, store: CallStore) -> None:
        rows = [Approval(f"+1555010000{n}", "pending", f"{n}", NOW + n, NOW + HOUR) for n in (2, 1)]
        await store.commit(Commit(approvals=rows[1:]))
        await store.commit(Commit(approvals=rows[:1]))
        assert list(await store.approvals()) == rows
        assert list(await store.approvals("+15550100001")) == rows[1:]
        assert list(await store.approvals("+15550100003")) == []
        approved = replace(rows[1], status="approved", code="", at=NOW + 3)
        await store.commit(Commit(approvals=[approved]))
        assert list(await store.approvals()) == [approved, rows[0]]

    async def test_a_failed_commit_leaves_the_store_usable(self, store: CallStore) -> None:
        with pytest.raises(StoreError):
            await store.commit(Commit(record=call_record(metadata={"x": object()})))
        assert await store.load("call-1") is None
        await store.commit(Commit(record=call_record()))
        assert await store.load("call-1") == call_record()

    async def test_many_commits_at_once(self, store: CallStore) -> None:
        refused: list[str] = []

        async def one(n: int) -> None:
            # Every third uses a key that an earlier one may have used.
            key = "shared" if n % 3 == 0 else f"k{n}"
            try:
                await store.commit(Commit(record=call_record(f"c{n}"), processed_keys=[key]))
            except DuplicateKey:
                refused.append(f"c{n}")

        async with anyio.create_task_group() as group:
            for n in range(60):
                group.start_soon(one, n)
        stored = {record.call_id for record in await store.live()}
        assert len(refused) == 19
        assert stored == {f"c{n}" for n in range(60)} - set(refused)

    @pytest.mark.parametrize(
        "odd",
        [
            Commit(record=call_record("odd", started_at=2**63)),
            Commit(processed_keys=["\ud800"]),
            Commit(processed_keys=[_LONG]),
        ],
        ids=["late", "half-a-character", "long"],
    )
    async def test_what_cannot_be_stored_fails_alone(self, store: CallStore, odd: Commit) -> None:
        outcomes: dict[int, StoreError | None] = {}

        async def one(n: int, commit: Commit) -> None:
            try:
                await store.commit(commit)
                outcomes[n] = None
            except StoreError as error:
                outcomes[n] = error

        async with anyio.create_task_group() as group:
            for n in range(5):
                group.start_soon(one, n, odd if n == 2 else Commit(record=call_record(f"c{n}")))
        del outcomes[2]
        assert outcomes == dict.fromkeys((0, 1, 3, 4))
        assert {record.call_id for record in await store.live()} >= {"c0", "c1", "c3", "c4"}
        # The failure is the fault of the commit, not a problem of the store.
        with suppress(StoreError):
            await store.commit(
                replace(odd, processed_keys=[f"{key}2" for key in odd.processed_keys])
            )
        assert list(store.problems()) == []

    async def test_commits_survive_closing(self, new_store: Callable[[], CallStore]) -> None:
        record = call_record(transcript=(said("hello"),))
        async with (store := new_store()).lifespan():
            await store.commit(
                Commit(
                    record=record,
                    events=[StoredEvent(NOW, "E", {"a": 1})],
                    processed_keys=["k"],
                    reservation=DialReservation("d", "call-1", NOW),
                )
            )
        async with (store := new_store()).lifespan():
            assert await store.load("call-1") == record
            assert await store.is_processed("k")
            assert await store.reservation("d") == DialReservation("d", "call-1", NOW)
            assert list(await store.events("call-1")) == [StoredEvent(NOW, "E", {"a": 1})]
            with pytest.raises(DuplicateKey):
                await store.commit(Commit(processed_keys=["k"]))

    async def test_a_closed_store_refuses(self, new_store: Callable[[], CallStore]) -> None:
        store = new_store()
        async with store.lifespan():
            await store.commit(Commit(processed_keys=["k"]))
        with pytest.raises(StoreError):
            await store.commit(Commit(processed_keys=["k2"]))
        with pytest.raises(StoreError):
            await store.is_processed("k")
