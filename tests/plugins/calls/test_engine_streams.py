"""Media sockets of a call: admission by token, loss and return, replacement."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import anyio
import pytest

from voicecall import events as ev
from voicecall import telephony as tel
from voicecall.errors import CallNotReady, ProviderUnavailable
from voicecall.model import Direction, EndDetail, EndReason, MediaPath
from voicecall_calls.doors import AdmissionRefused
from voicecall_testing.clock import virtual_backend
from voicecall_testing.fakes import NATIVE, STREAMING, ScriptedCarrier
from voicecall_testing.harness import Phone, open_phone

pytestmark = [pytest.mark.integration, pytest.mark.anyio]

GREETING = "Hello! How can I help you today?"
MUTE_CARRIER = replace(STREAMING, native_speech=False, native_listening=False)
"""One without a voice for last words."""


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return virtual_backend


def asked(phone: Phone) -> list[str]:
    """The tokens of all streams that the carrier was asked for."""
    return [
        action.stream.token
        for action in phone.carrier.performed
        if isinstance(action, tel.Answer | tel.AttachStream) and action.stream is not None
    ]


async def test_a_token_admits_one_socket_once(tmp_path: Path) -> None:
    async with open_phone(tmp_path) as phone:
        await phone.call_in()
        (token,) = asked(phone)
        assert len(phone.sockets) == 1
        for wrong in (token, "guessed", ""):
            with pytest.raises(AdmissionRefused) as refusal:
                await phone.attach(wrong)
            assert refusal.value.code == 1008
        assert phone.record.stream_id == phone.socket.stream_id


async def test_a_token_of_another_call_is_refused(tmp_path: Path) -> None:
    async with open_phone(tmp_path) as phone:
        phone.opens_streams = False
        await phone.call_in()
        with pytest.raises(AdmissionRefused, match="Unknown call"):
            await phone.attach(asked(phone)[0], call="carrier-7")


async def test_a_token_of_a_call_that_is_over_is_refused(tmp_path: Path) -> None:
    async with open_phone(tmp_path) as phone:
        phone.opens_streams = False
        await phone.call_in()
        await phone.hang_up()
        with pytest.raises(AdmissionRefused):
            await phone.attach(asked(phone)[0])


async def test_a_call_without_media_streams_takes_no_socket(tmp_path: Path) -> None:
    async with open_phone(tmp_path, media=MediaPath.NATIVE) as phone:
        await phone.call_in()
        await phone.engine.issue_tokens(phone.record, ["token"])
        with pytest.raises(AdmissionRefused, match="no media stream"):
            await phone.attach("token")


async def test_a_stream_that_never_comes_ends_the_call(tmp_path: Path) -> None:
    async with open_phone(tmp_path, carrier=ScriptedCarrier(MUTE_CARRIER)) as phone:
        phone.opens_streams = False
        await phone.call_in()
        await phone.settle(9)
        assert phone.record.live
        await phone.settle(3)
        assert phone.record.end_detail is EndDetail.STREAM_NEVER_STARTED


async def test_a_stream_that_the_carrier_cannot_open_is_asked_for_less_and_less_often(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A proxy passes no WebSockets on, which the carrier reports at once each time."""
    asked: list[int] = []
    async with open_phone(tmp_path, carrier=ScriptedCarrier(MUTE_CARRIER)) as phone:

        def fails(call: tel.CallRef | None, action: tel.Action) -> None:
            if isinstance(action, tel.AttachStream):
                asked.append(phone.now())
                phone.tasks.start_soon(phone.event, ev.StreamFailed)

        phone.opens_streams = False
        phone.carrier.acted = fails
        await phone.call_in()
        await phone.event(ev.StreamFailed)
        await phone.settle(12)
        assert phone.record.end_detail is EndDetail.STREAM_NEVER_STARTED
        pauses = [after - before for before, after in pairwise(asked)]
        assert pauses[:3] == pytest.approx([300, 600, 1200], abs=50)
        assert len(asked) < 12
        assert "no media socket came to wss://phone.test/voice/stream" in caplog.text


async def test_a_stream_that_is_lost_long_behind_another_is_asked_for_at_once(
    tmp_path: Path,
) -> None:
    async with open_phone(tmp_path) as phone:
        await phone.call_in()
        for count in range(1, 6):
            await phone.settle(11)
            phone.socket.drop()
            await phone.settle(0.3)
            assert len(phone.sockets) == count + 1


