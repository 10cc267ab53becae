"""Opening inbound calls without reading the store, deadlines, and events that are noted or stored
later with others."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import anyio
import pytest

from voicecall import events as ev
from voicecall.errors import StoreError
from voicecall.model import CallState, Direction, EndDetail, EndReason, MediaPath
from voicecall.store import CallStore, Commit
from voicecall_calls.engine.company import Company
from voicecall_calls.operations import DialOptions
from voicecall_testing.clock import virtual_backend
from voicecall_testing.fakes import NATIVE, ScriptedCarrier
from voicecall_testing.harness import CALLEE, CALLER, Phone, open_phone

pytestmark = [pytest.mark.integration, pytest.mark.anyio]

NATIVELY = MediaPath.NATIVE
MANY = 20


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return virtual_backend


def ringing(phone: Phone, number: int, **more: Any) -> ev.CarrierEvent:
    return phone.make(
        ev.Initiated,
        provider_call_id=f"carrier-{number}",
        direction=Direction.INBOUND,
        from_number=CALLER,
        to_number=CALLEE,
        **more,
    )


class Questions:
    """Counts a store's queries."""

    def __init__(self, store: CallStore, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[str] = []
        for name in ("find", "load", "reply", "is_processed"):
            monkeypatch.setattr(store, name, self._counted(name, getattr(store, name)))

    def _counted(self, name: str, ask: Any) -> Any:
        async def counted(*arguments: Any) -> Any:
            self.asked.append(name)
            return await ask(*arguments)

        return counted


async def test_new_calls_ask_the_store_nothing_and_do_not_wait_for_one_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = {"maxConcurrentInboundCalls": MANY}
    async with open_phone(tmp_path, media=NATIVELY, config=many) as phone:
        questions = Questions(phone.store, monkeypatch)
        committing = most = 0
        commit = phone.store.commit

        async def counted(one: Any) -> None:
            nonlocal committing, most
            committing += 1
            most = max(most, committing)
            await commit(one)
            committing -= 1

        monkeypatch.setattr(phone.store, "commit", counted)
        async with anyio.create_task_group() as tasks:
            for number in range(MANY):
                tasks.start_soon(phone.tell, ringing(phone, number))
        assert questions.asked == []
        assert most == MANY
        assert len(phone.engine.lanes) == MANY


async def test_a_call_is_opened_once_by_several_webhooks_at_once(tmp_path: Path) -> None:
    async with open_phone(tmp_path, media=NATIVELY) as phone:
        async with anyio.create_task_group() as tasks:
            for delivery in range(5):
                event = ringing(phone, 1, key=f"delivery-{delivery}")
                tasks.start_soon(phone.tell, event)
        assert len(phone.engine.lanes) == 1
        assert await phone.engine.coordinator.holders("calls:inbound") == 1


async def test_of_several_webhooks_behind_a_failed_commit_one_opens_the_call(
    tmp_path: Path,
) -> None:
    async with open_phone(tmp_path, media=NATIVELY) as phone:
        phone.store.failures = 1
        failed: list[str] = []

        async def deliver(event: ev.CarrierEvent) -> None:
            try:
                await phone.tell(event)
            except StoreError:
                failed.append(event.key)

        async with anyio.create_task_group() as tasks:
            for delivery in range(4):
                tasks.start_soon(deliver, ringing(phone, 1, key=f"delivery-{delivery}"))
        assert failed == ["delivery-0"]
        assert len(phone.engine.lanes) == 1
        assert await phone.engine.coordinator.holders("calls:inbound") == 1


async def test_a_repeated_first_webhook_of_a_call_that_is_over_opens_no_other(
    tmp_path: Path,
) -> None:
    carrier = ScriptedCarrier(NATIVE, steers=True)
    async with open_phone(tmp_path, media=NATIVELY, carrier=carrier) as phone:
        first = ringing(phone, 1, key="first")
        reply = await phone.tell(first)
        assert reply.body == b'["Answer"]'
        await phone.tell(
            phone.make(ev.CallEnded, provider_call_id="carrier-1", reason=EndReason.COMPLETED)
        )
        assert await phone.tell(first) == reply
        assert phone.engine.lanes == {}
        assert len(await phone.store.recent(10)) == 1
        assert await phone.engine.coordinator.holders("calls:inbound") == 0


async def test_a_repeated_webhook_keeps_no_place_from_a_new_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_phone(
        tmp_path, media=NATIVELY, config={"maxConcurrentInboundCalls": 1}
    ) as phone:
        first = ringing(phone, 1, key="first")
        await phone.tell(first)
        await phone.tell(
            phone.make(ev.CallEnded, provider_call_id="carrier-1", reason=EndReason.COMPLETED)
        )
        commit = phone.store.commit

        async def slowly(one: Any) -> None:
            await anyio.sleep(0.5)
            await commit(one)

        monkeypatch.setattr(phone.store, "commit", slowly)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(phone.tell, first)
            await phone.settle(0.1)
            tasks.start_soon(phone.tell, ringing(phone, 2))
        assert phone.engine.lane_with("carrier-2") is not None
        # Now no place is free for anyone.
        await phone.tell(ringing(phone, 3))
        refused = await phone.store.find("scripted", "carrier-3")
        assert refused is not None
        assert refused.end_detail is EndDetail.CAPACITY


async def test_a_refused_call_is_refused_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = {"inboundPolicy": "disabled"}
    async with open_phone(tmp_path, media=NATIVELY, config=config) as phone:
        event = ringing(phone, 1, key="first")
        with caplog.at_level("INFO", "voicecall.calls"):
            first = await phone.tell(event)
            assert await phone.tell(event) == first
        assert caplog.text.count("refused: policy") == 1
        (record,) = await phone.store.recent(10)
        assert record.end_detail is EndDetail.POLICY


async def test_the_log_calls_no_call_answered_that_is_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "voicecall.phases")
    for policy, phases in (
        ("disabled", "webhook accepted; ended, hangup-bot (policy)"),
        ("open", "webhook accepted; answered"),
    ):
        config = {"inboundPolicy": policy}
        async with open_phone(tmp_path / policy, media=NATIVELY, config=config) as phone:
            caplog.clear()
            event = phone.make(
                ev.Answered,
                provider_call_id="carrier-1",
                direction=Direction.INBOUND,
                from_number=CALLER,
                to_number=CALLEE,
            )
            await phone.tell(event)
            assert caplog.messages[0].partition(": ")[2].startswith(phases)


