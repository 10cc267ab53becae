"""Adapters whose requests never return: the call and the gateway go on without them."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import anyio
import pytest

from voicecall import events as ev
from voicecall import telephony as tel
from voicecall.errors import OutcomeUnknown, ProviderUnavailable
from voicecall.model import CallMode, EndDetail, EndReason, MediaPath
from voicecall_testing.clock import virtual_backend
from voicecall_testing.fakes import NATIVE, STREAMING, ScriptedCarrier
from voicecall_testing.harness import Phone, open_phone

pytestmark = [pytest.mark.integration, pytest.mark.anyio]

FOR_EVER_S = 1e6
NO_ANSWER = "the adapter did not return within 60 s"


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return virtual_backend


class Hanging(ScriptedCarrier):
    """Hangs in the methods and actions of ``hangs``; if ``stubborn``, even when cancelled."""

    hangs: Collection[str | type[tel.Action]] = ()
    stubborn = False

    async def _hang(self, what: str | type[tel.Action]) -> None:
        if what in self.hangs:
            with anyio.CancelScope(shield=self.stubborn):
                await anyio.sleep(FOR_EVER_S)

    async def place_call(self, request: tel.DialRequest) -> str:
        placed = await super().place_call(request)
        await self._hang("place_call")
        return placed

    async def find_dial(self, query: tel.DialQuery) -> str | None:
        await self._hang("find_dial")
        return await super().find_dial(query)

    async def perform(self, call: tel.CallRef, action: tel.Action) -> None:
        await self._hang(type(action))
        await super().perform(call, action)

    async def status(self, call: tel.CallRef) -> tel.CallStatus:
        await self._hang("status")
        return await super().status(call)


async def deaf(phone: Phone) -> None:
    """A call on which the carrier cannot listen any more."""
    await phone.call_in()
    await phone.settle(5)
    trouble = [ProviderUnavailable("no way there", provider="scripted") for _ in range(9)]
    phone.carrier.fail(tel.Speak, *trouble)
    phone.carrier.fail(tel.Listen, *trouble)
    await phone.event(ev.SpeechHeard, text="Hello?", turn_token=phone.record.listen_token)


async def test_a_failure_counts_although_the_carrier_does_not_say_whether_the_call_is_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    carrier = Hanging(NATIVE)
    config = {"maxDurationSeconds": 3600}
    async with open_phone(
        tmp_path, carrier=carrier, media=MediaPath.NATIVE, config=config
    ) as phone:
        carrier.hangs = ["status"]
        await deaf(phone)
        await phone.settle(600)
        assert phone.record.end_reason is EndReason.ERROR
        assert f"status request failed: carrier: {NO_ANSWER}" in caplog.text


@pytest.mark.parametrize("stubborn", [False, True])
async def test_words_that_the_carrier_does_not_take_in_time_are_said_again(
    tmp_path: Path, stubborn: bool
) -> None:
    carrier = Hanging(NATIVE)
    config = {"maxDurationSeconds": 3600}
    async with open_phone(
        tmp_path, carrier=carrier, media=MediaPath.NATIVE, config=config
    ) as phone:
        await phone.call_in()
        await phone.settle(5)
        carrier.hangs, carrier.stubborn = [tel.Speak], stubborn
        with pytest.raises(ProviderUnavailable, match=NO_ANSWER):
            await phone.operations.speak(phone.record.call_id, "One moment.")
        carrier.hangs = []
        await phone.operations.speak(phone.record.call_id, "Here I am.")
        assert phone.said[-1] == ("bot", "Here I am.")


@pytest.mark.parametrize("hangs", [[], ["status"]])
@pytest.mark.parametrize("stubborn", [False, True])
async def test_a_hang_up_that_hangs_ends_all_the_same(
    tmp_path: Path, hangs: list[str], stubborn: bool
) -> None:
    carrier = Hanging()
    carrier.hangs, carrier.stubborn = [*hangs, tel.Hangup], stubborn
    async with open_phone(tmp_path, carrier=carrier) as phone:
        await phone.call_in()
        await phone.settle(3)
        await phone.lane.apply(ev.EndRequested(at=phone.now()))
        await phone.settle(120)
        assert phone.record.end_detail is EndDetail.HANGUP_FAILED


async def test_a_dial_request_that_hangs_is_never_sent_again(tmp_path: Path) -> None:
    carrier = Hanging()
    carrier.hangs = ["place_call", "find_dial"]
    async with open_phone(tmp_path, carrier=carrier) as phone:
        await phone.dial("Hello.")
        await phone.settle(600)
        assert phone.record.end_detail is EndDetail.DIAL_UNKNOWN
        assert len(carrier.dialled) == 1
        # The phone rings all the same.
        await phone.event(ev.Ringing, call_id=phone.record.call_id)
        assert carrier.performed == [tel.Hangup()]


@pytest.mark.parametrize("stubborn", [False, True])
async def test_a_call_whose_dial_request_hangs_is_looked_up_and_goes_on(
    tmp_path: Path, stubborn: bool
) -> None:
    carrier = Hanging()
    carrier.hangs, carrier.stubborn = ["place_call"], stubborn
    carrier.status_of = tel.CallStatus(ev.CarrierStatus.LIVE)
    async with open_phone(tmp_path, carrier=carrier) as phone:
        await phone.dial("Hello.")
        await phone.settle(29)
        assert phone.record.provider_call_id == "carrier-1"
        # A request that has not left by now must not: it would place a second call.
        assert not carrier.dialled[0].wanted()
        await phone.answer()
        await phone.settle(5)
        assert phone.heard == ["Hello."]


async def test_a_look_up_behind_a_slow_dial_request_has_its_own_time(tmp_path: Path) -> None:
    class Slow(ScriptedCarrier):
        async def place_call(self, request: tel.DialRequest) -> str:
            await super().place_call(request)
            await anyio.sleep(24)
            raise OutcomeUnknown("no reply", provider="scripted")

        async def find_dial(self, query: tel.DialQuery) -> str | None:
            await anyio.sleep(20)
            return await super().find_dial(query)

    async with open_phone(tmp_path, carrier=Slow()) as phone:
        phone.carrier.status_of = tel.CallStatus(ev.CarrierStatus.LIVE)
        await phone.dial("Hello.")
        await phone.settle(45)
        assert phone.record.live
        assert phone.record.provider_call_id == "carrier-1"
        assert phone.carrier.performed == []


@pytest.mark.parametrize(
    ("media", "hangs"),
    [
        (MediaPath.NATIVE, tel.Speak),
        (MediaPath.NATIVE, tel.Hangup),
        (MediaPath.STREAM, tel.Answer),
        (MediaPath.STREAM, "place_call"),
    ],
)
@pytest.mark.parametrize("stubborn", [False, True])
async def test_a_request_that_hangs_holds_up_no_stop_for_ever(
    tmp_path: Path, media: MediaPath, hangs: str | type[tel.Action], stubborn: bool
) -> None:
    carrier = Hanging(NATIVE if media is MediaPath.NATIVE else STREAMING)
    carrier.hangs, carrier.stubborn = [hangs], stubborn
    async with open_phone(tmp_path, carrier=carrier, media=media) as phone:
        await phone.call_in(provider_call_id="carrier-9")
        await phone.dial("Hello.", CallMode.CONVERSATION)
        for lane in list(phone.engine.lanes.values()):
            await lane.end(EndReason.HANGUP_BOT, EndDetail.REQUESTED)
        await phone.settle(1)
        before = phone.now()
    assert phone.now() - before < 70_000


async def test_an_adapter_that_wants_to_exit_stops_no_gateway(tmp_path: Path) -> None:
    class Exiting(ScriptedCarrier):
        async def place_call(self, request: tel.DialRequest) -> str:
            await super().place_call(request)
            raise SystemExit(2)

    async with open_phone(tmp_path, carrier=Exiting()) as phone:
        await phone.dial("Hello.")
        await phone.settle(1)
        # It is looked up.
        assert phone.record.aliases
