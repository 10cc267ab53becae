"""Conformance of a call store: pruning. A part of
:class:`~voicecall_testing.contracts.store.StoreContract`, which has the fixture ``store``."""

from __future__ import annotations

from msgspec.structs import replace

from voicecall.model import EndDetail
from voicecall.seam import SystemSeam
from voicecall.store import CallStore, Commit, DialReservation, StoredEvent, TurnRow

from .records import HOUR, NOW, call_record, ended, said

__all__ = ["PruningContract"]


class PruningContract:
    async def test_prune_by_number(self, store: CallStore) -> None:
        for n in range(5):
            await store.commit(Commit(record=ended(f"c{n}", NOW + n)))
        await store.commit(Commit(record=call_record("live", started_at=NOW - HOUR)))
        assert await store.prune(NOW, keep_calls=2, keep_days=1) == 3
        assert [record.call_id for record in await store.recent(9)] == ["c4", "c3", "live"]

    async def test_refused_calls_push_out_no_others(self, store: CallStore) -> None:
        for n in range(3):
            await store.commit(Commit(record=ended(f"c{n}", NOW + n)))
        for n in range(5):
            refused = ended(f"r{n}", NOW + 9 + n, end_detail=EndDetail.POLICY)
            assert refused.refused
            await store.commit(Commit(record=refused))
        assert await store.prune(NOW + 20, keep_calls=3, keep_days=1) == 2
        kept = [record.call_id for record in await store.recent(9)]
        assert kept == ["r4", "r3", "r2", "c2", "c1", "c0"]
        # The limit on age applies to both kinds.
        assert await store.prune(NOW + 2 * 24 * HOUR, keep_calls=3, keep_days=1) == 6

    async def test_prune_by_age(self, store: CallStore) -> None:
        day = 24 * HOUR
        old = ended("old", NOW - 3 * day, transcript=(said("bye"),))
        await store.commit(
            Commit(
                record=old,
                events=[StoredEvent(NOW, "E", {})],
                turns=[TurnRow(call_id="old", turn_id="t", kind="reply", at=NOW)],
            )
        )
        await store.commit(Commit(record=ended("young", NOW - day)))
        for call_id in ("live", "long"):
            await store.commit(Commit(record=call_record(call_id, started_at=NOW - 9 * day)))
        # The age of a call counts from its end.
        long = replace(ended("long", NOW - day), started_at=NOW - 9 * day)
        await store.commit(Commit(record=long))
        assert await store.prune(NOW, keep_calls=100, keep_days=2) == 1
        assert {record.call_id for record in await store.recent(9)} == {"young", "live", "long"}
        assert await store.load("old") is None
        assert await store.find("carrier", "id-of-old") is None
        assert list(await store.events("old")) == []
        assert list(await store.turns()) == []
        assert await store.prune(NOW, keep_calls=100, keep_days=2) == 0
        # Calls that reuse its ids get nothing of it.
        for record in (
            call_record("old", provider_call_id=None, aliases=()),
            call_record("new").with_alias("id-of-old"),
        ):
            await store.commit(Commit(record=record))
            assert await store.load(record.call_id) == record

    async def test_a_pruned_call_is_not_made_again(self, store: CallStore) -> None:
        now = SystemSeam().now_ms()
        await store.commit(
            Commit(
                record=ended("c", now),
                processed_keys=["k"],
                reservation=DialReservation("d", "c", now),
            )
        )
        assert await store.prune(now, keep_calls=0, keep_days=30) == 1
        assert await store.load("c") is None
        assert await store.is_processed("k")
        assert await store.reservation("d") is not None
