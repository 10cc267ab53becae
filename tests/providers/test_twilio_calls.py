"""Calls between the Twilio adapter and Twilio's emulator: turn by turn, messages and streams."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from voicecall import events as ev
from voicecall import media
from voicecall import telephony as tel
from voicecall.model import Direction, EndReason
from voicecall_mock.exchange import (
    AnswerMode,
    Behaviour,
    HangUp,
    Interrupt,
    Press,
    Say,
    Silent,
    Wait,
    WaitForSilence,
)
from voicecall_testing.twilio.faults import WebhookFault

from .twilio_desk import CALLER, HERE, PHONE, Desk, open_desk, patient_backend

pytestmark = [pytest.mark.integration, pytest.mark.anyio]


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return patient_backend


def speak(utterance: str, text: str, token: str | None = None) -> tel.Speak:
    return tel.Speak(utterance, text, None, tel.Listen(token) if token else None)


async def ended(desk: Desk, call: tel.CallRef) -> ev.CallEnded:
    assert call.provider_call_id is not None
    await desk.twilio.ended(call.provider_call_id)
    return await desk.event(ev.CallEnded)


# --- turn by turn ----------------------------------------------------------------------------


async def test_an_outbound_conversation() -> None:
    async with open_desk() as desk:
        desk.twilio.set_phone(PHONE, (WaitForSilence(), Say("Yes, please."), Silent()))
        desk.answers[ev.Answered] = lambda _: [speak("u-1", "Tea?", "tok-1")]
        call = await desk.dial()
        heard = await desk.event(ev.SpeechHeard)
        assert (heard.text, heard.turn_token, heard.call_id) == ("Yes, please.", "tok-1", "out-1")
        assert heard.confidence is not None
        await desk.provider.perform(call, speak("u-2", "It comes. Goodbye."))
        await desk.event(ev.PlaybackEnded, 2)
        await desk.provider.perform(call, tel.Hangup())
        end = await ended(desk, call)
        assert end.reason is EndReason.COMPLETED
        assert desk.heard(call) == ["Tea?", "It comes. Goodbye."]
        assert [event.utterance_id for event in desk.all(ev.PlaybackEnded)] == ["u-1", "u-2"]
        kinds = [type(event) for event in desk.events]
        assert kinds[:3] == [ev.Initiated, ev.Ringing, ev.Answered]
        assert all(event.direction is Direction.OUTBOUND for event in desk.events)


async def test_an_inbound_conversation() -> None:
    async with open_desk() as desk:
        desk.answers[ev.Answered] = lambda _: [speak("u-1", "Who is there?", "tok-1")]
        sid = desk.twilio.dial_in(
            CALLER, HERE, (WaitForSilence(), Say("It is me."), Wait(2000), HangUp())
        )
        heard = await desk.event(ev.SpeechHeard)
        assert (heard.text, heard.call_id) == ("It is me.", "in-1")
        answered = desk.all(ev.Answered)
        assert [event.direction for event in answered] == [Direction.INBOUND]
        end = await ended(desk, desk.ref("in-1", sid))
        assert end.reason is EndReason.COMPLETED


async def test_a_silent_caller_is_listened_to_for_ever() -> None:
    async with open_desk() as desk:
        desk.answers[ev.Answered] = lambda _: [speak("u-1", "Who is there?", "tok-1")]
        script = (Wait(48_000), Say("Sorry, I was away."), Wait(2000), HangUp())
        sid = desk.twilio.dial_in(CALLER, HERE, script)
        heard = await desk.event(ev.SpeechHeard)
        assert (heard.text, heard.turn_token) == ("Sorry, I was away.", "tok-1")
        # Each silent round was a sign of life, and no request was like another.
        assert len(desk.all(ev.Active)) >= 4
        assert len(set(desk.keys)) == len(desk.keys)
        keys = [event.key for event in desk.events]
        assert len(set(keys)) == len(keys)
        await ended(desk, desk.ref("in-1", sid))


async def test_speech_cuts_the_prompt_short() -> None:
    async with open_desk() as desk:
        long = " ".join(["word"] * 100)
        desk.answers[ev.Answered] = lambda _: [speak("u-1", long, "tok-1")]
        sid = desk.twilio.dial_in(CALLER, HERE, (Interrupt(500, "Stop."), Silent()))
        await desk.event(ev.SpeechHeard)
        call = desk.ref("in-1", sid)
        assert [event.utterance_id for event in desk.all(ev.PlaybackEnded)] == ["u-1"]
        assert desk.heard(call) == []
        await desk.provider.perform(call, tel.Hangup())


async def test_keys_are_heard_and_the_caller_is_listened_to_still() -> None:
    async with open_desk() as desk:
        desk.answers[ev.Answered] = lambda _: [speak("u-1", "Your number?", "tok-1")]
        script = (WaitForSilence(), Press("42#"), Wait(2000), Say("That is it."), Silent())
        desk.twilio.dial_in(CALLER, HERE, script)
        pressed = await desk.event(ev.DigitsPressed)
        assert (pressed.digits, pressed.turn_token) == ("42#", "tok-1")
        heard = await desk.event(ev.SpeechHeard)
        assert heard.turn_token == "tok-1"


async def test_a_call_that_we_placed_goes_on_where_a_document_was_lost() -> None:
    async with open_desk(noted=(11200,)) as desk:
        script = (WaitForSilence(), Say("Tea."), Wait(4000), Say("Tea, please."), Silent())
        desk.twilio.set_phone(PHONE, script)
        desk.answers[ev.Answered] = lambda _: [speak("u-1", "Tea or coffee?", "tok-1")]
        desk.twilio.faults.webhooks = WebhookFault(lose=1.0, types=frozenset({"gather"}))
        call = await desk.dial()
        await desk.event(ev.Active)
        assert [entry["code"] for entry in desk.entries("error", call)] == [11200]
        desk.twilio.faults.webhooks = WebhookFault()
        heard = await desk.event(ev.SpeechHeard)
        assert (heard.text, heard.turn_token) == ("Tea, please.", "tok-1")
        assert [event.utterance_id for event in desk.all(ev.PlaybackEnded)] == ["u-1"]
        await desk.provider.perform(call, tel.Hangup())


async def test_the_line_is_kept_while_the_agent_thinks() -> None:
    async with open_desk() as desk:
        desk.answers[ev.Answered] = lambda _: [tel.Listen("tok-1")]
        sid = desk.twilio.dial_in(CALLER, HERE, (Say("Think."), Silent()))
        await desk.event(ev.SpeechHeard)
        await anyio.sleep(100)
        call = desk.ref("in-1", sid)
        assert (await desk.provider.status(call)).status is ev.CarrierStatus.CONNECTED
        await desk.provider.perform(call, speak("u-1", "Done."))
        await desk.event(ev.PlaybackEnded)
        assert desk.heard(call) == ["Done."]
        await desk.provider.perform(call, tel.StopListening())
        await desk.provider.perform(call, tel.Hangup())


# --- a message -------------------------------------------------------------------------------


async def test_a_message_in_the_dial_request_is_heard_once() -> None:
    async with open_desk() as desk:
        text = "The bus is late & <slow>. " * 8
        message = speak("u-1", text)
        assert desk.provider.speaks_at_dial(message)
        desk.twilio.set_phone(PHONE, (Silent(),))
        call = await desk.dial(message=message)
        await desk.event(ev.PlaybackEnded)
        await anyio.sleep(35)
        assert desk.heard(call) == [" ".join(text.split())]
        # Told by the status callback and by the end of the message, with one key.
        answered = desk.all(ev.Answered)
        assert len(answered) == 2
        assert len({event.key for event in answered}) == 1
        await desk.provider.perform(call, tel.Hangup())
        await ended(desk, call)
        assert len(desk.entries("dialled")) == 1


async def test_a_message_in_the_dial_request_ends_well_where_word_of_its_end_was_lost() -> None:
    async with open_desk(noted=(11200,)) as desk:
        desk.twilio.faults.webhooks = WebhookFault(lose=1.0, types=frozenset({"redirect"}))
        desk.twilio.set_phone(PHONE, (Silent(),))
        call = await desk.dial(message=speak("u-1", "The bus is late."))
        played = await desk.event(ev.PlaybackEnded)
        desk.twilio.faults.webhooks = WebhookFault()
        assert (played.utterance_id, played.call_id) == ("u-1", "out-1")
        await anyio.sleep(35)
        assert desk.heard(call) == ["The bus is late."]
        await desk.provider.perform(call, tel.Hangup())
        assert (await ended(desk, call)).reason is EndReason.COMPLETED


async def test_a_message_that_is_too_long_is_not_for_the_dial_request() -> None:
    async with open_desk() as desk:
        assert not desk.provider.speaks_at_dial(speak("u-1", "x" * 4000))
        assert not desk.provider.speaks_at_dial(speak("u-1", "&" * 800))
        assert not desk.provider.speaks_at_dial(speak("u-1", "Hello", "tok-1"))


async def test_keys_before_the_conversation() -> None:
    async with open_desk() as desk:
        desk.answers[ev.Answered] = lambda _: [speak("u-1", "Hello.", "tok-1")]
        call = await desk.dial(dtmf_sequence="1,2p#")
        await desk.event(ev.PlaybackEnded)
        assert [entry["digits"] for entry in desk.entries("digits-heard", call)] == ["12#"]
        await desk.provider.perform(call, tel.Hangup())


# --- media streams ---------------------------------------------------------------------------


async def test_a_media_stream_both_ways() -> None:
    async with open_desk() as desk:
        desk.answers[ev.Answered] = lambda _: [tel.AttachStream(desk.attach("t-9"))]
        sid = desk.twilio.dial_in(CALLER, HERE, (Wait(500), Press("7"), Silent()))
        socket = await desk.stream()
        started = await socket.first(media.Started)
        assert (started.token, started.provider_call_id) == ("t-9", sid)
        assert started.parameters == {"token": "t-9"}
        assert started.input_format == started.output_format
        assert len((await socket.first(media.Audio)).payload) == 160
        assert (await socket.first(media.Dtmf)).digits == "7"
        await socket.send(socket.codec.audio(b"\x10" * 800))
        await socket.send(socket.codec.mark("m-1"))
        await socket.first(media.MarkReached)
        await socket.send(socket.codec.audio(b"\x20" * 80_000))
        await socket.send(socket.codec.mark("m-2"))
        await socket.send(socket.codec.clear())
        assert (await socket.first(media.MarkReached, 2)).name == "m-2"
        await desk.provider.perform(desk.ref("in-1", sid), tel.Hangup())
        await socket.first(media.Stopped)
        await socket.gone()


async def test_a_call_survives_its_socket_and_gets_another() -> None:
    async with open_desk() as desk:
        desk.answers[ev.Answered] = lambda _: [tel.AttachStream(desk.attach())]
        sid = desk.twilio.dial_in(CALLER, HERE, (Silent(),))
        call = desk.ref("in-1", sid)
        socket = await desk.stream()
        await socket.first(media.Started)
        await socket.connection.close()
        # Nobody does anything: the call is held.
        await desk.event(ev.Active, 3)
        await desk.provider.perform(call, tel.AttachStream(desk.attach("t-2")))
        again = await desk.stream(2)
        started = await again.first(media.Started)
        assert started.token == "t-2"
        assert started.stream_id != socket.all(media.Started)[0].stream_id
        await desk.provider.perform(call, tel.Hangup())
        await again.gone()


async def test_keys_in_place_of_the_stream() -> None:
    async with open_desk() as desk:
        desk.twilio.set_phone(PHONE, (Silent(),))
        desk.answers[ev.Answered] = lambda _: [tel.AttachStream(desk.attach())]
        call = await desk.dial()
        socket = await desk.stream()
        await socket.first(media.Started)
        await desk.provider.perform(call, tel.PlayDigits("12#", desk.attach("t-2")))
        await socket.gone()
        again = await desk.stream(2)
        assert (await again.first(media.Started)).token == "t-2"
        assert [entry["digits"] for entry in desk.entries("digits-heard", call)] == ["12#"]
        await desk.provider.perform(call, tel.Hangup())
        await again.gone()


async def test_a_stream_that_cannot_be_opened_is_told() -> None:
    async with open_desk() as desk:
        nowhere = tel.StreamRequest("ws://127.0.0.1:9/media", "t-1")
        desk.answers[ev.Answered] = lambda _: [tel.AttachStream(nowhere)]
        sid = desk.twilio.dial_in(CALLER, HERE, (Silent(),))
        failed = await desk.event(ev.StreamFailed)
        assert failed.stream_id is not None
        assert failed.error
        call = desk.ref("in-1", sid)
        await desk.provider.perform(call, tel.AttachStream(desk.attach()))
        await (await desk.stream()).first(media.Started)
        await desk.provider.perform(call, tel.Hangup())


async def test_several_callers_at_once() -> None:
    async with open_desk() as desk:
        desk.answers[ev.Answered] = lambda event: [
            tel.AttachStream(desk.attach(event.provider_call_id))
        ]
        sids = [desk.twilio.dial_in(f"+1555000400{n}", HERE, (Silent(),)) for n in range(3)]
        sockets = [await desk.stream(n + 1) for n in range(3)]
        tokens = {(await socket.first(media.Started)).token for socket in sockets}
        assert tokens == set(sids)
        for sid in sids:
            await desk.provider.perform(desk.ref("in-1", sid), tel.Hangup())
        for socket in sockets:
            await socket.gone()


# --- ends ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (AnswerMode.BUSY, EndReason.BUSY),
        (AnswerMode.REJECT, EndReason.BUSY),
        (AnswerMode.NO_ANSWER, EndReason.NO_ANSWER),
        (AnswerMode.UNREACHABLE, EndReason.FAILED),
    ],
)
async def test_calls_that_nobody_answers(answer: AnswerMode, reason: EndReason) -> None:
    async with open_desk() as desk:
        desk.twilio.set_phone(PHONE, Behaviour(answer=answer))
        call = await desk.dial()
        assert (await ended(desk, call)).reason is reason
        status = await desk.provider.status(call)
        assert status == tel.CallStatus(ev.CarrierStatus.ENDED, reason)
        assert desk.all(ev.Answered) == []


@pytest.mark.parametrize("busy", [True, False])
async def test_an_inbound_call_is_refused(busy: bool) -> None:
    async with open_desk() as desk:
        desk.answers[ev.Answered] = lambda _: [tel.Reject(busy=busy)]
        sid = desk.twilio.dial_in(CALLER, HERE)
        over = await ended(desk, desk.ref("in-1", sid))
        assert over.reason is (EndReason.BUSY if busy else EndReason.NO_ANSWER)
        assert desk.entries("answered") == []


async def test_an_inbound_call_is_refused_with_words() -> None:
    async with open_desk() as desk:
        desk.answers[ev.Answered] = lambda _: [tel.Reject("Your code is 1, 2, 3.")]
        call = desk.ref("in-1", desk.twilio.dial_in(CALLER, HERE))
        await ended(desk, call)
        assert desk.heard(call) == ["Your code is 1, 2, 3."]


@pytest.mark.parametrize(("asked", "rung"), [(20, 20), (601, 600)])
async def test_a_phone_rings_as_long_as_it_is_told_or_as_twilio_allows(
    asked: int, rung: int
) -> None:
    async with open_desk(second_s=0.05) as desk:
        desk.twilio.set_phone(PHONE, Behaviour(answer=AnswerMode.NO_ANSWER))
        call = await desk.dial(ring_timeout_s=asked)
        await desk.event(ev.Ringing)
        began = desk.twilio.seam.monotonic()
        assert (await ended(desk, call)).reason is EndReason.NO_ANSWER
        assert desk.twilio.seam.monotonic() - began == pytest.approx(rung / 20, abs=1)


async def test_the_carrier_ends_calls_at_their_limit() -> None:
    async with open_desk() as desk:
        desk.twilio.set_phone(PHONE, (Silent(),))
        desk.answers[ev.Answered] = lambda _: [tel.Listen("tok-1")]
        call = await desk.dial(time_limit_s=20)
        assert (await ended(desk, call)).reason is EndReason.TIMEOUT


@pytest.mark.parametrize(("asked", "taken"), [(20, "60"), (14_400, "14400"), (10**6, "14400")])
async def test_the_limit_is_one_that_the_account_takes(asked: int, taken: str) -> None:
    async with open_desk() as desk:
        desk.twilio.set_phone(PHONE, (HangUp(),))
        desk.answers[ev.Answered] = lambda _: [tel.Listen("tok-1")]
        call = await desk.dial(time_limit_s=asked)
        await ended(desk, call)
        plans = [placed.plan for placed in desk.twilio.calls.values()]
        assert [str(plan.time_limit) for plan in plans] == [taken]


async def test_a_limit_that_the_account_does_not_take_is_left_out() -> None:
    async with open_desk(longest_call_s=600, second_s=0.01) as desk:
        desk.answers[ev.Answered] = lambda _: [
            tel.LimitDuration(630),
            tel.AttachStream(desk.attach()),
        ]
        sid = desk.twilio.dial_in(CALLER, HERE, (Silent(),))
        end = await ended(desk, desk.ref("in-1", sid))
        assert end.reason is EndReason.COMPLETED
        (entry,) = desk.entries("ended")
        assert entry["duration"] == pytest.approx(600, abs=2)


async def test_an_inbound_call_gets_a_limit_by_command() -> None:
    async with open_desk(second_s=0.1) as desk:
        # Nobody entered a status callback for the number.
        desk.twilio.set_voice_url(desk.url)
        desk.answers[ev.Answered] = lambda _: [
            tel.LimitDuration(8),
            tel.AttachStream(desk.attach()),
        ]
        sid = desk.twilio.dial_in(CALLER, HERE, (Silent(),))
        end = await ended(desk, desk.ref("in-1", sid))
        assert end.reason is EndReason.TIMEOUT
        assert end.call_id == "in-1"


async def test_a_webhook_that_failed_is_delivered_again() -> None:
    async with open_desk() as desk:
        desk.statuses = [500, 503, 200]
        desk.answers[ev.Answered] = lambda _: [speak("u-1", "Hello.")]
        call = desk.ref("in-1", desk.twilio.dial_in(CALLER, HERE, (Silent(),)))
        await desk.event(ev.PlaybackEnded)
        assert desk.heard(call) == ["Hello."]
        await desk.provider.perform(call, tel.Hangup())


async def test_a_first_document_that_failed_is_requested_again() -> None:
    async with open_desk() as desk:
        desk.twilio.set_phone(PHONE, Behaviour(script=(Silent(),), after_ms=600))
        desk.answers[ev.Answered] = lambda _: [speak("u-1", "Hello.")]
        call = await desk.dial()
        await desk.event(ev.Ringing)
        desk.statuses = [500, 503, 500]
        await desk.event(ev.PlaybackEnded)
        assert desk.heard(call) == ["Hello."]
        await desk.provider.perform(call, tel.Hangup())