async def test_a_lost_stream_is_asked_for_again_and_nothing_is_lost(tmp_path: Path) -> None:
    async with open_phone(tmp_path) as phone:
        await phone.call_in()
        await phone.settle(0.5)
        phone.socket.drop()
        await phone.settle(5)
        assert len(phone.sockets) == 2
        assert len(set(asked(phone))) == 2
        assert phone.record.live
        first, second = (
            sum(ms for _, ms in phone.tts.texts_in(bytes(socket.heard))) for socket in phone.sockets
        )
        # Nothing is skipped, and no more is heard twice than was on its way without a mark.
        total = phone.tts.duration_s(GREETING) * 1000
        assert total - 1 <= first + second <= total + 300
        assert phone.said == [("bot", GREETING)]


async def test_a_lost_stream_is_not_asked_for_where_another_came_meanwhile(
    tmp_path: Path,
) -> None:
    async with open_phone(tmp_path) as phone:
        await phone.call_in()
        await phone.settle(0.5)
        on_its_way = await phone.lane.new_stream()
        phone.socket.drop()
        await phone.settle(0.1)
        assert phone.record.stream_id is None
        await phone.attach(on_its_way.token)
        await phone.settle(5)
        assert len(phone.sockets) == 2
        assert phone.socket.close_code is None
        assert phone.carrier.performed_of(tel.AttachStream) == []


async def test_a_stream_that_broke_unnoticed_is_known_from_the_carrier(tmp_path: Path) -> None:
    async with open_phone(tmp_path) as phone:
        await phone.call_in()
        await phone.settle(0.5)
        broken = phone.socket
        await phone.event(ev.StreamStopped, stream_id=broken.stream_id)
        await phone.settle(5)
        assert len(phone.sockets) == 2
        assert (broken.close_code, broken.close_reason) == (1000, "Replaced")
        assert phone.record.stream_id == phone.socket.stream_id
        # The report of the old stream's end may come again.
        await phone.event(ev.StreamStopped, stream_id=broken.stream_id)
        await phone.settle(5)
        assert len(phone.sockets) == 2
        assert phone.record.live
        assert phone.said == [("bot", GREETING)]


@pytest.mark.parametrize("late_s", [3, 12])
async def test_the_loss_of_a_stream_that_is_told_late_ends_no_call(
    tmp_path: Path, late_s: int
) -> None:
    async with open_phone(tmp_path) as phone:
        await phone.call_in()
        await phone.settle(15)
        broken = phone.socket.stream_id
        await phone.event(ev.StreamFailed, stream_id=broken, at=phone.now() - late_s * 1000)
        await phone.settle(5)
        assert phone.record.live
        assert len(phone.sockets) == 2


@pytest.mark.parametrize("late_s", [12, 70])
async def test_an_answer_that_is_told_late_leaves_the_stream_its_time(
    tmp_path: Path, late_s: int
) -> None:
    config = {"ringTimeoutMs": 100_000}
    async with open_phone(tmp_path, config=config) as phone:
        phone.carrier.status_of = tel.CallStatus(ev.CarrierStatus.LIVE)
        await phone.dial("Hello.")
        await phone.settle(late_s)
        await phone.event(ev.Answered, at=phone.now() - late_s * 1000)
        await phone.settle(5)
        assert phone.record.live
        assert phone.heard == ["Hello."]


async def test_a_call_that_is_told_late_and_answered_by_the_reply_gets_its_stream(
    tmp_path: Path,
) -> None:
    carrier = ScriptedCarrier(replace(STREAMING, explicit_answer=False))
    async with open_phone(tmp_path, carrier=carrier) as phone:
        began = phone.now()
        await phone.settle(30)
        await phone.event(ev.Answered, direction=Direction.INBOUND, at=began)
        await phone.settle(5)
        assert phone.record.live
        assert phone.record.started_at == began
        assert phone.heard == [GREETING]