async def test_every_call_is_woken_at_its_own_deadline(tmp_path: Path) -> None:
    config = {"maxConcurrentInboundCalls": MANY, "maxDurationSeconds": 40}
    async with open_phone(tmp_path, media=NATIVELY, config=config) as phone:
        for number in range(3):
            await phone.tell(ringing(phone, number))
            answered = phone.make(ev.Answered, provider_call_id=f"carrier-{number}")
            await phone.tell(answered)
            await phone.settle(10)
        ends: list[int] = []
        for number in range(3):
            while phone.engine.lane_with(f"carrier-{number}") is not None:
                await phone.settle(1)
            record = await phone.store.find("scripted", f"carrier-{number}")
            assert record is not None
            assert record.ended_at is not None
            assert record.end_detail is EndDetail.MAX_DURATION
            ends.append(record.ended_at)
        assert ends == sorted(ends)
        assert all(9_000 <= later - one <= 11_500 for one, later in pairwise(ends))


@asynccontextmanager
async def in_a_call(directory: Path) -> AsyncIterator[tuple[Phone, int]]:
    """A phone with a call that has been quiet for a while, and how many events it has stored."""
    async with open_phone(directory, media=NATIVELY) as phone:
        await phone.call_in()
        await phone.settle(5)
        yield phone, len(await phone.store.events(phone.lane.record.call_id))


async def test_what_is_noted_is_seen_at_once_and_stored_with_the_next_event(
    tmp_path: Path,
) -> None:
    async with in_a_call(tmp_path) as (phone, stored):
        lane = phone.lane
        call_id = lane.record.call_id
        await lane.note(ev.BotSpeaking(at=phone.now(), utterance_id="u", text="Well"))
        assert lane.record.utterance is not None
        assert lane.record.utterance.id == "u"
        assert lane.record.state is CallState.SPEAKING
        assert len(await phone.store.events(call_id)) == stored
        await lane.apply(ev.BotSpoke(at=phone.now(), utterance_id="u", heard="Well", ok=True))
        kinds = [event.type for event in await phone.store.events(call_id)][stored:]
        assert kinds == ["BotSpeaking", "BotSpoke"]
        loaded = await phone.store.load(call_id)
        assert loaded == lane.record


async def test_what_means_nothing_any_more_is_told_to_nobody_and_uses_up_its_key(
    tmp_path: Path,
) -> None:
    async with in_a_call(tmp_path) as (phone, stored):
        told, record = list(phone.watcher.events), phone.record
        assert record.listen_token is not None
        answers_another = {"text": "Yes.", "turn_token": "of another question"}
        await phone.event(ev.SpeechHeard, key="late", **answers_another)
        assert phone.watcher.events == told
        assert phone.record == record
        assert len(await phone.store.events(record.call_id)) == stored
        assert await phone.store.is_processed("late")


