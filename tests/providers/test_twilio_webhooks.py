"""Parsing Twilio's webhooks into events."""

from __future__ import annotations

import logging

import pytest

from voicecall import events as ev
from voicecall import telephony as tel
from voicecall.errors import WebhookRejected
from voicecall.model import Direction, EndReason

from .twilio_forms import (
    HOOK,
    NEXT,
    NOW,
    OURS,
    SID,
    TURN,
    events,
    inbound,
    kinds,
    outbound,
    request,
)

pytestmark = pytest.mark.unit


def test_the_reply_to_the_first_request_answers_an_inbound_call() -> None:
    [event] = events(inbound())
    assert isinstance(event, ev.Answered)
    assert event.provider_call_id == SID
    assert event.call_id is None
    assert event.direction is Direction.INBOUND
    assert (event.from_number, event.to_number) == ("+15550001234", "+15550005678")
    assert event.at == NOW


@pytest.mark.parametrize(
    "given",
    [
        "",
        "Anonymous",
        "RESTRICTED",
        "+266696687",
        "+86282452253",
        "+17378742833",
        "1266696687",
        "7378742833",
        "sip:anonymous@anonymous.invalid",
        "sip:thisis@anonymous.invalid:5060;transport=tls",
        "sip:Anonymous@pbx.example",
        "sips:+266696687@pbx.example",
        "client:Anonymous",
    ],
)
def test_a_caller_who_withholds_the_number_has_none(given: str) -> None:
    [event] = events(inbound(From=given))
    assert event.from_number is None


@pytest.mark.parametrize(
    "given",
    [
        "+15550001234",
        "sip:ann@pbx.example",
        "sip:+15550001234@pbx.example:5060",
        "sip:pbx.example",
        "client:ann",
        "client:anonymous.ann",
        "+2666966",
        "+1737874283",
    ],
)
def test_other_callers_are_who_they_say(given: str) -> None:
    [event] = events(inbound(From=given))
    assert event.from_number == given


def test_a_document_is_fetched_when_an_outbound_call_is_answered() -> None:
    [event] = events(outbound())
    assert isinstance(event, ev.Answered)
    assert event.call_id == "c-1"
    assert event.direction is Direction.OUTBOUND


@pytest.mark.parametrize("url", [f"{OURS}&type=status", OURS])
@pytest.mark.parametrize(
    ("status", "kind"),
    [
        ("initiated", ev.Initiated),
        ("ringing", ev.Ringing),
        ("in-progress", ev.Answered),
        ("completed", ev.CallEnded),
    ],
)
def test_progress_is_told_by_status_callbacks(
    url: str, status: str, kind: type[ev.CarrierEvent]
) -> None:
    told = outbound(url, status, CallbackSource="call-progress-events", SequenceNumber="1")
    assert kinds(told) == [kind]


def test_a_status_callback_at_the_webhook_itself_does_not_answer_the_call() -> None:
    assert kinds(inbound(CallbackSource="call-progress-events")) == [ev.Ringing]


def test_whoever_tells_of_the_answer_it_is_one_event() -> None:
    fetched = events(outbound())
    told = events(outbound(f"{OURS}&type=status", CallbackSource="call-progress-events"))
    spoken = events(outbound(f"{OURS}&type=played&i=dial&u=u-1&first=1"))
    assert [type(event) for event in spoken] == [ev.Answered, ev.PlaybackEnded]
    assert fetched[0].key == told[0].key == spoken[0].key


@pytest.mark.parametrize(
    ("status", "direction", "reason"),
    [
        ("completed", "outbound-api", EndReason.COMPLETED),
        ("busy", "outbound-api", EndReason.BUSY),
        ("failed", "outbound-api", EndReason.FAILED),
        ("no-answer", "outbound-api", EndReason.NO_ANSWER),
        ("canceled", "outbound-api", EndReason.HANGUP_BOT),
        ("canceled", "inbound", EndReason.HANGUP_USER),
        ("completed", "inbound", EndReason.COMPLETED),
    ],
)
def test_ends(status: str, direction: str, reason: EndReason) -> None:
    for url in (f"{OURS}&type=status", f"{OURS}&type=turn&i=a&n=0&t=x", HOOK):
        [event] = events(request(url, CallStatus=status, Direction=direction))
        assert isinstance(event, ev.CallEnded)
        assert event.reason is reason


@pytest.mark.parametrize(
    ("duration", "reason"),
    [
        ("299", EndReason.COMPLETED),
        ("300", EndReason.TIMEOUT),
        ("301", EndReason.TIMEOUT),
        ("", EndReason.COMPLETED),
        ("x", EndReason.COMPLETED),
    ],
)
def test_a_call_that_was_cut_at_its_limit_has_timed_out(duration: str, reason: EndReason) -> None:
    url = f"{OURS}&type=status&limit=300"
    [event] = events(outbound(url, "completed", CallDuration=duration))
    assert isinstance(event, ev.CallEnded)
    assert event.reason is reason


