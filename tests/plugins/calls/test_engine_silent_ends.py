"""Calls whose end the carrier reports late: what breaks with them is not taken for the reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest

from voicecall import events as ev
from voicecall import telephony as tel
from voicecall.errors import ProviderUnavailable, RequestRejected
from voicecall.model import EndDetail, EndReason, MediaPath
from voicecall_testing.clock import virtual_backend
from voicecall_testing.fakecarrier import ScriptedCarrier
from voicecall_testing.harness import Phone, open_phone

pytestmark = [pytest.mark.integration, pytest.mark.anyio]


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return virtual_backend


async def greeted(phone: Phone) -> None:
    """A greeted call whose caller hangs up, which no webhook reports."""
    await phone.call_in()
    await phone.settle(3)
    phone.carrier.status_of = tel.CallStatus(ev.CarrierStatus.ENDED, EndReason.COMPLETED)
    over = RequestRejected("the call is over", provider="scripted")
    for action in (tel.AttachStream, tel.Speak, tel.Listen):
        phone.carrier.fail(action, *[over] * 5)


async def test_a_stream_that_breaks_with_its_call_is_not_asked_for_again(tmp_path: Path) -> None:
    async with open_phone(tmp_path) as phone:
        await greeted(phone)
        phone.socket.stop()
        await phone.settle(1)
        assert phone.record.end_reason is EndReason.COMPLETED
        assert phone.record.end_detail is EndDetail.CARRIER
        assert phone.carrier.performed_of(tel.AttachStream, tel.Hangup) == []


async def test_the_carrier_is_asked_again_where_it_gave_no_answer_at_first(tmp_path: Path) -> None:
    class Busy(ScriptedCarrier):
        """At first it does not know the call's status, and is slow to refuse another stream."""

        asked = 0

        async def status(self, call: tel.CallRef) -> tel.CallStatus:
            self.asked += 1
            if self.asked == 1:
                await anyio.sleep(0.6)
                raise ProviderUnavailable("HTTP 503", provider="scripted")
            return await super().status(call)

        async def perform(self, call: tel.CallRef, action: tel.Action) -> None:
            if isinstance(action, tel.AttachStream):
                await anyio.sleep(1)
            await super().perform(call, action)

    async with open_phone(tmp_path, carrier=Busy()) as phone:
        await greeted(phone)
        phone.socket.stop()
        await phone.settle(5)
        assert phone.record.end_reason is EndReason.COMPLETED
        assert phone.record.end_detail is EndDetail.CARRIER


async def test_a_sentence_that_nobody_is_there_to_hear(tmp_path: Path) -> None:
    async with open_phone(tmp_path, media=MediaPath.NATIVE) as phone:
        await greeted(phone)
        await phone.event(ev.SpeechHeard, text="Anybody there?")
        await phone.settle(5)
        assert phone.record.end_reason is EndReason.COMPLETED
        assert phone.record.end_detail is EndDetail.CARRIER
        assert phone.carrier.performed_of(tel.Hangup) == []


async def test_a_first_message_that_comes_too_late(tmp_path: Path) -> None:
    async with open_phone(tmp_path, media=MediaPath.NATIVE) as phone:
        over = RequestRejected("the call is over", provider="scripted")
        phone.carrier.fail(tel.Speak, over, over)
        phone.carrier.status_of = tel.CallStatus(ev.CarrierStatus.ENDED, EndReason.COMPLETED)
        await phone.call_in()
        await phone.settle(5)
        assert phone.record.end_reason is EndReason.COMPLETED
        assert phone.record.end_detail is EndDetail.CARRIER


@pytest.mark.parametrize("reason", [EndReason.COMPLETED, EndReason.BUSY])
async def test_a_placed_call_of_which_no_webhook_came(
    tmp_path: Path, reason: EndReason, caplog: pytest.LogCaptureFixture
) -> None:
    """It was answered, or not, and is over: the carrier knows, a time limit does not."""
    async with open_phone(tmp_path) as phone:
        phone.carrier.status_of = tel.CallStatus(ev.CarrierStatus.ENDED, reason)
        await phone.dial("Hello.")
        await phone.settle(50)
        assert (phone.record.end_reason, phone.record.end_detail) == (reason, EndDetail.CARRIER)
        assert phone.carrier.performed == []
        asked = f"nor an answer; can it reach {phone.carrier.dialled[0].webhook_url}?"
        assert caplog.text.count(asked) == 1


async def test_a_call_whose_answer_was_lost_is_not_hung_up_as_unanswered(tmp_path: Path) -> None:
    async with open_phone(tmp_path, media=MediaPath.NATIVE) as phone:
        await phone.dial("Hello.")
        await phone.event(ev.Ringing)
        await phone.settle(50)
        assert phone.record.live
        assert phone.record.answered_at is not None
        assert phone.carrier.performed_of(tel.Hangup) == []
        assert phone.carrier.performed_of(tel.Speak)