async def test_a_stream_that_stays_away_ends_the_call_after_the_grace(tmp_path: Path) -> None:
    async with open_phone(tmp_path, carrier=ScriptedCarrier(MUTE_CARRIER)) as phone:
        await phone.call_in()
        await phone.settle(3)
        phone.opens_streams = False
        phone.socket.drop()
        await phone.settle(1.9)
        assert phone.record.live
        await phone.settle(0.3)
        assert phone.record.end_reason is EndReason.HANGUP_BOT
        assert phone.record.end_detail is EndDetail.STREAM_LOST


async def test_a_carrier_that_cannot_open_it_again_has_the_same_grace(tmp_path: Path) -> None:
    async with open_phone(tmp_path, carrier=ScriptedCarrier(MUTE_CARRIER)) as phone:
        await phone.call_in()
        await phone.settle(3)
        error = ProviderUnavailable("no way there", provider="scripted")
        phone.carrier.fail(tel.AttachStream, error, error, error)
        phone.socket.stop()
        await phone.settle(2.5)
        assert phone.record.end_detail is EndDetail.STREAM_LOST


async def test_a_stream_that_is_refused_is_asked_for_again_less_and_less_often(
    tmp_path: Path,
) -> None:
    asked: list[int] = []

    class Clocked(ScriptedCarrier):
        async def perform(self, call: tel.CallRef, action: tel.Action) -> None:
            if isinstance(action, tel.AttachStream):
                asked.append(phone.now())
            await super().perform(call, action)

    carrier = Clocked()
    async with open_phone(tmp_path, carrier=carrier) as phone:
        await phone.call_in()
        await phone.settle(3)
        error = ProviderUnavailable("no way there", provider="scripted")
        carrier.fail(tel.AttachStream, error, error)
        lost = phone.now()
        phone.socket.stop()
        await phone.settle(2.5)
        assert phone.record.live
        first, second, third = asked
        assert first - lost >= 150
        assert (second - first, third - second) == (300, 600)


async def test_a_stream_that_came_though_its_request_failed_is_not_asked_for_again(
    tmp_path: Path,
) -> None:
    class Answerless(ScriptedCarrier):
        async def perform(self, call: tel.CallRef, action: tel.Action) -> None:
            await super().perform(call, action)
            if isinstance(action, tel.AttachStream):
                await anyio.sleep(5)
                raise ProviderUnavailable("no answer", provider="scripted")

    async with open_phone(tmp_path, carrier=Answerless()) as phone:
        await phone.call_in()
        await phone.settle(3)
        phone.socket.drop()
        await phone.settle(30)
        # Another stream would replace the one that is up, and has no token.
        assert len(phone.carrier.performed_of(tel.AttachStream)) == 1
        assert phone.record.stream_id == phone.socket.stream_id


async def test_a_call_that_is_being_ended_is_given_no_other_stream(tmp_path: Path) -> None:
    async with open_phone(tmp_path) as phone:
        await phone.call_in()
        await phone.settle(3)
        phone.carrier.delay_s = 2.0
        phone.socket.drop()
        await phone.settle(0.05)
        await phone.lane.apply(ev.EndRequested(at=phone.now()))
        await phone.settle(10)
        assert phone.record.end_detail is EndDetail.REQUESTED
        assert phone.carrier.performed_of(tel.AttachStream) == []


async def test_the_newest_socket_wins_and_the_older_ones_end_means_nothing(
    tmp_path: Path,
) -> None:
    async with open_phone(tmp_path) as phone:
        await phone.call_in()
        await phone.settle(3)
        await phone.engine.issue_tokens(phone.record, ["another"])
        await phone.attach("another")
        old, new = phone.sockets
        assert (old.close_code, old.close_reason) == (1000, "Replaced")
        assert phone.record.stream_id == new.stream_id
        await phone.settle(5)
        assert phone.record.live
        assert phone.record.stream_id == new.stream_id
        # Only the new one speaks and is heard.
        phone.hears("Hello?")
        await phone.settle(2)
        assert [text for text, _ in phone.tts.texts_in(bytes(new.heard))] == ["Yes."]
        listeners = [socket.listener for socket in phone.sockets]
        assert None not in listeners
        await old.speak(b"\x01" * 160)
        await new.speak(b"\x02" * 160)
        assert bytes(phone.stt.current.audio) == b"\x02" * 160


async def test_the_recogniser_outlives_the_socket(tmp_path: Path) -> None:
    async with open_phone(tmp_path) as phone:
        await phone.call_in()
        await phone.settle(3)
        phone.socket.drop()
        await phone.settle(1)
        phone.hears("Hello?")
        await phone.settle(2)
        assert len(phone.stt.sessions) == 1
        assert phone.heard[-1] == "Yes."