def test_parameters_of_the_webhooks_own_say_nothing_of_a_call() -> None:
    own = f"{HOOK}?limit=5&first=1&u=u-9&t=x&callId=c-1"
    [over] = events(outbound(f"{own}&type=status", "completed", CallDuration="60"))
    assert isinstance(over, ev.CallEnded)
    assert over.reason is EndReason.COMPLETED
    assert over.call_id == "c-1"
    assert kinds(outbound(f"{own}&type=played&i=ab")) == [ev.Active]
    [heard] = events(outbound(f"{own}&type=turn&i=ab&n=0", SpeechResult="Yes"))
    assert isinstance(heard, ev.SpeechHeard)
    assert heard.turn_token is None


@pytest.mark.parametrize(
    ("code", "detail"), [("404", "SIP 404"), ("200", None), ("", None), ("4o4", None)]
)
def test_a_failed_call_has_its_sip_code(code: str, detail: str | None) -> None:
    url = f"{OURS}&type=status&limit=60"
    [event] = events(outbound(url, "failed", SipResponseCode=code, CallDuration="60"))
    assert isinstance(event, ev.CallEnded)
    assert (event.reason, event.detail) == (EndReason.FAILED, detail)


def test_what_is_empty_is_not_told() -> None:
    [event] = events(inbound(f"{HOOK}?callId=", To=""))
    assert (event.call_id, event.to_number) == (None, None)
    url = f"{OURS}&type=stream&i=ab"
    assert events(request(url, StreamSid="", StreamEvent="stream-stopped")) == []
    [failed] = events(request(url, StreamSid="", StreamEvent="stream-error"))
    assert isinstance(failed, ev.StreamFailed)
    assert failed.stream_id is None
    [other] = events(request(url.replace("ab", "cd"), StreamEvent="stream-error"))
    assert failed.key != other.key


def test_speech_ends_the_prompt_that_it_cut_short() -> None:
    played, heard = events(outbound(TURN, SpeechResult="Ja, bitte.", Confidence="0.91"))
    assert isinstance(played, ev.PlaybackEnded)
    assert played.utterance_id == "u-1"
    assert isinstance(heard, ev.SpeechHeard)
    assert heard.text == "Ja, bitte."
    assert (heard.final, heard.confidence, heard.turn_token) == (True, 0.91, "tok-1")


@pytest.mark.parametrize("confidence", ["", "nan", "inf", "-1", "1.5", "x"])
def test_a_confidence_that_is_none(confidence: str) -> None:
    [heard] = events(outbound(NEXT, SpeechResult="Yes", Confidence=confidence))
    assert isinstance(heard, ev.SpeechHeard)
    assert heard.confidence is None


def test_digits_and_silence() -> None:
    assert kinds(outbound(TURN, Digits="12")) == [ev.PlaybackEnded, ev.DigitsPressed]
    assert kinds(outbound(NEXT, Digits="12")) == [ev.DigitsPressed]
    assert kinds(outbound(TURN, SpeechResult=" ")) == [ev.PlaybackEnded]
    assert kinds(outbound(NEXT, SpeechResult="")) == [ev.Active]


@pytest.mark.parametrize(
    ("digits", "ended_by", "wanted"), [("12", "#", "12#"), ("", "#", "#"), ("12", "", "12")]
)
def test_the_key_that_ends_an_input_belongs_to_it(digits: str, ended_by: str, wanted: str) -> None:
    [pressed] = events(outbound(NEXT, Digits=digits, FinishedOnKey=ended_by))
    assert isinstance(pressed, ev.DigitsPressed)
    assert (pressed.digits, pressed.turn_token) == (wanted, "tok-1")


def test_equal_words_in_two_rounds_are_two_events() -> None:
    keys = {
        events(outbound(url, SpeechResult="Yes", Confidence="0.9"))[-1].key
        for url in (TURN, NEXT, NEXT.replace("n=1", "n=2"), NEXT.replace("cd", "ef"))
    }
    assert len(keys) == 4


def test_a_held_call_gives_a_sign_of_life() -> None:
    first, second = (f"{OURS}&type=hold&i=ab&n={n}" for n in (0, 1))
    assert kinds(outbound(first)) == [ev.Active]
    assert events(outbound(first))[0].key != events(outbound(second))[0].key


@pytest.mark.parametrize("url", [HOOK, OURS])
def test_the_fallback_of_a_document_asks_for_another_one(url: str) -> None:
    def asked(failed: str) -> tel.WebhookRequest:
        return inbound(url, "in-progress", ErrorCode="11200", ErrorUrl=failed)

    [first] = events(inbound())
    assert kinds(asked(TURN)) == [ev.PlaybackEnded, ev.Active]
    assert kinds(asked(NEXT)) == [ev.Active]
    spoken = f"{OURS}&type=played&i=dial&u=u-1&first=1#rc=3"
    assert kinds(asked(spoken)) == [ev.Answered, ev.PlaybackEnded, ev.Active]
    told = [events(asked(each))[-1] for each in (TURN, NEXT, f"{OURS}&type=hold&i=ab&n=0")]
    assert {event.call_id for event in told} == {"c-1"}
    # None of them is known: what was recorded for the others is not what is wanted now.
    lost = [events(outbound(each))[-1].key for each in (TURN, NEXT)]
    assert len({*(event.key for event in told), *lost, first.key}) == 6


