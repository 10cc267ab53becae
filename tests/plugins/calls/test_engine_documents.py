"""Carriers that are steered by documents in replies: openings, look-ups, clocks, long texts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest

from voicecall import events as ev
from voicecall import telephony as tel
from voicecall.errors import OutcomeUnknown, ProviderUnavailable
from voicecall.model import CallMode, Direction, EndDetail, EndReason, MediaPath, MessageState
from voicecall_calls.doors import AdmissionRefused
from voicecall_testing.clock import virtual_backend
from voicecall_testing.fakes import NATIVE, STREAMING, ScriptedCarrier
from voicecall_testing.harness import CALLEE, CALLER, Phone, open_phone

pytestmark = [pytest.mark.integration, pytest.mark.anyio]

ANSWERS_BY_DOCUMENT = replace(
    NATIVE,
    explicit_answer=False,
    limit_by_command=True,
    stream=frozenset({tel.StreamPoint.DOCUMENT, tel.StreamPoint.COMMAND}),
)
MESSAGE = "Your table is ready."


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return virtual_backend


class SpeakingCarrier(ScriptedCarrier):
    """Takes the words of a notification with the dial request, up to a length."""

    def speaks_at_dial(self, message: tel.Speak) -> bool:
        return len(message.text) <= 100


class ForgetfulCarrier(ScriptedCarrier):
    """Finds calls by their numbers: ``found`` are its answers, in turn."""

    def __init__(self, *found: str) -> None:
        super().__init__(NATIVE)
        self.found = list(found)
        self.queries: list[tel.DialQuery] = []

    async def find_dial(self, query: tel.DialQuery) -> str | None:
        self.queries.append(query)
        return next((one for one in self.found if one not in query.known), None)


async def call_in(phone: Phone) -> tel.WebhookReply:
    return await phone.event(
        ev.Answered,
        provider_call_id="carrier-1",
        direction=Direction.INBOUND,
        from_number=CALLER,
        to_number=CALLEE,
    )


# --- inbound calls that the reply answers ----------------------------------------------------


@pytest.mark.parametrize("media", [MediaPath.NATIVE, MediaPath.STREAM])
async def test_the_reply_to_the_first_webhook_has_all_that_is_needed(
    tmp_path: Path, media: MediaPath
) -> None:
    carrier = ScriptedCarrier(ANSWERS_BY_DOCUMENT, steers=True)
    async with open_phone(tmp_path, media=media, carrier=carrier) as phone:
        await call_in(phone)
        limit = tel.LimitDuration(phone.config.max_duration_seconds + 30)
        if media is MediaPath.NATIVE:
            first, limited = carrier.rendered
            assert isinstance(first, tel.Speak)
            assert limited == limit
        else:
            (first,) = carrier.rendered
            assert isinstance(first, tel.AttachStream)
        assert carrier.performed == []
        await phone.settle(5)
        assert [speaker for speaker, _ in phone.said] == ["bot"]
        # A call whose stream never came ends without it.
        streamed = media is MediaPath.STREAM
        assert carrier.performed_of(tel.LimitDuration) == ([limit] if streamed else [])


async def test_a_limit_that_cannot_be_set_is_tried_again_and_ends_nothing(tmp_path: Path) -> None:
    carrier = ScriptedCarrier(ANSWERS_BY_DOCUMENT)
    carrier.fail(tel.LimitDuration, *[OutcomeUnknown("no answer", provider="scripted")] * 3)
    async with open_phone(tmp_path, media=MediaPath.NATIVE, carrier=carrier) as phone:
        await call_in(phone)
        await phone.settle(5)
        assert len(carrier.performed_of(tel.LimitDuration)) == 3
        assert phone.record.live


async def test_a_limit_that_cannot_be_set_is_not_tried_again_once_the_call_is_over(
    tmp_path: Path,
) -> None:
    carrier = ScriptedCarrier(ANSWERS_BY_DOCUMENT)
    carrier.fail(tel.LimitDuration, OutcomeUnknown("no answer", provider="scripted"))
    async with open_phone(tmp_path, media=MediaPath.NATIVE, carrier=carrier) as phone:
        await call_in(phone)
        assert len(carrier.performed_of(tel.LimitDuration)) == 1
        await phone.hang_up()
        await phone.settle(5)
        assert len(carrier.performed_of(tel.LimitDuration)) == 1


async def test_no_limit_is_set_for_a_call_that_ends_as_its_stream_comes(tmp_path: Path) -> None:
    carrier = ScriptedCarrier(ANSWERS_BY_DOCUMENT, steers=True)
    async with open_phone(tmp_path, carrier=carrier) as phone:
        phone.opens_streams = False
        await call_in(phone)
        (first,) = carrier.rendered
        assert isinstance(first, tel.AttachStream)
        phone.store.delay_s = 1.0
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(phone.hang_up)
            await phone.settle(0.5)
            with pytest.raises(AdmissionRefused, match="The call is over"):
                await phone.attach(first.stream.token)
        await phone.settle(5)
        assert carrier.performed == []


async def test_words_wait_for_a_greeting_in_the_reply(tmp_path: Path) -> None:
    carrier = ScriptedCarrier(ANSWERS_BY_DOCUMENT, steers=True)
    async with open_phone(tmp_path, media=MediaPath.NATIVE, carrier=carrier) as phone:
        await call_in(phone)
        (greeting, _) = carrier.rendered
        assert isinstance(greeting, tel.Speak)
        begun = phone.now()
        await phone.operations.speak(phone.record.call_id, MESSAGE)
        lasts_s = phone.tts.duration_s(greeting.text) + phone.tts.duration_s(MESSAGE)
        assert phone.now() - begun == pytest.approx(lasts_s * 1000, abs=60)
        assert phone.said == [("bot", greeting.text), ("bot", MESSAGE)]


# --- a notification in the dial request ------------------------------------------------------


async def test_a_notification_is_spoken_once_by_the_dial_request(tmp_path: Path) -> None:
    carrier = SpeakingCarrier(NATIVE)
    async with open_phone(tmp_path, media=MediaPath.NATIVE, carrier=carrier) as phone:
        record = await phone.dial(MESSAGE, CallMode.NOTIFY)
        (dialled,) = carrier.dialled
        assert dialled.message is not None
        assert dialled.message.text == MESSAGE
        assert record.message is not None
        assert record.message.at_dial == dialled.message.utterance_id
        await phone.answer()
        assert phone.record.message is not None
        assert phone.record.message.state is MessageState.PLAYING
        await phone.event(ev.PlaybackEnded, utterance_id=dialled.message.utterance_id)
        assert phone.said == [("bot", MESSAGE)]
        await phone.settle(30)
        assert carrier.performed_of(tel.Speak) == []
        assert phone.record.end_detail is EndDetail.NOTIFIED


async def test_words_that_do_not_fit_into_the_dial_request_are_spoken_at_the_answer(
    tmp_path: Path,
) -> None:
    carrier = SpeakingCarrier(NATIVE)
    async with open_phone(tmp_path, media=MediaPath.NATIVE, carrier=carrier) as phone:
        await phone.dial(MESSAGE * 10, CallMode.NOTIFY)
        assert carrier.dialled[0].message is None
        await phone.answer()
        (spoken,) = carrier.performed_of(tel.Speak)
        assert isinstance(spoken, tel.Speak)
        assert spoken.text == MESSAGE * 10


async def test_a_conversation_is_never_begun_by_the_dial_request(tmp_path: Path) -> None:
    carrier = SpeakingCarrier(NATIVE)
    async with open_phone(tmp_path, media=MediaPath.NATIVE, carrier=carrier) as phone:
        await phone.dial(MESSAGE, CallMode.CONVERSATION)
        assert carrier.dialled[0].message is None


async def test_a_notification_over_a_media_socket_is_not_spoken_by_the_dial_request(
    tmp_path: Path,
) -> None:
    carrier = SpeakingCarrier(replace(STREAMING, limit_by_command=True))
    async with open_phone(tmp_path, carrier=carrier) as phone:
        await phone.dial(MESSAGE, CallMode.NOTIFY)
        assert carrier.dialled[0].message is None
        await phone.answer()
        await phone.settle(30)
        assert phone.heard == [MESSAGE]
        # The dial request said how long the call may last.
        assert carrier.performed_of(tel.LimitDuration) == []


# --- dial requests of unknown outcome --------------------------------------------------------


async def test_a_call_of_another_record_is_not_taken_for_the_one_looked_up(
    tmp_path: Path,
) -> None:
    carrier = ForgetfulCarrier("carrier-1", "carrier-9")
    async with open_phone(
        tmp_path, media=MediaPath.NATIVE, carrier=carrier, config={"maxConcurrentCalls": 2}
    ) as phone:
        first = await phone.dial("Hello.")
        await phone.operations.end(first.call_id)
        carrier.dial_errors.append(OutcomeUnknown("cut off", provider="scripted"))
        second = await phone.dial("Hello.")
        record = await phone.engine.stored(second.call_id)
        assert record is not None
        assert record.provider_call_id == "carrier-9"
        assert [set(query.known) for query in carrier.queries] == [set(), {"carrier-1"}]
        assert {query.placed_at for query in carrier.queries} == {second.started_at}


async def test_a_carrier_that_finds_the_same_other_call_again_is_asked_a_few_times(
    tmp_path: Path,
) -> None:
    carrier = ForgetfulCarrier()
    async with open_phone(
        tmp_path, media=MediaPath.NATIVE, carrier=carrier, config={"maxConcurrentCalls": 2}
    ) as phone:
        await phone.dial("Hello.")
        carrier.dial_errors.append(OutcomeUnknown("cut off", provider="scripted"))
        asked: list[tel.DialQuery] = []

        async def find_the_other(query: tel.DialQuery) -> str:
            asked.append(query)
            # Otherwise a fault here would make the test endless.
            assert len(asked) <= 10
            return "carrier-1"

        carrier.find_dial = find_the_other  # type: ignore[method-assign]
        second = await phone.dial("Hello.")
        await phone.settle(60)
        assert 2 <= len(asked) <= 10
        record = await phone.engine.stored(second.call_id)
        assert record is not None
        assert record.end_detail is EndDetail.DIAL_UNKNOWN


async def test_live_calls_are_known_from_the_start(tmp_path: Path) -> None:
    carrier = ForgetfulCarrier("carrier-1")
    async with open_phone(
        tmp_path, media=MediaPath.NATIVE, carrier=carrier, config={"maxConcurrentCalls": 2}
    ) as phone:
        await phone.dial("Hello.")
        carrier.dial_errors.append(OutcomeUnknown("cut off", provider="scripted"))
        second = await phone.dial("Hello.")
        assert [set(query.known) for query in carrier.queries] == [{"carrier-1"}]
        record = await phone.engine.stored(second.call_id)
        assert record is not None
        assert record.end_detail is EndDetail.DIAL_UNKNOWN


# --- the carrier's clock ---------------------------------------------------------------------


@pytest.mark.parametrize("at", [0, 9_999_999_999_999])
async def test_a_carrier_with_a_wrong_clock_neither_shortens_nor_lengthens_a_call(
    tmp_path: Path, at: int
) -> None:
    config = {"maxDurationSeconds": 100, "outbound": {"defaultMode": "conversation"}}
    async with open_phone(tmp_path, media=MediaPath.NATIVE, config=config) as phone:
        await phone.dial("Hello.")
        await phone.settle(2)
        await phone.event(ev.Ringing, at=at)
        await phone.event(ev.Answered, at=at)
        await phone.settle(90)
        assert phone.record.live
        await phone.settle(20)
        assert phone.record.end_reason is EndReason.TIMEOUT


async def test_a_call_whose_first_webhook_came_late_began_when_it_says(tmp_path: Path) -> None:
    config = {"maxDurationSeconds": 100}
    async with open_phone(tmp_path, media=MediaPath.NATIVE, config=config) as phone:
        rang = phone.now()
        await phone.settle(50)
        await phone.call_in(at=rang)
        assert phone.record.started_at == rang


async def test_an_inbound_call_of_another_age_begins_now(tmp_path: Path) -> None:
    async with open_phone(
        tmp_path, media=MediaPath.NATIVE, config={"maxDurationSeconds": 300}
    ) as phone:
        await phone.call_in(at=0)
        await phone.settle(60)
        assert phone.record.live
        assert phone.record.started_at >= phone.now() - 130_000


async def test_an_answer_counts_from_when_it_is_told_and_an_end_from_when_it_was(
    tmp_path: Path,
) -> None:
    late = []
    for told in ("before the call", "late", "before it happens"):
        async with open_phone(tmp_path / told, media=MediaPath.NATIVE) as phone:
            await phone.event(ev.Ringing, direction=Direction.INBOUND, from_number=CALLER)
            rang = phone.now()
            await phone.settle(10)
            await phone.event(ev.Answered, at=rang)
            answered = phone.record.answered_at
            assert answered is not None
            assert answered >= rang + 10_000
            over = phone.now()
            await phone.settle(10)
            at = {"before the call": 0, "late": over, "before it happens": over + 60_000}[told]
            await phone.event(ev.CallEnded, at=at, reason=EndReason.COMPLETED)
            ended = phone.record.ended_at
            assert ended is not None
            assert ended >= answered
            late.append(ended - over)
    assert late[0] <= late[1] == 0
    assert 10_000 <= late[2] < 60_000


# --- long texts ------------------------------------------------------------------------------


SENTENCES = [f"This is sentence number {n}." for n in range(6)]


def spoken(carrier: ScriptedCarrier) -> list[tuple[str, bool]]:
    """What the carrier was asked to say, and whether it was to listen."""
    return [
        (action.text, action.listen is not None)
        for action in carrier.performed
        if isinstance(action, tel.Speak)
    ]


async def test_a_text_that_is_too_long_is_spoken_in_pieces(tmp_path: Path) -> None:
    carrier = ScriptedCarrier(replace(NATIVE, longest_speech=60))
    async with open_phone(tmp_path, media=MediaPath.NATIVE, carrier=carrier) as phone:
        await phone.call_in()
        await phone.settle(5)
        carrier.performed.clear()
        before = len(phone.said)
        await phone.operations.speak(phone.record.call_id, " ".join(SENTENCES))
        pairs = [" ".join(SENTENCES[n : n + 2]) for n in (0, 2, 4)]
        assert spoken(carrier) == [(pairs[0], False), (pairs[1], False), (pairs[2], True)]
        assert phone.said[before:] == [("bot", pair) for pair in pairs]


async def test_pieces_stop_where_one_cannot_be_spoken(tmp_path: Path) -> None:
    carrier = ScriptedCarrier(replace(NATIVE, longest_speech=60))
    async with open_phone(tmp_path, media=MediaPath.NATIVE, carrier=carrier) as phone:
        await phone.call_in()
        await phone.settle(5)
        carrier.performed.clear()
        carrier.fail(tel.Speak, ProviderUnavailable("no way there", provider="scripted"))
        with pytest.raises(ProviderUnavailable):
            await phone.operations.speak(phone.record.call_id, " ".join(SENTENCES))
        texts = [text for text, _ in spoken(carrier)]
        assert texts[0] == " ".join(SENTENCES[:2])
        assert all(SENTENCES[2] not in text for text in texts)


async def test_what_was_heard_of_a_piece_is_in_the_transcript(tmp_path: Path) -> None:
    carrier = ScriptedCarrier(replace(NATIVE, longest_speech=60))
    async with open_phone(tmp_path, media=MediaPath.NATIVE, carrier=carrier) as phone:
        await phone.call_in()
        await phone.settle(5)
        phone.agent.then(" ".join(SENTENCES))
        token = phone.record.listen_token
        await phone.event(ev.SpeechHeard, text="Tell me.", turn_token=token)
        await phone.settle(1)
        await phone.hang_up()
        await phone.settle(1)
        stored = await phone.store.load(phone.record.call_id)
        assert stored is not None
        last = stored.transcript[-1]
        assert (last.text, last.complete) == ("This is sentence", False)


async def test_a_long_greeting_that_keys_interrupt_is_not_said_again(tmp_path: Path) -> None:
    carrier = ScriptedCarrier(replace(NATIVE, longest_speech=60))
    carrier.fail(tel.Speak, ProviderUnavailable("too long", provider="scripted"))
    async with open_phone(tmp_path, media=MediaPath.NATIVE, carrier=carrier) as phone:
        await phone.dial(" ".join(SENTENCES), CallMode.CONVERSATION)
        await phone.answer()
        await phone.settle(1)
        await phone.event(ev.DigitsPressed, digits="1#")
        await phone.settle(30)
        assert [text for text, _ in spoken(carrier)][1:] == [" ".join(SENTENCES[:2]), "Yes."]
        assert [turn.digits for turn in phone.agent.turns] == ["1#"]
        assert phone.record.live


@pytest.mark.parametrize("failures", [1, 2])
async def test_a_long_notification_that_fails_is_tried_again_then_the_call_ends(
    tmp_path: Path, failures: int
) -> None:
    carrier = ScriptedCarrier(replace(NATIVE, longest_speech=60))
    carrier.fail(tel.Speak, *[ProviderUnavailable("no way", provider="scripted")] * failures)
    async with open_phone(tmp_path, media=MediaPath.NATIVE, carrier=carrier) as phone:
        await phone.dial(" ".join(SENTENCES), CallMode.NOTIFY)
        await phone.answer()
        await phone.settle(20)
        pairs = [" ".join(SENTENCES[n : n + 2]) for n in (0, 2, 4)]
        if failures == 1:
            assert phone.said == [("bot", pair) for pair in pairs]
            assert phone.record.end_detail is EndDetail.NOTIFIED
        else:
            assert phone.said == []
            assert phone.record.end_detail is EndDetail.MESSAGE_FAILED


@pytest.mark.parametrize("heard", [1, 2])
@pytest.mark.parametrize("why", ["the caller speaks", "a piece cannot be spoken"])
async def test_the_agent_is_told_which_pieces_of_its_answer_were_heard(
    tmp_path: Path, heard: int, why: str
) -> None:
    carrier = ScriptedCarrier(replace(NATIVE, longest_speech=60))
    pairs = [" ".join(SENTENCES[n : n + 2]) for n in (0, 2, 4)]
    async with open_phone(tmp_path, media=MediaPath.NATIVE, carrier=carrier) as phone:
        await phone.call_in()
        await phone.settle(5)
        carrier.performed.clear()
        phone.agent.then(" ".join(pairs))
        token = phone.record.listen_token
        await phone.event(ev.SpeechHeard, text="Tell me.", turn_token=token)
        lasts = [phone.tts.duration_s(pair) for pair in pairs]
        if why == "the caller speaks":
            # In the next piece.
            await phone.settle(sum(lasts[:heard]) + 0.2)
            await phone.event(ev.DigitsPressed, digits="1")
            told = pairs[:3] if heard == 2 else pairs[:1]
        else:
            await phone.settle(sum(lasts[:heard]) - 0.2)
            carrier.fail(tel.Speak, ProviderUnavailable("no way there", provider="scripted"))
            told = pairs[:heard]
        await phone.settle(0.5)
        assert phone.agent.settled == [("Tell me.", " ".join(told))]


# --- calls that we are done with -------------------------------------------------------------


async def test_a_call_that_is_over_for_us_is_hung_up_when_it_asks(tmp_path: Path) -> None:
    carrier = ScriptedCarrier(NATIVE, steers=True)
    async with open_phone(tmp_path, media=MediaPath.NATIVE, carrier=carrier) as phone:
        await phone.call_in()
        await phone.settle(5)
        carrier.rendered.clear()
        await phone.event(ev.Active, key="hold-6")
        assert carrier.rendered == []
        await phone.operations.end(phone.record.call_id)
        carrier.rendered.clear()
        reply = await phone.event(ev.Active, key="hold-7")
        assert carrier.rendered == [tel.Hangup()]
        assert (await phone.event(ev.Active, key="hold-7")).body == reply.body
        carrier.rendered.clear()
        await phone.event(ev.CallEnded, reason=EndReason.COMPLETED)
        assert carrier.rendered == []
        assert carrier.performed_of(tel.Hangup) == [tel.Hangup()]


async def test_the_log_says_when_a_reply_steers_a_call(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    carrier = ScriptedCarrier(NATIVE, steers=True)
    with caplog.at_level("INFO", "voicecall.phases"):
        async with open_phone(tmp_path, media=MediaPath.NATIVE, carrier=carrier) as phone:
            await phone.dial("Hello.")
            await phone.event(ev.Ringing)
            await phone.event(ev.Answered)
    ringing, answered = (
        line.getMessage().split(": ")[1]
        for line in caplog.records
        if "webhook accepted" in line.getMessage()
    )
    assert ringing == "webhook accepted; ringing"
    assert answered == "webhook accepted; answered; greeting started; document served"