async def test_a_restart_finds_the_call_and_goes_on(tmp_path: Path) -> None:
    async with open_phone(tmp_path) as phone:
        await phone.call_in()
        await phone.settle(3)
        phone.hears("Hello?")
        await phone.settle(3)
        call_id = phone.record.call_id
    async with open_phone(tmp_path, seed=1) as phone:
        await phone.settle(5)
        assert phone.record.call_id == call_id
        assert phone.heard == ["Sorry, I lost you for a moment. Please go on."]
        phone.hears("As I said.")
        await phone.settle(3)
        assert phone.said[-2:] == [("user", "As I said."), ("bot", "Yes.")]
        # Of what was said before, only that is new to it.
        assert phone.agent.turns[0].opening == (phone.heard[0],)


async def test_a_stop_as_words_begin_leaves_the_call_to_the_next_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_phone(tmp_path) as phone:
        await phone.call_in()
        await phone.settle(3)
        phone.store.delay_s = 1.0
        phone.hears("Hello?")
        while phone.said[-1] != ("user", "Hello?"):
            await phone.settle(0.1)
        # The answer is being stored.
        await phone.settle(0.5)
    assert "a task failed" not in caplog.text
    async with open_phone(tmp_path, seed=1) as phone:
        await phone.settle(5)
        assert phone.record.ending is None
        assert phone.heard == ["Sorry, I lost you for a moment. Please go on."]


async def test_after_a_restart_every_caller_is_told_of_it_even_in_a_flood_of_calls(
    tmp_path: Path,
) -> None:
    """Voice models of new calls may wait for their sockets then; these calls were connected."""
    calls, media = 33, MediaPath.REALTIME
    config = {"maxConcurrentInboundCalls": calls}
    carrier = ScriptedCarrier(STREAMING)
    async with open_phone(tmp_path, media=media, carrier=carrier, config=config) as phone:
        for number in range(calls):
            id_ = f"carrier-{number}"
            await phone.event(ev.Initiated, direction=Direction.INBOUND, provider_call_id=id_)
        await phone.settle(3)
    carrier = ScriptedCarrier(STREAMING)
    async with open_phone(tmp_path, media=media, carrier=carrier, seed=1) as phone:
        await phone.settle(5)
        records = [lane.record for lane in phone.engine.lanes.values()]
        said = [[entry.text for entry in record.transcript] for record in records]
        assert said == [[GREETING, "Sorry, I lost you for a moment. Please go on."]] * calls


async def test_in_a_flood_of_calls_recognisers_do_not_wait_for_the_sockets(tmp_path: Path) -> None:
    calls = 33
    async with open_phone(tmp_path, config={"maxConcurrentInboundCalls": calls}) as phone:
        phone.opens_streams = False
        for number in range(calls):
            id_ = f"carrier-{number}"
            await phone.event(ev.Answered, direction=Direction.INBOUND, provider_call_id=id_)
        assert len(phone.stt.sessions) == calls


@pytest.mark.parametrize("told", ["by the carrier's answer", "by a webhook"])
async def test_a_restart_while_the_call_is_answered_asks_for_a_stream_of_its_own(
    tmp_path: Path, told: str
) -> None:
    """The token that was sent with the answer is void."""
    async with open_phone(tmp_path) as phone:
        phone.opens_streams = False
        await phone.event(
            ev.Initiated,
            direction=Direction.INBOUND,
            provider_call_id="carrier-1",
            from_number="+15550002222",
        )
        assert phone.carrier.performed_of(tel.Answer)
    carrier = ScriptedCarrier()
    if told == "by a webhook":
        carrier.status_errors.append(ProviderUnavailable("no way there", provider="scripted"))
    async with open_phone(tmp_path, seed=1, carrier=carrier) as phone:
        if told == "by a webhook":
            await phone.event(ev.Answered, key="after the restart")
        await phone.settle(12)
        assert phone.record.live
        assert phone.heard == [GREETING]