def test_what_a_call_tells_behind_a_fallback_is_its_own() -> None:
    """Twilio may still name the document for which it asked the fallback."""
    lost = {"ErrorCode": "11200", "ErrorUrl": f"{OURS}&type=hold&i=ab&n=0"}
    told = outbound(TURN, SpeechResult="Hello?", **lost)
    assert kinds(told) == [ev.PlaybackEnded, ev.SpeechHeard]


@pytest.mark.parametrize("failed", [f"{HOOK}#rc=3", "https://other.example/voice?type=menu", ""])
def test_the_fallback_of_the_first_document_is_the_first_request(failed: str) -> None:
    [first] = events(inbound())
    [event] = events(inbound(ErrorCode="11200", ErrorUrl=failed))
    assert isinstance(event, ev.Answered)
    assert event.key == first.key


@pytest.mark.parametrize(("code", "why"), [("11200", "error 11200"), ("?\n", "no error code")])
def test_a_lost_document_is_logged(code: str, why: str, caplog: pytest.LogCaptureFixture) -> None:
    events(inbound())
    assert caplog.messages == []
    events(inbound(OURS, "in-progress", ErrorCode=code, ErrorUrl=TURN))
    [said] = caplog.messages
    assert (
        said
        == f"call {SID}: Twilio got no document that it could use ({why}), and asks the fallback"
    )


def test_the_log_tells_why_a_stream_failed(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "voicecall.twilio")
    url = f"{OURS}&type=stream&i=ab"
    events(request(url, StreamSid="MZ1", StreamEvent="stream-stopped"))
    assert caplog.messages == []
    error = "31920 - Stream - WebSocket - Handshake Error"
    events(request(url, StreamSid="MZ1", StreamEvent="stream-error", StreamError=error))
    assert caplog.messages == [f"call {SID}: its media socket failed, says Twilio: '{error}'"]


def test_streams_tell_of_their_ends() -> None:
    url = f"{OURS}&type=stream&i=ab"
    assert events(request(url, StreamSid="MZ1", StreamEvent="stream-started")) == []
    assert events(request(url, StreamEvent="stream-stopped")) == []
    [stopped] = events(request(url, StreamSid="MZ1", StreamEvent="stream-stopped"))
    assert isinstance(stopped, ev.StreamStopped)
    assert (stopped.stream_id, stopped.call_id) == ("MZ1", "c-1")
    told = request(url, StreamSid="MZ1", StreamEvent="stream-error", StreamError="31920")
    [failed] = events(told)
    assert isinstance(failed, ev.StreamFailed)
    assert (failed.stream_id, failed.error, failed.call_id) == ("MZ1", "31920", "c-1")
    [other] = events(request(url, StreamSid="MZ2", StreamEvent="stream-error"))
    assert len({stopped.key, failed.key, other.key}) == 3


@pytest.mark.usefixtures("far_from_utc")
@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("Sat, 21 Nov 2026 11:59:00 +0000", NOW - 60_000 + 999),
        ("Sat, 21 Nov 2026 13:59:00 +0200", NOW - 60_000 + 999),
        ("Sat, 21 Nov 2026 12:00:00 +0000", NOW),
        ("Sat, 21 Nov 2026 13:00:00 +0000", NOW),
        ("Sat, 21 Nov 2026 11:59:00 -0000", NOW - 60_000 + 999),
        ("2026-11-21T11:59:00.5Z", NOW - 60_000 + 999),
        ("2026-11-21T11:59:00", NOW - 60_000 + 999),
        ("yesterday", NOW),
        ("Sat, 99 Foo 2026 11:59:00 +0000", NOW),
        ("", NOW),
    ],
)
def test_an_event_happened_when_its_timestamp_says(text: str, at: int) -> None:
    [event] = events(outbound(f"{OURS}&type=status", "ringing", Timestamp=text))
    assert event.at == at


def test_unknown_parameters_and_kinds_do_no_harm() -> None:
    assert kinds(inbound(SomethingNew="1", StirVerstat="x")) == [ev.Answered]
    assert events(outbound(f"{OURS}&type=amd", "", AnsweredBy="human")) == []


@pytest.mark.parametrize("body", [b"", b"From=%2B1555", b"CallSid=CA1&From=\xff", b"CallSid=%FF"])
def test_a_form_that_cannot_be_read_is_400(body: bytes) -> None:
    asked = tel.WebhookRequest(
        method="POST", url=HOOK, query={}, headers={}, body=body, client="203.0.113.7"
    )
    with pytest.raises(WebhookRejected) as caught:
        events(asked)
    assert caught.value.status == 400
