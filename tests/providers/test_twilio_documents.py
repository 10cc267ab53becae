"""What Twilio's requests say, and the documents that answer them; Twilio's own library is the
judge of the TwiML."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from xml.etree import ElementTree

import pytest
from twilio.twiml.voice_response import Connect, Gather, VoiceResponse

from voicecall import ProviderContext
from voicecall import events as ev
from voicecall import telephony as tel
from voicecall.errors import WebhookRejected
from voicecall.model import Direction, EndReason
from voicecall_twilio.callbacks import document_id
from voicecall_twilio.config import TwilioConfig
from voicecall_twilio.provider import TwilioProvider
from voicecall_twilio.twiml import Document

pytestmark = pytest.mark.unit

NOW = 1_795_262_400_000  # 2026-11-21T12:00:00Z
SID = "CA00000000000000000000000000000001"
HOOK = "https://gateway.example/voice/webhook"
OURS = f"{HOOK}?callId=c-1"
AGAIN = "#rc=3&rp=all"
STREAM = tel.StreamRequest("wss://gateway.example/voice/stream", "one-use")
LISTEN = tel.Listen("tok-1", 800)
CALL = tel.CallRef("c-1", SID, (SID,), OURS)


def provider(**changes: Any) -> TwilioProvider:
    config = TwilioConfig(account_sid="AC01", auth_token="secret", **changes)
    return TwilioProvider(config, ProviderContext(Path("unused")))


PROVIDER = provider()


def request(url: str = OURS, **form: str) -> tel.WebhookRequest:
    given = {"CallSid": SID, "From": "+15550001234", "To": "+15550005678", **form}
    return tel.WebhookRequest(
        method="POST",
        url=url,
        query={},
        headers={"content-type": "application/x-www-form-urlencoded"},
        body=urlencode(given).encode(),
        client="203.0.113.7",
    )


def inbound(url: str = HOOK, status: str = "ringing", **form: str) -> tel.WebhookRequest:
    return request(url, CallStatus=status, Direction="inbound", **form)


def outbound(url: str = OURS, status: str = "in-progress", **form: str) -> tel.WebhookRequest:
    return request(url, CallStatus=status, Direction="outbound-api", **form)


def events(asked: tel.WebhookRequest) -> Sequence[ev.CarrierEvent]:
    return PROVIDER.parse(asked, NOW)


def kinds(asked: tel.WebhookRequest) -> list[type[ev.CarrierEvent]]:
    return [type(event) for event in events(asked)]


def document(
    asked: tel.WebhookRequest, *actions: tel.Action, rest: Sequence[tel.Action] = ()
) -> str:
    """The document that answers, with ``*`` for the name that it gives itself."""
    rendered = PROVIDER.render(asked, CALL, actions)
    assert rendered.rest == tuple(rest)
    assert rendered.reply.status == 200
    assert rendered.reply.content_type.startswith("text/xml")
    text = rendered.reply.body.decode()
    return plain(text.replace(document_id(asked), "*"))


def plain(xml: object) -> str:
    return ElementTree.canonicalize(str(xml), strip_text=True)


def again(kind: str, parameters: str) -> str:
    return f"{OURS}&type={kind}&{parameters}{AGAIN}"


def held(into: VoiceResponse | None = None, round_: int = 0) -> VoiceResponse:
    response = into or VoiceResponse()
    response.pause(length=15)
    response.redirect(again("hold", f"i=%2A&n={round_}").replace("%2A", "*"))
    return response


def gather(parameters: str, **attributes: Any) -> Gather:
    return Gather(
        input="dtmf speech",
        action=again("turn", parameters),
        action_on_empty_result=True,
        speech_timeout="1",
        **attributes,
    )


# --- what requests say -----------------------------------------------------------------------


def test_the_reply_to_the_first_request_answers_an_inbound_call() -> None:
    [event] = events(inbound())
    assert isinstance(event, ev.Answered)
    assert event.provider_call_id == SID
    assert event.call_id is None
    assert event.direction is Direction.INBOUND
    assert (event.from_number, event.to_number) == ("+15550001234", "+15550005678")
    assert event.at == NOW


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


def test_a_failed_call_has_its_sip_code() -> None:
    [event] = events(outbound(f"{OURS}&type=status", "failed", SipResponseCode="404"))
    assert isinstance(event, ev.CallEnded)
    assert event.detail == "SIP 404"


TURN = f"{OURS}&type=turn&i=ab&n=0&t=tok-1&u=u-1&s=1"
NEXT = f"{OURS}&type=turn&i=cd&n=1&t=tok-1&s=1"


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
    assert pressed.digits == wanted


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


def test_streams_tell_of_errors_only() -> None:
    url = f"{OURS}&type=stream&i=ab"
    for event in ("stream-started", "stream-stopped"):
        assert events(request(url, StreamSid="MZ1", StreamEvent=event)) == []
    told = request(url, StreamSid="MZ1", StreamEvent="stream-error", StreamError="31920")
    [failed] = events(told)
    assert isinstance(failed, ev.StreamFailed)
    assert (failed.stream_id, failed.error, failed.call_id) == ("MZ1", "31920", "c-1")


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("Sat, 21 Nov 2026 11:59:00 +0000", NOW - 60_000 + 999),
        ("Sat, 21 Nov 2026 12:00:00 +0000", NOW),
        ("Sat, 21 Nov 2026 13:00:00 +0000", NOW),
        ("2026-11-21T11:59:00.5Z", NOW - 60_000 + 999),
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


# --- documents -------------------------------------------------------------------------------


def test_speak_and_listen_are_one_document() -> None:
    response = VoiceResponse()
    prompt = gather("i=*&n=0&t=tok-1&u=u-1&s=1", timeout=2)
    prompt.say("Hello & <goodbye>")
    response.append(prompt)
    assert document(outbound(), tel.Speak("u-1", "Hello & <goodbye>", None, LISTEN)) == plain(
        response
    )


def test_voice_and_language() -> None:
    speaker = provider(voice="Polly.Vicki", language="de-DE")
    for voice, wanted in ((None, "Polly.Vicki"), ("Polly.Hans", "Polly.Hans")):
        speak = tel.Speak("u-1", "Hallo", voice, LISTEN)
        body = speaker.render(outbound(), CALL, [speak]).reply.body.decode()
        gathered = ElementTree.fromstring(body)[0]
        assert gathered.get("language") == "de-DE"
        assert gathered[0].attrib == {"voice": wanted, "language": "de-DE"}


def test_silence_is_listened_to_again_with_more_patience() -> None:
    response = VoiceResponse()
    response.append(gather("i=*&n=1&t=tok-1&s=1", timeout=10))
    assert document(outbound(TURN, SpeechResult="")) == plain(response)
    response = VoiceResponse()
    response.append(gather("i=*&n=2&t=tok-1&s=1", timeout=10))
    assert document(outbound(NEXT)) == plain(response)
    # Keys are no turn: whoever pressed them may still say something.
    assert document(outbound(NEXT, Digits="1")) == plain(response)


def test_after_a_turn_the_line_is_kept() -> None:
    assert document(outbound(TURN, SpeechResult="Yes")) == plain(held())
    url = f"{OURS}&type=hold&i=ab&n=4"
    assert document(outbound(url)) == plain(held(round_=5))


def test_no_two_documents_have_the_same_urls() -> None:
    texts = {
        PROVIDER.render(asked, CALL, ()).reply.body
        for asked in (outbound(), outbound(TURN), outbound(NEXT), outbound(NEXT, Digits="1"))
    }
    assert len(texts) == 4
    assert PROVIDER.render(outbound(), CALL, ()) == PROVIDER.render(outbound(), CALL, ())


def test_a_message_is_played_and_told_of() -> None:
    response = VoiceResponse()
    response.say("The bus is late.")
    response.redirect(again("played", "i=*&u=u-1"))
    assert document(outbound(), tel.Speak("u-1", "The bus is late.")) == plain(response)


def test_a_media_stream_and_what_follows_it() -> None:
    for action in (tel.AttachStream(STREAM), tel.Answer(STREAM)):
        response = VoiceResponse()
        connect = Connect()
        stream = connect.stream(url=STREAM.url, status_callback=again("stream", "i=*"))
        stream.parameter(name="token", value="one-use")
        response.append(connect)
        assert document(inbound(), action) == plain(held(response))


def test_digits_and_what_goes_on_behind_them() -> None:
    response = VoiceResponse()
    response.play(digits="1w2W#")
    assert document(outbound(), tel.PlayDigits("1,2p#")) == plain(held(response))
    response = VoiceResponse()
    response.play(digits="5")
    response.append(gather("i=*&n=0&t=tok-1&s=1", timeout=2))
    assert document(outbound(), tel.PlayDigits("5", listen=LISTEN)) == plain(response)
    text = document(outbound(), tel.PlayDigits("5", STREAM))
    assert text.index("<Play") < text.index("<Connect") < text.index("<Redirect")


@pytest.mark.parametrize("digits", ["", "1x", "é"])
def test_digits_that_are_none_are_left_over(digits: str) -> None:
    action = tel.PlayDigits(digits)
    assert document(outbound(), action, rest=[action]) == plain(held())


def test_refusals() -> None:
    response = VoiceResponse()
    response.reject()
    assert document(inbound(), tel.Reject()) == plain(response)
    response = VoiceResponse()
    response.hangup()
    assert document(inbound(TURN, "in-progress"), tel.Reject()) == plain(response)
    assert document(outbound(), tel.Hangup()) == plain(response)
    response = VoiceResponse()
    response.say("Your code is 1, 2.")
    response.hangup()
    assert document(inbound(), tel.Reject("Your code is 1, 2.")) == plain(response)


def test_what_does_not_fit_behind_another_is_left_over_in_its_order() -> None:
    limit, attach, hangup = tel.LimitDuration(330), tel.AttachStream(STREAM), tel.Hangup()
    speak = tel.Speak("u-1", "Hello")
    text = document(inbound(), limit, attach, speak, hangup, rest=[limit, speak, hangup])
    assert "<Connect>" in text
    long = tel.Speak("u-2", "x" * 20_000)
    assert document(inbound(), long, hangup, rest=[long, hangup]) == plain(held())


def test_requests_that_only_tell_are_answered_with_nothing() -> None:
    actions: list[tel.Action] = [tel.Speak("u-1", "Hello"), tel.Hangup()]
    empty = plain(VoiceResponse())
    for url in (f"{OURS}&type=status", f"{OURS}&type=stream", f"{OURS}&type=amd"):
        assert document(outbound(url), *actions, rest=actions) == empty
    for asked in (
        outbound(status="completed"),
        outbound(CallbackSource="call-progress-events"),
    ):
        assert document(asked, *actions, rest=actions) == empty


def test_a_call_that_nobody_knows_ends() -> None:
    response = VoiceResponse()
    response.hangup()
    reply = PROVIDER.render(outbound(), None, ()).reply
    assert plain(reply.body.decode()) == plain(response)


def test_urls_name_the_call_once_it_is_known() -> None:
    for url in (HOOK, f"{HOOK}?region=eu%20west", f"{HOOK}?callId=c-1#rc=3&rp=all"):
        body = PROVIDER.render(inbound(url), CALL, ()).reply.body.decode()
        target = ElementTree.fromstring(body)[1].text or ""
        assert target.startswith(url.partition("#")[0])
        assert target.count("callId=c-1") == 1
        assert target.endswith(AGAIN)


def test_our_own_parameters_are_replaced_and_others_kept_as_written() -> None:
    url = f"{HOOK}?callId=c%2D1&a=%7e+b&type=hold&i=ab&n=3"
    body = PROVIDER.render(outbound(url), CALL, ()).reply.body.decode()
    target = ElementTree.fromstring(body)[1].text or ""
    assert target.startswith(f"{HOOK}?callId=c%2D1&a=%7e+b&type=hold&i=")
    assert "&n=4" in target


# --- texts -----------------------------------------------------------------------------------


def said(text: str) -> list[str]:
    document = Document(HOOK, "d", voice=None, language=None)
    document.say(text)
    return [element.text or "" for element in ElementTree.fromstring(document.text)]


def test_characters_that_xml_lacks_are_left_out() -> None:
    assert said("a\x00b\x1b\ud800c\ufffed 🙂\t") == ["abcd 🙂"]
    assert said("\x00 \x01") == []


def test_long_texts_are_cut_at_sentences() -> None:
    sentence = "This is a sentence of some length, with a comma. "
    pieces = said(sentence * 200)
    assert len(pieces) == 4
    assert all(len(piece) <= 3000 and piece.endswith(".") for piece in pieces)
    assert " ".join(pieces) == (sentence * 200).strip()


@pytest.mark.parametrize("text", ["word " * 1500, "x" * 7000])
def test_texts_without_sentences_are_cut_too(text: str) -> None:
    pieces = said(text)
    assert all(0 < len(piece) <= 3000 for piece in pieces)
    assert "".join(pieces).replace(" ", "") == text.replace(" ", "")


# --- what an operator enters -----------------------------------------------------------------


def test_number_urls_ask_for_redelivery() -> None:
    assert PROVIDER.number_urls(HOOK) == {
        "A call comes in": HOOK + AGAIN,
        "Call status changes": f"{HOOK}?type=status{AGAIN}",
    }


@pytest.mark.parametrize(
    ("block", "wanted"),
    [
        ({}, "https://api.twilio.com"),
        ({"region": "us1"}, "https://api.twilio.com"),
        ({"region": "ie1"}, "https://api.dublin.ie1.twilio.com"),
        ({"region": "au1"}, "https://api.sydney.au1.twilio.com"),
        ({"edge": "ashburn"}, "https://api.ashburn.us1.twilio.com"),
        ({"region": "ie1", "edge": "frankfurt"}, "https://api.frankfurt.ie1.twilio.com"),
        ({"apiBaseUrl": "http://127.0.0.1:9000/"}, "http://127.0.0.1:9000"),
    ],
)
def test_hosts_of_regions(block: dict[str, str], wanted: str) -> None:
    values = {"accountSid": "AC1", "authToken": "t", **block}
    assert TwilioConfig.model_validate(values).base_url == wanted


def test_secrets_stay_out_of_the_configurations_text() -> None:
    block = {
        "accountSid": "AC1",
        "authToken": "s3cret-1",
        "apiKeySid": "SK1",
        "apiKeySecret": "s3cret-2",
        "webhooksSharedKey": "s3cret-3",
    }
    config = TwilioConfig.model_validate(block)
    assert "s3cret" not in repr(config)
    assert config.credentials == ("SK1", "s3cret-2")