@pytest.mark.parametrize("media", [MediaPath.STREAM, MediaPath.NATIVE])
async def test_a_restart_before_a_call_without_greeting_is_answered_begins_one_conversation(
    tmp_path: Path, media: MediaPath
) -> None:
    """Its webhook comes before the carrier's status: no caller was lost."""
    async with open_phone(tmp_path, media=media) as phone:
        await phone.dial()
    carrier = ScriptedCarrier(NATIVE if media is MediaPath.NATIVE else STREAMING)
    carrier.status_errors.append(ProviderUnavailable("no way there", provider="scripted"))
    async with open_phone(tmp_path, media=media, seed=1, carrier=carrier) as phone:
        await phone.answer()
        begun = phone.lane.conversation
        await phone.settle(15)
        assert not phone.record.recovering
        assert phone.lane.conversation is begun
        assert phone.said == []


async def test_keypad_tones_in_place_of_the_stream_leave_the_conversation_alone(
    tmp_path: Path,
) -> None:
    async with open_phone(tmp_path) as phone:
        phone.takes_tones = False
        await phone.call_in()
        await phone.settle(0.5)
        phone.tasks.start_soon(phone.operations.dtmf, phone.record.call_id, "12#")
        await phone.settle(0.3)
        assert asked(phone) == [asked(phone)[0]]
        (tones,) = phone.carrier.performed_of(tel.PlayDigits)
        assert isinstance(tones, tel.PlayDigits)
        assert tones.stream is not None
        assert tones.stream.token not in asked(phone)
        meanwhile = phone.record.stream_id
        assert meanwhile is None
        await phone.settle(6)
        assert len(phone.sockets) == 2
        assert phone.record.stream_id == phone.socket.stream_id
        # No third stream was requested, and the greeting went on after the tones.
        assert phone.carrier.performed_of(tel.AttachStream) == []
        assert phone.said == [("bot", GREETING)]
        phone.hears("Hello?")
        await phone.settle(5)
        assert phone.said[1] == ("user", "Hello?")
        assert phone.said[2][0] == "bot"


async def test_tones_that_the_carrier_refuses_leave_the_stream_as_it_was(tmp_path: Path) -> None:
    async with open_phone(tmp_path) as phone:
        phone.takes_tones = False
        await phone.call_in()
        await phone.settle(3)
        before = phone.record.stream_id
        phone.carrier.fail(tel.PlayDigits, ProviderUnavailable("no way there", provider="scripted"))
        with pytest.raises(ProviderUnavailable):
            await phone.operations.dtmf(phone.record.call_id, "1")
        assert phone.record.stream_id == before
        await phone.settle(20)
        assert phone.record.live
        assert len(phone.sockets) == 1


async def test_a_stream_that_does_not_come_back_behind_tones_ends_the_call(
    tmp_path: Path,
) -> None:
    async with open_phone(tmp_path, carrier=ScriptedCarrier(MUTE_CARRIER)) as phone:
        phone.takes_tones = False
        await phone.call_in()
        await phone.settle(3)
        phone.opens_streams = False
        phone.tasks.start_soon(phone.operations.dtmf, phone.record.call_id, "1")
        await phone.settle(9)
        assert phone.record.live
        await phone.settle(3)
        assert phone.record.end_detail is EndDetail.STREAM_LOST


async def test_tones_on_a_call_that_ends_meanwhile(tmp_path: Path) -> None:
    async with open_phone(tmp_path) as phone:
        phone.takes_tones = False
        await phone.call_in()
        await phone.settle(3)
        call_id, began = phone.record.call_id, phone.seam.monotonic()
        async with anyio.create_task_group() as tasks:

            async def play() -> None:
                with pytest.raises(CallNotReady, match="ended meanwhile"):
                    await phone.operations.dtmf(call_id, "1" + "w" * 20)

            tasks.start_soon(play)
            await phone.settle(1)
            await phone.hang_up()
        assert phone.seam.monotonic() - began < 2


async def test_tones_wait_for_a_stream_that_is_on_its_way(tmp_path: Path) -> None:
    async with open_phone(tmp_path) as phone:
        phone.takes_tones = False
        await phone.call_in()
        await phone.settle(3)
        phone.opens_streams = False
        phone.socket.drop()
        await phone.settle(0.5)
        with pytest.raises(CallNotReady, match="not connected"):
            await phone.operations.dtmf(phone.record.call_id, "1")
        assert phone.carrier.performed_of(tel.PlayDigits) == []
