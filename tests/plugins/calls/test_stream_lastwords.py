"""A streamed call whose voice has failed: the carrier's own voice says the last words."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest

from voicecall import telephony as tel
from voicecall.audio import AudioFormat
from voicecall.errors import ProviderUnavailable, VoicecallError
from voicecall.media import AudioSink
from voicecall.model import CallMode, EndDetail, EndReason, MediaPath, MessageState
from voicecall.tts import SpeechProvider, SpeechSession, Utterance
from voicecall_calls.config import PhrasesConfig
from voicecall_testing.clock import virtual_backend
from voicecall_testing.fakes import STREAMING, ScriptedCarrier
from voicecall_testing.harness import Phone, open_phone

pytestmark = [pytest.mark.integration, pytest.mark.anyio]

SAY = PhrasesConfig()
MUTE_CARRIER = replace(STREAMING, native_speech=False, native_listening=False)
DOWN = ProviderUnavailable("down", provider="scripted")


class _NoSession(SpeechSession):
    def utterance(self, item_id: str, sink: AudioSink) -> Utterance:
        raise AssertionError("nobody opened this session")


class LockedSpeech(SpeechProvider):
    """A synthesis that nobody can reach."""

    error: ProviderUnavailable | None = DOWN

    @asynccontextmanager
    async def session(
        self, voice: str | None, audio_format: AudioFormat
    ) -> AsyncIterator[SpeechSession]:
        if self.error is not None:
            raise self.error
        yield _NoSession()


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return virtual_backend


async def greeted(phone: Phone) -> None:
    await phone.call_in()
    await phone.settle(3)


def spoken(phone: Phone) -> list[str]:
    """What the carrier was asked to speak."""
    texts = []
    for action in phone.carrier.performed_of(tel.Speak):
        assert isinstance(action, tel.Speak)
        # The carrier does not listen after the last words, and the voice is its own.
        assert (action.listen, action.voice) == (None, None)
        texts.append(action.text)
    return texts


async def _speak(phone: Phone, text: str, problems: list[str]) -> None:
    try:
        await phone.operations.speak(phone.record.call_id, text)
    except VoicecallError as error:
        problems.append(str(error))


async def test_a_voice_that_fails_twice_is_stood_in_for_once(tmp_path: Path) -> None:
    async with open_phone(tmp_path) as phone:
        await greeted(phone)
        phone.tts.errors.extend([DOWN] * 9)
        phone.hears("First.")
        await phone.settle(1)
        assert spoken(phone) == [SAY.failed]
        assert phone.record.live
        assert phone.record.media is MediaPath.NATIVE
        # The caller speaks into them, and nobody answers.
        phone.hears("Hello?")
        await phone.settle(10)
        assert spoken(phone) == [SAY.failed]
        assert phone.agent.asked == ["First."]
        assert phone.said[-1] == ("bot", SAY.failed)
        assert phone.record.end_reason is EndReason.ERROR
        assert phone.record.end_detail is EndDetail.SPEECH_FAILED
        assert not phone.engine.lanes


async def test_whoever_else_wants_something_said_is_told_that_the_call_ends(
    tmp_path: Path,
) -> None:
    async with open_phone(tmp_path) as phone:
        await greeted(phone)
        phone.tts.errors.extend([DOWN] * 9)
        problems: list[str] = []
        async with anyio.create_task_group() as speaking:
            for text in ("One.", "Two.", "Three."):
                speaking.start_soon(_speak, phone, text, problems)
        assert len(problems) == 3
        await phone.settle(10)
        assert spoken(phone) == [SAY.failed]
        assert phone.record.end_detail is EndDetail.SPEECH_FAILED


async def test_the_last_words_wait_for_those_that_are_being_said(tmp_path: Path) -> None:
    async with open_phone(tmp_path) as phone:
        await greeted(phone)
        phone.tts.errors.extend([DOWN] * 2)
        async with anyio.create_task_group() as speaking:
            for text in ("One.", "Two.", "Three."):
                speaking.start_soon(_speak, phone, text, [])
        await phone.settle(10)
        assert phone.heard[:2] == [SAY.greeting, "Three."]
        assert spoken(phone) == [SAY.failed]
        assert phone.said[-1] == ("bot", SAY.failed)
        assert all(entry.complete for entry in phone.record.transcript)


async def test_a_carrier_that_drops_the_socket_to_speak_is_not_asked_for_another(
    tmp_path: Path,
) -> None:
    async with open_phone(tmp_path) as phone:
        await greeted(phone)
        phone.tts.errors.extend([DOWN] * 2)
        phone.hears("First.")
        await phone.settle(1)
        phone.socket.drop()
        await phone.settle(10)
        assert phone.said[-1] == ("bot", SAY.failed)
        assert phone.record.end_detail is EndDetail.SPEECH_FAILED
        assert phone.carrier.performed_of(tel.AttachStream) == []


async def test_the_call_ends_where_nobody_can_speak(tmp_path: Path) -> None:
    async with open_phone(tmp_path, carrier=ScriptedCarrier(MUTE_CARRIER)) as phone:
        await greeted(phone)
        phone.tts.errors.extend([DOWN] * 2)
        phone.hears("First.")
        await phone.settle(1)
        assert spoken(phone) == []
        assert phone.record.end_detail is EndDetail.SPEECH_FAILED


async def test_a_carrier_that_refuses_to_speak_ends_the_call(tmp_path: Path) -> None:
    async with open_phone(tmp_path) as phone:
        await greeted(phone)
        phone.carrier.fail(tel.Speak, DOWN)
        phone.tts.errors.extend([DOWN] * 2)
        phone.hears("First.")
        await phone.settle(1)
        assert phone.said == [("bot", SAY.greeting), ("user", "First.")]
        assert phone.record.end_detail is EndDetail.SPEECH_FAILED


async def test_a_caller_who_hangs_up_needs_no_last_words(tmp_path: Path) -> None:
    async with open_phone(tmp_path) as phone:
        await greeted(phone)
        phone.tts.errors.extend([DOWN] * 2)
        phone.hears("First.")
        await phone.settle(1)
        await phone.hang_up()
        await phone.settle(10)
        assert phone.record.end_reason is EndReason.HANGUP_USER
        assert not phone.engine.lanes


async def test_without_ears_and_voice_the_caller_is_told_all_the_same(tmp_path: Path) -> None:
    async with open_phone(tmp_path) as phone:
        await greeted(phone)
        phone.stt.open_errors.extend([DOWN] * 3)
        phone.stt.lost()
        phone.tts.errors.append(DOWN)
        await phone.settle(15)
        assert spoken(phone) == [SAY.cannot_hear]
        assert phone.said[-1] == ("bot", SAY.cannot_hear)
        assert phone.record.end_detail is EndDetail.LISTENING_FAILED


async def test_without_agent_and_voice_the_caller_is_told_all_the_same(tmp_path: Path) -> None:
    async with open_phone(tmp_path) as phone:
        await greeted(phone)
        phone.agent.then(DOWN)
        phone.agent.then(DOWN)
        phone.hears("First.")
        await phone.settle(4)
        phone.tts.errors.append(DOWN)
        phone.hears("Second.")
        await phone.settle(10)
        assert phone.heard == [SAY.greeting, SAY.not_understood]
        assert spoken(phone) == [SAY.failed]
        assert phone.record.end_detail is EndDetail.AGENT_FAILED


async def test_a_goodbye_to_nobody_is_said_by_the_carrier_too(tmp_path: Path) -> None:
    config = {"silence": {"promptAfterMs": 5000, "prompts": 0}}
    async with open_phone(tmp_path, config=config) as phone:
        await greeted(phone)
        phone.tts.errors.append(DOWN)
        await phone.settle(12)
        assert spoken(phone) == [SAY.goodbye]
        assert phone.record.end_reason is EndReason.HANGUP_BOT
        assert phone.record.end_detail is EndDetail.SILENCE


@pytest.mark.parametrize("how", ["fails", "locked"])
async def test_a_call_without_a_greeting_does_not_end_in_silence(tmp_path: Path, how: str) -> None:
    speech = LockedSpeech() if how == "locked" else None
    async with open_phone(tmp_path, speech=speech, config={"tts": {"timeoutMs": 2000}}) as phone:
        phone.tts.errors.extend([DOWN] * 2)
        await phone.call_in()
        await phone.settle(15)
        assert spoken(phone) == [SAY.failed]
        assert phone.said == [("bot", SAY.failed)]
        assert phone.record.message is not None
        assert phone.record.message.attempts == 2
        assert phone.record.end_reason is EndReason.ERROR
        assert phone.record.end_detail is EndDetail.MESSAGE_FAILED


async def test_an_answer_of_many_sentences_waits_once_for_a_voice(tmp_path: Path) -> None:
    config = {"tts": {"timeoutMs": 2000}}
    async with open_phone(tmp_path, speech=LockedSpeech(), config=config) as phone:
        await phone.dial()
        await phone.answer()
        await phone.settle(1)
        phone.agent.then("This is the first. This is the second. This is the third.")
        phone.hears("Hello?")
        # Once for the answer, and once for the apology.
        await phone.settle(4.5)
        assert spoken(phone) == [SAY.failed]


async def test_a_notification_is_told_by_the_carrier(tmp_path: Path) -> None:
    async with open_phone(tmp_path) as phone:
        phone.tts.errors.extend([DOWN] * 2)
        await phone.dial("Your table is ready.", CallMode.NOTIFY)
        await phone.answer()
        await phone.settle(10)
        assert spoken(phone) == ["Your table is ready."]
        assert phone.said == [("bot", "Your table is ready.")]
        assert phone.record.end_detail is EndDetail.NOTIFIED
        assert phone.record.message is not None
        assert phone.record.message.state is MessageState.DONE


async def test_a_notification_that_nobody_can_tell_has_failed(tmp_path: Path) -> None:
    async with open_phone(tmp_path) as phone:
        phone.carrier.fail(tel.Speak, DOWN)
        phone.tts.errors.extend([DOWN] * 2)
        await phone.dial("Your table is ready.", CallMode.NOTIFY)
        await phone.answer()
        await phone.settle(10)
        assert phone.said == []
        assert phone.record.end_detail is EndDetail.MESSAGE_FAILED


async def test_a_caller_to_whom_no_media_socket_comes_is_told(tmp_path: Path) -> None:
    async with open_phone(tmp_path) as phone:
        phone.opens_streams = False
        await phone.call_in()
        await phone.settle(9.5)
        assert spoken(phone) == []
        await phone.settle(1)
        assert spoken(phone) == [SAY.failed]
        await phone.settle(10)
        assert phone.said == [("bot", SAY.failed)]
        assert phone.record.end_reason is EndReason.HANGUP_BOT
        assert phone.record.end_detail is EndDetail.STREAM_NEVER_STARTED
        assert not phone.engine.lanes


async def test_a_caller_whose_media_socket_stays_away_is_told(tmp_path: Path) -> None:
    async with open_phone(tmp_path) as phone:
        await greeted(phone)
        phone.agent.then("It was a dark and stormy night, and nobody was about in the old town.")
        phone.hears("Tell me a story.")
        await phone.settle(1)
        phone.opens_streams = False
        phone.socket.drop()
        await phone.settle(2.2)
        assert spoken(phone) == [SAY.failed]
        await phone.settle(10)
        assert phone.said[-1] == ("bot", SAY.failed)
        assert [asked for asked, _ in phone.agent.settled] == ["Tell me a story."]
        assert phone.record.end_reason is EndReason.HANGUP_BOT
        assert phone.record.end_detail is EndDetail.STREAM_LOST
        assert not phone.engine.lanes


@pytest.mark.parametrize("slow", ["the status", "the stream"])
async def test_a_request_that_hangs_does_not_cut_the_last_words_short(
    tmp_path: Path, slow: str
) -> None:
    class Slow(ScriptedCarrier):
        async def status(self, call: tel.CallRef) -> tel.CallStatus:
            await anyio.sleep(2.5 if slow == "the status" else 0)
            return await super().status(call)

        async def perform(self, call: tel.CallRef, action: tel.Action) -> None:
            if isinstance(action, tel.AttachStream) and slow == "the stream":
                asked.append(phone.now())
                await anyio.sleep(2.5)
                raise DOWN
            await super().perform(call, action)

    asked: list[int] = []
    async with open_phone(tmp_path, carrier=Slow()) as phone:
        await greeted(phone)
        lost = phone.now()
        phone.socket.drop()
        await phone.settle(10)
        assert spoken(phone) == [SAY.failed]
        assert phone.said[-1] == ("bot", SAY.failed)
        assert phone.record.end_detail is EndDetail.STREAM_LOST
        # The carrier's voice had begun 2 s after the loss.
        assert phone.carrier.performed_of(tel.AttachStream) == []
        assert all(at < lost + 2000 for at in asked)


async def test_a_notification_without_a_media_socket_is_told_by_the_carrier(tmp_path: Path) -> None:
    async with open_phone(tmp_path) as phone:
        phone.opens_streams = False
        await phone.dial("Your table is ready.", CallMode.NOTIFY)
        await phone.answer()
        await phone.settle(15)
        assert spoken(phone) == ["Your table is ready."]
        assert phone.record.end_detail is EndDetail.NOTIFIED
        assert phone.record.message is not None
        assert phone.record.message.state is MessageState.DONE


async def test_a_notification_that_was_heard_is_not_told_again(tmp_path: Path) -> None:
    config = {"outbound": {"notifyHangupDelaySec": 30}}
    async with open_phone(tmp_path, config=config) as phone:
        await phone.dial("Your table is ready.", CallMode.NOTIFY)
        await phone.answer()
        await phone.settle(4)
        phone.opens_streams = False
        phone.socket.drop()
        await phone.settle(4)
        assert spoken(phone) == []
        assert phone.record.end_detail is EndDetail.STREAM_LOST


async def test_a_carrier_that_does_not_end_the_last_words_holds_the_call_for_a_minute(
    tmp_path: Path,
) -> None:
    async with open_phone(tmp_path) as phone:
        phone.opens_streams = phone.plays = False
        await phone.call_in()
        await phone.settle(11)
        assert spoken(phone) == [SAY.failed]
        await phone.settle(60)
        assert phone.record.end_reason is EndReason.HANGUP_BOT
        assert not phone.engine.lanes


async def test_a_media_socket_that_comes_during_the_last_words_is_too_late(tmp_path: Path) -> None:
    async with open_phone(tmp_path) as phone:
        phone.opens_streams = False
        await phone.call_in()
        await phone.settle(10.5)
        await phone.engine.issue_tokens(phone.record, ["late"])
        await phone.attach("late")
        await phone.settle(10)
        assert phone.said == [("bot", SAY.failed)]
        assert phone.heard == []
        assert phone.record.end_detail is EndDetail.STREAM_NEVER_STARTED
