"""The documents that answer Twilio's requests, compared with TwiML of Twilio's own library."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twilio.twiml.voice_response import Connect, Gather, VoiceResponse

from voicecall import telephony as tel
from voicecall.tones import check_digits
from voicecall_twilio.callbacks import Kind, base_url, callback, document_id
from voicecall_twilio.dialling import notice
from voicecall_twilio.rendering import Style
from voicecall_twilio.signature import query_of
from voicecall_twilio.twiml import Document

from .twilio_forms import AGAIN, HOOK, NEXT, OURS, PROVIDER, SID, TURN, inbound, outbound, provider

pytestmark = pytest.mark.unit

STREAM = tel.StreamRequest("wss://gateway.example/voice/stream", "one-use")
LISTEN = tel.Listen("tok-1", 800)
CALL = tel.CallRef("c-1", SID, (SID,), OURS)


def document(
    asked: tel.WebhookRequest, *actions: tel.Action, rest: Sequence[tel.Action] = ()
) -> str:
    """The document that answers, with ``*`` for its own name."""
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


def test_speak_and_listen_are_one_document() -> None:
    response = VoiceResponse()
    prompt = gather("i=*&n=0&t=tok-1&u=u-1&s=1", timeout=2)
    prompt.say("Hello & <goodbye>")
    response.append(prompt)
    assert document(outbound(), tel.Speak("u-1", "Hello & <goodbye>", None, LISTEN)) == plain(
        response
    )


def test_listening_alone_asks_for_the_silence_that_is_wanted() -> None:
    response = VoiceResponse()
    response.append(gather("i=*&n=0&t=tok-1&s=1", timeout=2))
    assert document(outbound(), LISTEN) == plain(response)
    for end_silence_ms, seconds in ((0, "1"), (1000, "1"), (1001, "2"), (4200, "5")):
        [waiting] = ElementTree.fromstring(document(outbound(), tel.Listen("t", end_silence_ms)))
        assert waiting.get("speechTimeout") == seconds
        assert f"&s={seconds}#" in (waiting.get("action") or "")


def test_voice_and_language() -> None:
    speaker = provider(voice="Polly.Vicki", language="de-DE")
    voices = {
        None: "Polly.Vicki",
        "Polly.Hans": "Polly.Hans",
        "Google.de-DE-Chirp3-HD-Kore": "Google.de-DE-Chirp3-HD-Kore",
        "woman": "woman",
        # Of speech providers, which Twilio does not know.
        "alloy": "Polly.Vicki",
        "en-us+f2": "Polly.Vicki",
        "21m00Tcm4TlvDq8ikWAM": "Polly.Vicki",
        "": "Polly.Vicki",
    }
    for voice, wanted in voices.items():
        speak = tel.Speak("u-1", "Hallo", voice, LISTEN)
        body = speaker.render(outbound(), CALL, [speak]).reply.body.decode()
        gathered = ElementTree.fromstring(body)[0]
        assert gathered.get("language") == "de-DE"
        assert gathered[0].attrib == {"voice": wanted, "language": "de-DE"}


def test_a_notification_is_spoken_with_a_voice_that_twilio_knows() -> None:
    spoken = notice(tel.Speak("u-1", "Hello", "alloy"), HOOK, Style("Polly.Vicki"))
    assert spoken is not None
    say, redirect = ElementTree.fromstring(spoken)
    assert say.attrib == {"voice": "Polly.Vicki"}
    # Nobody asks for this document, so its end tells of the answer, too.
    assert redirect.text == f"{HOOK}?type=played&i=dial&u=u-1&first=1{AGAIN}"


def test_what_is_not_only_spoken_does_not_come_with_the_dial_request() -> None:
    assert PROVIDER.speaks_at_dial(tel.Speak("u-1", "Hello"))
    assert not PROVIDER.speaks_at_dial(tel.Speak("u-1", "Hello", None, LISTEN))
    # With the longest URLs that it may have to name.
    assert not PROVIDER.speaks_at_dial(tel.Speak("u-1", "x" * 3500))


def test_a_notification_may_be_as_long_as_a_request_allows() -> None:
    def spoken(length: int) -> str | None:
        return notice(tel.Speak("u-1", "x" * length), HOOK, Style())

    fitting = 3500 + 4000 - len(spoken(3500) or "")
    assert len(spoken(fitting) or "") == 4000
    assert spoken(fitting + 1) is None


def test_silence_is_listened_to_again_with_more_patience() -> None:
    response = VoiceResponse()
    response.append(gather("i=*&n=1&t=tok-1&s=1", timeout=5))
    assert document(outbound(TURN, SpeechResult="")) == plain(response)
    response = VoiceResponse()
    response.append(gather("i=*&n=2&t=tok-1&s=1", timeout=5))
    assert document(outbound(NEXT)) == plain(response)
    # Keys are no turn: whoever pressed them may still say something.
    assert document(outbound(NEXT, Digits="1")) == plain(response)
    # Nor are blanks, which make no event either.
    assert document(outbound(NEXT, SpeechResult=" ")) == plain(response)
    assert document(outbound(NEXT.replace("&t=tok-1", ""))) == plain(held())


@pytest.mark.parametrize(
    ("written", "kept"), [("&s=2", "2"), ("&s=60", "60"), ("", "1"), ("&s=61", "1"), ("&s=x", "1")]
)
def test_whoever_was_silent_is_listened_to_with_the_same_end_of_a_sentence(
    written: str, kept: str
) -> None:
    asked = outbound(NEXT.replace("&s=1", written))
    waiting = ElementTree.fromstring(document(asked))[0]
    assert waiting.get("speechTimeout") == kept
    assert f"&s={kept}#" in (waiting.get("action") or "")


def test_after_a_turn_the_line_is_kept() -> None:
    assert document(outbound(TURN, SpeechResult="Yes")) == plain(held())
    url = f"{OURS}&type=hold&i=ab&n=4"
    assert document(outbound(url)) == plain(held(round_=5))


@pytest.mark.parametrize("count", ["", "x", "-1", "%C2%B2", "1234567890"])
def test_a_round_that_is_no_number_is_the_first(count: str) -> None:
    url = f"{OURS}&type=hold&i=ab&n={count}"
    assert document(outbound(url)) == plain(held(round_=1))


def test_the_fallback_of_a_document_goes_on_where_that_one_failed() -> None:
    def asked(failed: str) -> tel.WebhookRequest:
        return inbound(OURS, "in-progress", ErrorCode="11200", ErrorUrl=failed)

    response = VoiceResponse()
    response.append(gather("i=*&n=2&t=tok-1&s=1", timeout=5))
    assert document(asked(f"{NEXT}#rc=3")) == plain(response)
    assert document(asked(f"{OURS}&type=hold&i=ab&n=4")) == plain(held(round_=5))
    assert document(asked(f"{OURS}&type=played&i=ab&u=u-1")) == plain(held())
    # A first document that is missing is asked for once more.
    assert document(asked(OURS), tel.Speak("u-1", "Hello.", None, LISTEN)) == document(
        outbound(), tel.Speak("u-1", "Hello.", None, LISTEN)
    )


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


def test_all_keys_and_pauses_are_played() -> None:
    response = VoiceResponse()
    response.play(digits="0123456789*#wWWWw")
    every = check_digits("0123456789*#wWpP,")
    assert document(outbound(), tel.PlayDigits(every)) == plain(held(response))


@pytest.mark.parametrize("digits", ["", "1x", "é", "A"])
def test_digits_that_are_none_are_left_over(digits: str) -> None:
    action = tel.PlayDigits(digits)
    assert document(outbound(), action, rest=[action]) == plain(held())


def test_refusals() -> None:
    response = VoiceResponse()
    response.reject()
    assert document(inbound(), tel.Reject()) == plain(response)
    response = VoiceResponse()
    response.reject(reason="busy")
    assert document(inbound(), tel.Reject(busy=True)) == plain(response)
    # A document that only waits answers no call.
    held_back = inbound(f"{OURS}&type=hold&i=ab&n=4")
    assert document(held_back, tel.Reject(busy=True)) == plain(response)
    response = VoiceResponse()
    response.hangup()
    assert document(inbound(TURN, "in-progress"), tel.Reject(busy=True)) == plain(response)
    assert document(inbound(TURN, "in-progress"), tel.Reject()) == plain(response)
    assert document(inbound(HOOK, "in-progress"), tel.Reject()) == plain(response)
    assert document(outbound(), tel.Hangup()) == plain(response)
    response = VoiceResponse()
    response.say("Your code is 1, 2.")
    response.hangup()
    assert document(inbound(), tel.Reject("Your code is 1, 2.")) == plain(response)
    # Keys answer a call, and Twilio accepts no Reject after them.
    response = VoiceResponse()
    response.play(digits="1")
    response.hangup()
    assert document(inbound(), tel.PlayDigits("1"), tel.Reject()) == plain(response)


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
    told = replace(inbound(), headers={"content-type": "application/json"}, body=b"{}")
    assert PROVIDER.parse(told, 0) == ()
    for asked in (inbound(), outbound(), told):
        reply = PROVIDER.render(asked, None, ()).reply
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


@pytest.mark.parametrize("own", ["t=secret&s=9&u=x&i=1&n=7", "first=1&limit=5", "a=&&b"])
def test_parameters_of_the_webhooks_own_are_kept_whatever_their_names(own: str) -> None:
    base = f"{HOOK}?{own}"
    for url in (base, f"{base}&callId=c-1", f"{base}&callId=c-1&type=hold&i=ab&n=3"):
        body = PROVIDER.render(inbound(url), CALL, ()).reply.body.decode()
        target = ElementTree.fromstring(body)[1].text or ""
        assert target.startswith(f"{base}&callId=c-1&type=hold&i=")
        assert f"&n={4 if 'hold' in url else 0}#" in target
    assert base_url(callback(base, Kind.STATUS, limit=60)) == base
    assert base_url(callback(f"{HOOK}?", Kind.STATUS)) == HOOK
    assert PROVIDER.number_urls(base)["A call comes in"] == base + AGAIN


def test_what_a_callback_carries_comes_back_as_it_was() -> None:
    texts = {"i": "d-1", "n": "0", "t": "a b&c=\u00fc#+", "s": "\u00fc", "first": "a&type=b"}
    url = callback(HOOK, Kind.TURN, **texts, u=None)
    assert url.isascii()
    assert query_of(url) == {"type": "turn", **texts}
    assert base_url(url) == HOOK


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


_SIGNS = st.sampled_from(
    ["a", " ", ". ", "\u00e9", "\u0436", "\u4e2d", "\u3002", "\U0001f642", "~", "&"]
)


@settings(max_examples=60)
@given(st.lists(st.tuples(_SIGNS, st.integers(1, 900)), min_size=1, max_size=12))
def test_no_say_is_longer_than_twilio_takes(runs: list[tuple[str, int]]) -> None:
    text = "".join(sign * count for sign, count in runs)
    pieces = said(text)
    for piece in pieces:
        assert piece
        assert len(piece.encode()) <= 3000
        assert len(quote(piece, safe="")) <= 4500
    assert "".join(pieces).replace(" ", "") == text.replace(" ", "")


@pytest.mark.parametrize("text", ["word " * 1500, "x" * 7000])
def test_texts_without_sentences_are_cut_too(text: str) -> None:
    pieces = said(text)
    assert all(0 < len(piece) <= 3000 for piece in pieces)
    assert "".join(pieces).replace(" ", "") == text.replace(" ", "")