async def test_what_was_said_is_stored_once_however_long_the_call_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with in_a_call(tmp_path) as (phone, _):
        before = len(phone.said)
        commit, entries = phone.store.commit, 0

        async def counted(one: Commit) -> None:
            nonlocal entries
            await commit(one)
            if one.record is not None:
                entries += len(one.record.transcript) - one.transcript_from

        monkeypatch.setattr(phone.store, "commit", counted)
        for number in range(5):
            await phone.event(ev.SpeechHeard, text=f"Question {number}?")
            await phone.settle(3)
        assert len(phone.said) == before + 10
        assert entries == 10
        assert await phone.store.load(phone.record.call_id) == phone.record


async def test_only_what_has_no_effect_can_be_noted(tmp_path: Path) -> None:
    async with open_phone(tmp_path, media=NATIVELY) as phone:
        await phone.call_in()
        before = phone.lane.record
        with pytest.raises(ValueError, match="EndRequested cannot be noted"):
            await phone.lane.note(ev.EndRequested(at=phone.now()))
        assert phone.lane.record == before


async def test_what_is_noted_of_a_call_that_is_over_says_nothing(tmp_path: Path) -> None:
    async with in_a_call(tmp_path) as (phone, _):
        lane = phone.lane
        await phone.hang_up()
        over = lane.record
        await lane.note(ev.BotSpeaking(at=phone.now(), utterance_id="u", text="Well"))
        assert lane.record == over


async def test_what_is_stored_is_known_though_nobody_waits_for_it_any_more(
    tmp_path: Path,
) -> None:
    async with in_a_call(tmp_path) as (phone, _):
        lane = phone.lane
        said = ev.CallerSaid(at=phone.now(), text="And then?", context=True)
        with anyio.CancelScope() as impatient:
            impatient.cancel()
            await lane.apply(said)
        await phone.settle(1)
        assert phone.said[-1] == ("user", "And then?")
        assert await phone.store.load(lane.record.call_id) == lane.record
        with anyio.CancelScope() as impatient:
            impatient.cancel()
            await phone.operations.dial(DialOptions(to=CALLEE, message="Hello."))
        await phone.settle(1)
        assert {record.call_id for record in await phone.store.live()} == set(phone.engine.lanes)
        assert len(phone.carrier.dialled) == len(phone.engine.lanes) - 1


def speaking(phone: Phone, utterance: str) -> tuple[ev.BotSpeaking, ev.BotSpoke]:
    now = phone.now()
    return (
        ev.BotSpeaking(at=now, utterance_id=utterance, text="Well"),
        ev.BotSpoke(at=now, utterance_id=utterance, heard="Well", ok=True),
    )


async def test_a_patient_event_waits_for_company_until_the_next_one_of_its_call(
    tmp_path: Path,
) -> None:
    async with in_a_call(tmp_path) as (phone, stored):
        lane = phone.lane
        lane.host.company = Company(lambda: 40)
        began, spoke = speaking(phone, "alone")
        await lane.note(began)
        before = phone.now()
        await lane.apply(spoke, patient=True)
        assert phone.now() - before == 200

        began, spoke = speaking(phone, "hurried")
        await lane.note(began)
        before = phone.now()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: lane.apply(spoke, patient=True))
            await anyio.sleep(0.02)
            assert lane.record.utterance is not None
            await lane.apply(ev.CallerSaid(at=phone.now(), text="And then?", context=True))
        assert phone.now() - before == 20
        began, spoke = speaking(phone, "behind a note")
        await lane.note(began)
        before = phone.now()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: lane.apply(spoke, patient=True))
            await anyio.sleep(0.02)
            again, spoke_again = speaking(phone, "noted")
            await lane.note(again)
        assert phone.now() - before == 20
        await lane.apply(spoke_again)
        began, spoke = speaking(phone, "not alone")
        await lane.note(began)
        before = phone.now()
        async with anyio.create_task_group() as tasks:
            # The last one waits already when the patient one's turn comes.
            for text in ("Go on.", "Please."):
                said = ev.CallerSaid(at=phone.now(), text=text, context=True)
                tasks.start_soon(lane.apply, said)
                if text == "Go on.":
                    tasks.start_soon(lambda: lane.apply(spoke, patient=True))
        assert phone.now() == before
        kinds = [event.type for event in await phone.store.events(lane.record.call_id)][stored:]
        assert kinds == [
            *("BotSpeaking", "BotSpoke"),
            *("BotSpeaking", "BotSpoke", "CallerSaid"),
            *("BotSpeaking", "BotSpoke") * 2,
            *("BotSpeaking", "CallerSaid", "BotSpoke", "CallerSaid"),
        ]
        assert await phone.store.load(lane.record.call_id) == lane.record
