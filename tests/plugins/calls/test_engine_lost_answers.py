"""Commits that are stored although their confirmation is lost: the call goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest

from voicecall import events as ev
from voicecall import telephony as tel
from voicecall.errors import StoreError
from voicecall.model import CallMode, CallRecord, EndDetail, EndReason, MediaPath
from voicecall.store import Commit
from voicecall_calls.engine.places import INBOUND_CAP
from voicecall_testing.clock import virtual_backend
from voicecall_testing.fakes import NATIVE, ScriptedCarrier
from voicecall_testing.harness import Phone, open_phone

pytestmark = [pytest.mark.integration, pytest.mark.anyio]


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return virtual_backend


def unanswered(phone: Phone) -> anyio.Event:
    """From now on the store answers no query, until this event is set."""
    load, up = phone.store.load, anyio.Event()

    async def answer_when_up(call_id: str) -> CallRecord | None:
        if not up.is_set():
            raise StoreError("the connection was lost")
        return await load(call_id)

    phone.store.load = answer_when_up  # type: ignore[method-assign]
    return up


async def test_an_answer_whose_commit_was_stored_after_all_connects_the_call(
    tmp_path: Path,
) -> None:
    async with open_phone(tmp_path) as phone:
        await phone.dial("Hello.")
        phone.store.lost = 1
        answered = phone.make(ev.Answered)
        with pytest.raises(StoreError):
            await phone.tell(answered)
        await phone.settle(5)
        assert phone.record.answered_at is None
        # The carrier delivers again.
        assert (await phone.tell(answered)).status == 200
        await phone.settle(3)
        assert phone.heard == ["Hello."]
        assert [type(event) for event in phone.watcher.events].count(ev.Answered) == 1
        assert (await phone.store.live()) == [phone.record]
        # And once more: the commit that counts was answered.
        await phone.tell(answered)
        assert phone.carrier.performed_of(tel.AttachStream) == phone.carrier.performed


async def test_an_end_whose_commit_was_stored_after_all_ends_the_call(tmp_path: Path) -> None:
    async with open_phone(tmp_path) as phone:
        await phone.call_in()
        await phone.settle(3)
        phone.store.lost = 2
        over = phone.make(ev.CallEnded, reason=EndReason.HANGUP_USER)
        keys = phone.make(ev.DigitsPressed, digits="1")
        for event in (keys, over):
            with pytest.raises(StoreError):
                await phone.tell(event)
        # The first change was made to a record that is no longer the newest.
        await phone.tell(keys)
        await phone.tell(over)
        assert phone.record.end_reason is EndReason.HANGUP_USER
        assert await phone.store.load(phone.record.call_id) == phone.record
        assert await phone.engine.coordinator.holders(INBOUND_CAP) == 0


async def test_words_before_an_end_are_kept_once_where_both_were_stored_after_all(
    tmp_path: Path,
) -> None:
    async with open_phone(tmp_path, media=MediaPath.NATIVE) as phone:
        await phone.call_in()
        await phone.settle(3)
        phone.store.lost = 2
        words = phone.make(ev.SpeechHeard, text="Goodbye.")
        over = phone.make(ev.CallEnded, reason=EndReason.HANGUP_USER)
        for event in (words, over):
            with pytest.raises(StoreError):
                await phone.tell(event)
        for event in (words, words, over):
            await phone.tell(event)
        assert phone.record.end_reason is EndReason.HANGUP_USER
        assert phone.said.count(("user", "Goodbye.")) == 1


async def test_words_of_a_native_call_keep_the_ids_that_its_stored_reply_has(
    tmp_path: Path,
) -> None:
    carrier = ScriptedCarrier(NATIVE, steers=True)
    async with open_phone(tmp_path, carrier=carrier, media=MediaPath.NATIVE) as phone:
        phone.plays = False
        await phone.dial("Hello.", CallMode.NOTIFY)
        phone.store.lost = 1
        answered = phone.make(ev.Answered)
        with pytest.raises(StoreError):
            await phone.tell(answered)
        [first] = [action for action in carrier.rendered if isinstance(action, tel.Speak)]
        await phone.tell(answered)
        assert phone.record.utterance is not None
        assert phone.record.utterance.id == first.utterance_id


async def test_an_answer_that_cannot_be_taken_up_yet_is_taken_up_later(tmp_path: Path) -> None:
    async with open_phone(tmp_path) as phone:
        await phone.dial("Hello.")
        phone.store.lost = 1
        answered = phone.make(ev.Answered)
        with pytest.raises(StoreError):
            await phone.tell(answered)
        commit, locked = phone.store.commit, [True]

        async def refuse_a_record(what: Commit) -> None:
            if locked and not what.processed_keys:
                locked.pop()
                raise StoreError("database is locked")
            await commit(what)

        phone.store.commit = refuse_a_record  # type: ignore[method-assign, assignment]
        with pytest.raises(StoreError):
            await phone.tell(answered)
        await phone.tell(answered)
        await phone.settle(3)
        assert phone.heard == ["Hello."]


async def test_a_call_that_was_stored_but_not_placed_is_closed(tmp_path: Path) -> None:
    async with open_phone(tmp_path) as phone:
        phone.store.lost = 1
        with pytest.raises(StoreError):
            await phone.dial("Hello.", idempotency_key="k")
        await phone.settle(1)
        assert phone.record.end_detail is EndDetail.DIAL_FAILED
        assert phone.record.end_note == "the store answered too late"
        assert await phone.store.live() == []
        assert phone.carrier.dialled == []
        # Its key is used up.
        assert await phone.dial("Hello.", idempotency_key="k") == phone.record
        await phone.dial("Hello.", idempotency_key="another")
        assert len(phone.carrier.dialled) == 1


async def test_every_call_whose_answer_was_lost_is_found(tmp_path: Path) -> None:
    async with open_phone(tmp_path, config={"maxConcurrentCalls": 2}) as phone:
        load, asked, down = phone.store.load, 0, True

        async def answer_when_up(call_id: str) -> CallRecord | None:
            nonlocal asked
            asked += 1
            if down:
                raise StoreError("the connection was lost")
            return await load(call_id)

        phone.store.load = answer_when_up  # type: ignore[method-assign]
        for found in (2, 3):
            down = True
            phone.store.lost = found - len(phone.watcher.ends)
            while phone.store.lost:
                with pytest.raises(StoreError):
                    await phone.dial("Hello.")
            asked = 0
            await phone.settle(200)
            # One task asks for all of them, less and less often.
            assert 6 <= asked <= 9
            down = False
            await phone.settle(64)
            assert len(phone.watcher.ends) == found
            assert await phone.store.live() == []


async def test_a_call_that_was_not_stored_keeps_none_from_being_found_that_was(
    tmp_path: Path,
) -> None:
    async with open_phone(tmp_path, config={"maxConcurrentCalls": 2}) as phone:
        up = unanswered(phone)
        phone.store.lost = 1
        with pytest.raises(StoreError):
            await phone.dial("Hello.")
        # This one is asked for first.
        phone.store.failures = 1
        with pytest.raises(StoreError):
            await phone.dial("Hello.")
        up.set()
        await phone.settle(10)
        assert [record.end_detail for record in phone.watcher.ends] == [EndDetail.DIAL_FAILED]
        assert await phone.store.live() == []


async def test_a_call_that_came_in_goes_on_though_its_webhook_does_not_come_again(
    tmp_path: Path,
) -> None:
    async with open_phone(tmp_path) as phone:
        phone.carrier.status_of = tel.CallStatus(ev.CarrierStatus.LIVE)
        load, asked = phone.store.load, 0

        async def answer_late(call_id: str) -> CallRecord | None:
            nonlocal asked
            asked += 1
            if asked < 5:
                raise StoreError("the connection was lost")
            return await load(call_id)

        phone.store.load = answer_late  # type: ignore[method-assign]
        # A recovery that cannot be stored is tried again, too.
        phone.store.lost = 2
        with pytest.raises(StoreError):
            await phone.call_in()
        assert phone.engine.lanes == {}
        assert await phone.engine.coordinator.holders(INBOUND_CAP) == 0
        await phone.settle(60)
        assert phone.carrier.performed_of(tel.Answer)
        assert await phone.engine.coordinator.holders(INBOUND_CAP) == 1
        await phone.event(ev.Answered)
        await phone.hang_up()
        assert phone.record.end_reason is EndReason.HANGUP_USER
        assert await phone.engine.coordinator.holders(INBOUND_CAP) == 0


async def test_a_call_that_is_over_when_the_store_answers_is_not_taken_up(tmp_path: Path) -> None:
    async with open_phone(tmp_path) as phone:
        up = unanswered(phone)
        phone.store.lost = 1
        # It is found by the carrier's id.
        await phone.call_in()
        await phone.hang_up()
        up.set()
        await phone.settle(10)
        assert phone.engine.lanes == {}
        assert await phone.engine.coordinator.holders(INBOUND_CAP) == 0
        assert len(phone.watcher.ends) == 1
