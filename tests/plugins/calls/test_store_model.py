"""Property tests of the store: records round-trip, and it behaves like a few dictionaries."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from voicecall.errors import DuplicateKey, StoreError
from voicecall.model import (
    CallMode,
    CallRecord,
    CallState,
    DeadlineKind,
    Direction,
    EndDetail,
    Ending,
    EndReason,
    FirstMessage,
    MediaPath,
    MessageState,
    Speaker,
    TranscriptEntry,
    Utterance,
)
from voicecall.seam import SystemSeam
from voicecall.store import CallStore, Commit, DialReservation, StoredEvent, TurnRow
from voicecall_calls.store import SqliteStore
from voicecall_calls.store.rows import to_record, to_write
from voicecall_calls.store.snapshot import journal_line
from voicecall_testing.contracts.records import call_record

pytestmark = pytest.mark.integration

texts = st.text(max_size=12)
times = st.integers(0, 2**53)
maybe_text = st.none() | texts
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
entries = st.builds(TranscriptEntry, times, st.sampled_from(Speaker), texts, st.booleans())
record_fields: dict[str, st.SearchStrategy[Any]] = {
    "call_id": texts,
    "provider": texts,
    "direction": st.sampled_from(Direction),
    "state": st.sampled_from(CallState),
    "from_number": texts,
    "to_number": texts,
    "started_at": times,
    "mode": st.sampled_from(CallMode),
    "media": st.sampled_from(MediaPath),
    "provider_call_id": maybe_text,
    "aliases": st.lists(texts, max_size=3, unique=True).map(tuple),
    "answered_at": st.none() | times,
    "ended_at": st.none() | times,
    "end_reason": st.none() | st.sampled_from(EndReason),
    "end_detail": st.none() | st.sampled_from(EndDetail),
    "end_note": maybe_text,
    "session_key": maybe_text,
    "agent_id": maybe_text,
    "route_key": maybe_text,
    "requester_session_key": maybe_text,
    "dtmf_sequence": maybe_text,
    "message": st.none()
    | st.builds(FirstMessage, texts, st.sampled_from(MessageState), st.integers(0, 9)),
    "utterance": st.none() | st.builds(Utterance, texts, texts, st.booleans()),
    "ending": st.none()
    | st.builds(
        Ending, st.sampled_from(EndReason), st.sampled_from(EndDetail), times, st.integers(0, 9)
    ),
    "listen_token": maybe_text,
    "stream_id": maybe_text,
    "lost_stream_id": maybe_text,
    "earlier_stream_ids": st.lists(texts, max_size=3).map(tuple),
    "recovering": st.booleans(),
    "deadlines": st.dictionaries(st.sampled_from(DeadlineKind), times, max_size=4),
    "transcript": st.lists(entries, max_size=4).map(tuple),
    "metadata": st.dictionaries(texts, json_values, max_size=3),
}
records = st.builds(CallRecord, **record_fields)


@given(records)
@settings(max_examples=60)
def test_the_document_is_that_of_to_dict(record: CallRecord) -> None:
    write = to_write(Commit(record=record), 0)
    call = write.call
    assert call is not None
    document = msgspec.json.decode(call["document"])
    assert document.pop("transcript") == []
    assert document == msgspec.json.decode(msgspec.json.encode(record.to_dict()))
    assert to_record(call["document"], write.transcript) == record


@given(records)
@settings(max_examples=60)
def test_a_line_of_the_journal_is_a_record_with_the_keys_of_its_readers(
    record: CallRecord,
) -> None:
    line = journal_line(record)
    assert line.count(b"\n") == 1
    read = msgspec.json.decode(line)
    required = ("callId", "provider", "direction", "state", "from", "to", "startedAt")
    assert [read[key] for key in required] == [
        record.call_id,
        record.provider,
        record.direction,
        record.state,
        record.from_number,
        record.to_number,
        record.started_at,
    ]
    for key, value in (
        ("providerCallId", record.provider_call_id),
        ("agentId", record.agent_id),
        ("sessionKey", record.session_key),
        ("answeredAt", record.answered_at),
        ("endedAt", record.ended_at),
        ("endReason", record.end_reason),
    ):
        assert read.get(key) == value
        assert (key in read) == (value is not None)
    assert read["transcript"] == [
        {"timestamp": e.at, "speaker": e.speaker, "text": e.text, "isFinal": True}
        | {"complete": e.complete}
        for e in record.transcript
    ]
    metadata = read["metadata"]
    message = record.message
    waiting = message is not None and message.state is not MessageState.DONE
    assert metadata["mode"] == record.mode
    assert metadata.get("initialMessage") == (message.text if message and waiting else None)
    assert metadata.get("requesterSessionKey") == record.requester_session_key
    assert set(record.metadata) <= set(metadata)
    # Tokens admit whoever has them.
    assert not {"listenToken", "streamId", "lostStreamId"} & set(read)


def test_a_line_has_the_figures_of_the_newest_turn() -> None:
    record = CallRecord(
        call_id="c",
        provider="mock",
        direction=Direction.OUTBOUND,
        state=CallState.LISTENING,
        from_number="+15550100000",
        to_number="+15550100001",
        started_at=1,
        metadata={"note": "kept"},
    )
    asked = TurnRow(
        call_id="c",
        turn_id="t1",
        kind="continue",
        at=100,
        playback_done=900,
        stt_final=2400,
    )
    answered = TurnRow(
        call_id="c",
        turn_id="t2",
        kind="reply",
        at=100,
        speech_ended=200,
        stt_final=250,
        first_audio_sent=900,
        playback_done=3000,
    )
    bare = TurnRow(call_id="c", turn_id="t3", kind="message", at=100)
    for turn, figures in (
        (None, {}),
        (asked, {"lastTurnListenWaitMs": 1500, "lastTurnCompletedAt": 2400}),
        (answered, {"lastTurnLatencyMs": 700, "lastTurnCompletedAt": 3000}),
        (bare, {"lastTurnCompletedAt": 100}),
    ):
        which = {"lastTurnId": turn.turn_id} if turn else {}
        metadata = msgspec.json.decode(journal_line(record, turn))["metadata"]
        assert metadata == {"note": "kept", "mode": "conversation", **which, **figures}


@given(record=records)
@settings(max_examples=15)
def test_records_survive_reopening(record: CallRecord) -> None:
    async def scenario(directory: Path) -> None:
        async with (store := SqliteStore(directory, SystemSeam(), fsync=False)).lifespan():
            await store.commit(Commit(record=record))
        async with (store := SqliteStore(directory, SystemSeam(), fsync=False)).lifespan():
            assert await store.load(record.call_id) == record
            assert await store.live() == ([record] if record.live else [])
            for alias in record.aliases:
                assert await store.find(record.provider, alias) == record

    with tempfile.TemporaryDirectory() as name:
        anyio.run(scenario, Path(name))


def test_the_strategy_knows_every_field() -> None:
    # A field that is added to the record must be added here, or it is not tested.
    assert set(record_fields) == set(CallRecord.__struct_fields__)


KEYS = ["k1", "k2", "k3", "k4"]


@st.composite
def commits(draw: st.DrawFn) -> Commit:
    record: CallRecord | None = None
    start = 0
    if draw(st.booleans()):
        record = call_record(
            draw(st.sampled_from(["a", "b", "c"])),
            state=draw(st.sampled_from([CallState.ACTIVE, CallState.COMPLETED])),
            started_at=draw(st.integers(0, 3)),
            provider_call_id=None,
            aliases=tuple(draw(st.lists(st.sampled_from(["x", "y", "z"]), max_size=1))),
            deadlines=draw(st.dictionaries(st.sampled_from(DeadlineKind), times, max_size=2)),
            transcript=tuple(draw(st.lists(entries, max_size=3))),
        )
        start = draw(st.integers(0, len(record.transcript)))
    return Commit(
        record=record,
        transcript_from=start,
        events=[StoredEvent(at, "E", {"at": at}) for at in draw(st.lists(times, max_size=2))],
        processed_keys=draw(st.lists(st.sampled_from(KEYS), max_size=1)),
        reservation=draw(
            st.none()
            | st.builds(DialReservation, st.sampled_from(KEYS), st.sampled_from("abc"), times)
        ),
    )


@dataclass
class Model:
    """The store as dictionaries."""

    calls: dict[str, CallRecord] = field(default_factory=dict)
    entries: dict[str, dict[int, TranscriptEntry]] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)
    events: dict[str, list[StoredEvent]] = field(default_factory=dict)
    processed: set[str] = field(default_factory=set)
    reservations: dict[str, DialReservation] = field(default_factory=dict)

    def commit(self, commit: Commit) -> type[StoreError] | None:
        record, reservation = commit.record, commit.reservation
        if self.processed & set(commit.processed_keys):
            return DuplicateKey
        if reservation and reservation.key in self.reservations:
            return DuplicateKey
        if record and any(
            self.aliases.get(a, record.call_id) != record.call_id for a in record.aliases
        ):
            return StoreError
        self.processed |= set(commit.processed_keys)
        if reservation:
            self.reservations[reservation.key] = reservation
        if record:
            self.calls[record.call_id] = record
            self.aliases |= dict.fromkeys(record.aliases, record.call_id)
            new = dict(
                enumerate(record.transcript[commit.transcript_from :], commit.transcript_from)
            )
            self.entries.setdefault(record.call_id, {}).update(new)
            self.events.setdefault(record.call_id, []).extend(commit.events)
        return None

    def load(self, call_id: str) -> CallRecord | None:
        record = self.calls.get(call_id)
        if record is None:
            return None
        entries = self.entries[call_id]
        return replace(record, transcript=tuple(entries[idx] for idx in sorted(entries)))


@given(st.lists(st.lists(commits(), max_size=4), max_size=5))
@settings(max_examples=40)
def test_the_store_is_a_few_dictionaries(groups: list[list[Commit]]) -> None:
    """Each group is committed at once: a batch means the same as its commits one by one."""

    async def scenario(directory: Path) -> None:
        model = Model()
        store = SqliteStore(directory, SystemSeam(), fsync=False)
        async with store.lifespan():
            for group in groups:
                assert await outcomes(store, group) == [model.commit(commit) for commit in group]
            await agree(store, model)
        async with store.lifespan():
            await agree(store, model)

    with tempfile.TemporaryDirectory() as name:
        anyio.run(scenario, Path(name))


async def outcomes(store: CallStore, group: Sequence[Commit]) -> list[type[StoreError] | None]:
    found: list[type[StoreError] | None] = [None] * len(group)

    async def one(index: int) -> None:
        try:
            await store.commit(group[index])
        except StoreError as error:
            found[index] = type(error)

    async with anyio.create_task_group() as tasks:
        for index in range(len(group)):
            tasks.start_soon(one, index)
    return found


async def agree(store: CallStore, model: Model) -> None:
    for call_id in "abc":
        assert await store.load(call_id) == model.load(call_id)
        assert await store.events(call_id) == model.events.get(call_id, [])
    for alias in "xyz":
        owner = model.aliases.get(alias)
        assert await store.find("carrier", alias) == (model.load(owner) if owner else None)
    for key in KEYS:
        assert await store.is_processed(key) == (key in model.processed)
        assert await store.reservation(key) == model.reservations.get(key)
    newest = sorted(model.calls.values(), key=lambda r: (r.started_at, r.call_id), reverse=True)
    assert [r.call_id for r in await store.recent(10)] == [r.call_id for r in newest]
    assert {r.call_id for r in await store.live()} == {r.call_id for r in newest if r.live}
