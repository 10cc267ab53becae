"""Twilio's emulator: reading and running TwiML documents, without sockets, on virtual time."""

from __future__ import annotations

import re
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from twilio.twiml.voice_response import Connect, Gather, Stream, VoiceResponse

from voicecall_testing.clock import virtual_backend
from voicecall_testing.twilio import TwilioOptions, twiml
from voicecall_testing.twilio.delivery import DeliveryFailed
from voicecall_testing.twilio.documents import Reply, Source, run_document
from voicecall_testing.twilio.speech import CarrierSpeech
from voicecall_testing.twilio.twiml import TwimlError, parse_twiml, socket_url_error

pytestmark = [pytest.mark.unit]


@pytest.fixture
def anyio_backend() -> Any:
    return virtual_backend


def parse(inner: str) -> tuple[twiml.Verb, ...]:
    return parse_twiml(f"<Response>{inner}</Response>".encode())


# --- reading ---------------------------------------------------------------------------------


def test_what_twilios_own_library_writes_is_read() -> None:
    response = VoiceResponse()
    gather = Gather(
        input="speech dtmf",
        action="/turn?a=1&b=2",
        timeout=3,
        speech_timeout="auto",
        num_digits=4,
        finish_on_key="*",
        barge_in=False,
        action_on_empty_result=True,
        language="de-DE",
        hints="eins, zwei",
    )
    gather.say("Bitte <sprechen> & warten", voice="Polly.Vicki", language="de-DE")
    gather.pause(length=2)
    response.append(gather)
    connect = Connect(action="/after")
    stream = Stream(url="wss://a.example/media", name="line", status_callback="/stream")
    stream.parameter(name="token", value="a<b&c")
    connect.append(stream)
    response.append(connect)
    response.redirect("/next", method="GET")
    response.hangup()
    assert parse_twiml(str(response).encode()) == (
        twiml.Gather(
            speech=True,
            action="/turn?a=1&b=2",
            timeout=3,
            speech_timeout=None,
            num_digits=4,
            finish_on_key="*",
            barge_in=False,
            action_on_empty_result=True,
            prompts=(twiml.Say("Bitte <sprechen> & warten"), twiml.Pause(2)),
        ),
        twiml.Connect(
            twiml.Stream(
                url="wss://a.example/media",
                name="line",
                parameters=(("token", "a<b&c"),),
                status_callback="/stream",
            ),
            "/after",
        ),
        twiml.Redirect("/next", "GET"),
        twiml.Hangup(),
    )


def test_defaults() -> None:
    assert parse("<Gather/><Pause/>") == (twiml.Gather(), twiml.Pause(1))
    assert parse("<Reject/>") == (twiml.Reject("rejected"),)
    (gather,) = parse('<Gather timeout="7" input="speech"/>')
    assert isinstance(gather, twiml.Gather)
    assert (gather.timeout, gather.speech_timeout, gather.dtmf) == (7, 7, False)
    assert parse('<Say loop="0">  a\n b </Say>') == (twiml.Say("a b", loop=1000),)
    assert parse('<Say>One <emphasis level="strong">two</emphasis>.</Say>') == (
        twiml.Say("One two."),
    )


@pytest.mark.parametrize(
    "inner",
    [
        "<say>lower case</say>",
        "<Dial>+1</Dial>",
        "<Say><Pause/></Say>",
        "loose text",
        "<Pause>text</Pause>",
        '<Pause length="soon"/>',
        '<Pause length="-1"/>',
        '<Pause length="0"/>',
        '<Play digits="1;2"/>',
        "<Play>https://a.example/a.mp3</Play>",
        '<Gather input="video"/>',
        '<Gather input=""/>',
        '<Gather timeout="0"/>',
        '<Gather input="speech" speechTimeout="0"/>',
        '<Gather numDigits="0"/>',
        '<Gather bargeIn="yes"/>',
        '<Gather finishOnKey="##"/>',
        '<Gather finishOnKey="x"/>',
        '<Gather method="PUT"/>',
        "<Gather><Gather/></Gather>",
        "<Redirect><a/></Redirect>",
        '<Reject reason="tired"/>',
        "<Pause/><Reject/>",
        "<Hangup><Say>a</Say></Hangup>",
        "<Connect/>",
        "<Connect><Stream/></Connect>",
        '<Connect><Stream url="wss://a/"/><Stream url="wss://b/"/></Connect>',
        '<Connect><Stream url="wss://a/"><Parameter value="b"/></Stream></Connect>',
        '<Connect><Stream url="wss://a/"><Parameter name="n" value="'
        + "v" * 499
        + '"/></Stream></Connect>',
    ],
)
def test_a_document_is_read_strictly(inner: str) -> None:
    with pytest.raises(TwimlError) as wrong:
        parse(inner)
    assert wrong.value.code == 12100


@pytest.mark.parametrize(
    ("inner", "message"),
    [
        ("<Dial>+1</Dial>", "unknown verb Dial"),
        ("<Say><Pause/></Say>", "Say must not contain Pause"),
        ("<Hangup><Say>a</Say></Hangup>", "Hangup must not contain Say"),
        ("loose text", "Response must not contain text"),
        ('<Pause length="0"/>', "length must be a whole number from 1 on, not '0'"),
        ('<Gather input=""/>', "input must be dtmf, speech or both, not ''"),
        ('<Gather finishOnKey="##"/>', "finishOnKey must be one key or empty, not '##'"),
        ('<Gather method="PUT"/>', "method must be GET or POST, not 'PUT'"),
        ('<Gather bargeIn="yes"/>', "bargeIn must be true or false, not 'yes'"),
        ('<Reject reason="tired"/>', "reason must be rejected or busy, not 'tired'"),
        ('<Say voice="alloy">A</Say>', "Say has no voice 'alloy'"),
        ("<", "the document is not valid XML: "),
    ],
)
def test_an_error_says_what_is_wrong_in_a_document(inner: str, message: str) -> None:
    with pytest.raises(TwimlError, match=re.escape(message)):
        parse(inner)


@pytest.mark.parametrize("voice", ["", "alloy", "en-us+f2"])
def test_a_voice_that_is_none_says_nothing(voice: str) -> None:
    for inner in (
        f'<Say voice="{voice}">A</Say>',
        f'<Gather><Say voice="{voice}">A</Say></Gather>',
    ):
        with pytest.raises(TwimlError) as wrong:
            parse(inner)
        assert wrong.value.code == 13511
    assert parse('<Say voice="woman">A</Say>') == (twiml.Say("A"),)


@pytest.mark.parametrize("language", ["", "de", "German", "de_DE"])
def test_a_gather_hears_nothing_of_a_language_that_is_none(language: str) -> None:
    with pytest.raises(TwimlError) as wrong:
        parse(f'<Gather input="speech" language="{language}"/>')
    assert wrong.value.code == 13331
    assert parse('<Gather language="cmn-Hans-CN"/>') == (twiml.Gather(),)


@pytest.mark.parametrize("inner", ["<Say/>", "<Say> </Say>", "<Gather><Say/></Gather>"])
def test_there_is_nothing_to_say(inner: str) -> None:
    with pytest.raises(TwimlError) as wrong:
        parse(inner)
    assert wrong.value.code == 13520
    assert parse('<Say><break time="1s"/></Say>') == (twiml.Say(""),)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"Hello",
        b"<Response>",
        b"<Answer/>",
        b'<Response version="2"/>',
        b"<!DOCTYPE Response><Response/>",
        b'<?xml version="1.0"?><!DOCTYPE Response [<!ENTITY a "b">]><Response>&a;</Response>',
        b'<?xml version="1.0" encoding="no-such"?><Response/>',
        b"<Response>\xff</Response>",
    ],
)
def test_what_is_no_document(body: bytes) -> None:
    with pytest.raises(TwimlError) as wrong:
        parse_twiml(body)
    assert wrong.value.code == 12100


def test_a_document_that_is_too_long() -> None:
    with pytest.raises(TwimlError) as wrong:
        parse_twiml(b"<Response>" + b" " * 65_536 + b"</Response>")
    assert wrong.value.code == 11750


@given(st.one_of(st.binary(max_size=200), st.text(max_size=200).map(str.encode)))
def test_any_bytes_are_a_document_or_an_error(body: bytes) -> None:
    for candidate in (body, b"<Response>" + body + b"</Response>"):
        try:
            verbs = parse_twiml(candidate)
        except TwimlError:
            continue
        assert isinstance(verbs, tuple)


def test_where_a_stream_may_go() -> None:
    for url in ("wss://a.example/x", "ws://127.0.0.1:1/x", "ws://localhost/", "ws://[::1]:1/"):
        assert socket_url_error(url) is None
    for url in ("ws://a.example/x", "http://127.0.0.1/", "wss://", "", "ws://[::1/", "wss://a:b/"):
        assert socket_url_error(url)


# --- running, on virtual time ----------------------------------------------------------------


@dataclass
class Host:
    """A call without a telephone."""

    documents: dict[str, str] = field(default_factory=dict)
    fetched: list[Source] = field(default_factory=list)
    answered: bool = False
    hung_up: bool = False
    streams: list[str] = field(default_factory=list)

    async def fetch(self, source: Source) -> Reply:
        self.fetched.append(source)
        if source.url not in self.documents:
            raise DeliveryFailed("HTTP 404")
        return Reply(f"<Response>{self.documents[source.url]}</Response>".encode(), "text/xml")

    def answer(self) -> None:
        self.answered = True

    def reject(self, reason: str) -> None:
        raise AssertionError("nothing is rejected here")

    def hang_up(self) -> None:
        self.hung_up = True

    async def connect_stream(self, verb: twiml.Stream) -> None:
        self.streams.append(verb.url)


class Room:
    """Runs a document while a caller acts."""

    def __init__(self) -> None:
        self.host = Host()
        self.heard: list[tuple[str, bool, float]] = []
        self.keys: list[str] = []
        self.unheard: list[str] = []
        self.partials: list[str] = []
        self._began = anyio.current_time()
        self.speech = CarrierSpeech(
            TwilioOptions(word_ms=1000, least_speech_ms=0, digit_ms=100),
            heard=lambda text, complete: self.heard.append((text, complete, self.now)),
            keys_heard=self.keys.append,
            unheard=self.unheard.append,
            partial=lambda verb, text: self.partials.append(text),
            changed=lambda: None,
        )

    @property
    def now(self) -> float:
        return round(anyio.current_time() - self._began, 3)

    async def run(
        self, inner: str, phone: Callable[[], Coroutine[Any, Any, None]] | None = None
    ) -> Source | None:
        source = Source("voice", "https://a.example/voice?x=1")
        self.host.documents[source.url] = inner
        async with anyio.create_task_group() as tasks:
            if phone is not None:
                tasks.start_soon(phone)
            following = await run_document(source, self.host, self.speech)
            tasks.cancel_scope.cancel()
        return following


@pytest.mark.anyio
async def test_verbs_take_their_time() -> None:
    room = Room()
    assert (
        await room.run('<Say>a b</Say><Pause length="3"/><Play digits="w1W2"/><Say>c</Say>') is None
    )
    assert room.heard == [("a b", True, 2.0), ("c", True, 7.7)]
    assert room.keys == ["12"]
    assert room.host.answered


@pytest.mark.anyio
async def test_a_pause_and_a_redirect_do_not_answer() -> None:
    room = Room()
    following = await room.run("<Pause/><Redirect>other?y=2</Redirect>")
    assert not room.host.answered
    assert following == Source("redirect", "https://a.example/other?y=2")
    assert await room.run("<Redirect/>") == Source("redirect", "https://a.example/voice?x=1")


@pytest.mark.anyio
async def test_speech_ends_after_the_pause_that_was_asked_for() -> None:
    for timeout, expected in (("auto", 6.0), ("2", 7.0)):
        room = Room()

        async def talk(room: Room = room) -> None:
            await anyio.sleep(2.5)
            room.speech.barge_in()
            assert room.speech.recognised("one", final=False)
            await anyio.sleep(1)
            assert room.speech.recognised("one", final=True)
            await anyio.sleep(0.5)
            room.speech.barge_in()
            await anyio.sleep(1)
            assert room.speech.recognised("two", final=True)

        following = await room.run(
            f'<Gather input="speech" speechTimeout="{timeout}"><Say>a b c d</Say></Gather>', talk
        )
        assert following is not None
        assert following.params == {"SpeechResult": "one two", "Confidence": "0.95"}
        assert following.url == "https://a.example/voice?x=1"
        assert room.heard == [("a b c d", False, 2.5)]
        assert room.partials == ["one"]
        assert room.now == expected


@pytest.mark.anyio
async def test_without_barge_in_the_prompt_is_heard_to_its_end() -> None:
    room = Room()

    async def talk() -> None:
        await anyio.sleep(1)
        room.speech.pressed("1")
        room.speech.barge_in()
        assert not room.speech.recognised("too early", final=True)
        await anyio.sleep(2)
        room.speech.pressed("2#")

    following = await room.run(
        '<Gather input="dtmf speech" bargeIn="false"><Say>a b</Say></Gather>', talk
    )
    assert following is not None
    assert following.params == {"Digits": "2", "FinishedOnKey": "#"}
    assert room.heard == [("a b", True, 2.0)]
    assert room.unheard == ["1"]


@pytest.mark.anyio
async def test_each_key_waits_for_the_next() -> None:
    room = Room()

    async def press() -> None:
        for key in "123":
            await anyio.sleep(4)
            room.speech.pressed(key)

    following = await room.run('<Gather finishOnKey="" timeout="5"/>', press)
    assert following is not None
    assert following.params == {"Digits": "123", "FinishedOnKey": ""}
    assert room.now == 17.0


@pytest.mark.anyio
async def test_the_key_that_ends_an_input_is_none_by_itself() -> None:
    room = Room()

    async def press() -> None:
        await anyio.sleep(1)
        room.speech.pressed("#")
        await anyio.sleep(1)
        room.speech.pressed("4#")

    following = await room.run("<Gather><Say>a b c</Say></Gather>", press)
    assert following is not None
    assert following.params == {"Digits": "4", "FinishedOnKey": "#"}
    assert room.unheard == ["#"]
    assert room.now == 2.0


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("kind", "taken", "unheard"),
    [
        ("speech", {"SpeechResult": "four", "Confidence": "0.95"}, ["4"]),
        ("dtmf", {"Digits": "4", "FinishedOnKey": ""}, []),
    ],
)
async def test_a_gather_takes_what_it_asks_for_and_nothing_else(
    kind: str, taken: dict[str, str], unheard: list[str]
) -> None:
    room = Room()

    async def act() -> None:
        await anyio.sleep(1)
        room.speech.pressed("4")
        assert room.speech.recognised("four", final=True) is (kind == "speech")

    following = await room.run(f'<Gather input="{kind}"/>', act)
    assert following is not None
    assert following.params == taken
    assert room.unheard == unheard


@pytest.mark.anyio
async def test_nobody_speaks() -> None:
    room = Room()
    assert await room.run('<Gather input="speech" timeout="4"><Say>a</Say></Gather>') is None
    assert room.now == 5.0
    assert room.speech.listening is None


@pytest.mark.anyio
async def test_speech_that_never_ends_is_cut() -> None:
    room = Room()

    async def talk() -> None:
        await anyio.sleep(1)
        room.speech.barge_in()

    assert await room.run('<Gather input="speech" maxSpeechTime="9"/>', talk) is None
    assert room.now == 9.0


@pytest.mark.anyio
async def test_hanging_up_stops_a_document() -> None:
    room = Room()
    with anyio.move_on_after(1):
        await room.run("<Hangup/><Say>never</Say>")
    assert room.host.hung_up
    assert room.heard == []


@pytest.mark.anyio
@pytest.mark.parametrize(
    "verb",
    [
        "<Redirect>http://[here</Redirect>",
        "<Redirect>ftp://a.example/next</Redirect>",
        '<Gather action="http://[here" actionOnEmptyResult="true"/>',
    ],
)
async def test_what_a_document_leads_to_must_be_a_url(verb: str) -> None:
    room = Room()
    source = Source("voice", "https://a.example/voice")
    room.host.documents[source.url] = verb
    with pytest.raises(TwimlError) as nowhere:
        await run_document(source, room.host, room.speech)
    assert nowhere.value.code == 11100


@pytest.mark.anyio
async def test_documents_that_do_nothing_but_lead_on_come_to_an_end() -> None:
    room = Room()
    other = "https://a.example/other"
    room.host.documents[other] = "<Redirect>/voice?x=1</Redirect>"

    async def follow(inner: str, documents: int) -> None:
        source: Source | None = await room.run(inner)
        for _ in range(documents):
            assert source is not None
            source = await run_document(source, room.host, room.speech)

    with pytest.raises(TwimlError) as circle:
        await follow("<Redirect>/other</Redirect>", 1000)
    assert circle.value.code == 11215
    assert len(room.host.fetched) == 101
    # One that does something else, too, may do so as long as it likes.
    await follow("<Pause/><Redirect>/other</Redirect>", 1000)


@pytest.mark.anyio
async def test_where_no_document_comes_from() -> None:
    room = Room()
    with pytest.raises(TwimlError) as missing:
        await run_document(Source("voice", "https://a.example/none"), room.host, room.speech)
    assert missing.value.code == 11200
    inline = Source("voice", inline="<Response><Redirect>/next</Redirect></Response>")
    with pytest.raises(TwimlError) as relative:
        await run_document(inline, room.host, room.speech)
    assert relative.value.code == 11100


@pytest.mark.parametrize(
    ("most", "opening", "sign"),
    [
        (4096, "<Say>", "x"),
        (3000, '<Say voice="Polly.Vicki">', "x"),
        (4500, '<Say voice="Google.de-DE-Standard-A">', "x"),
        (750, "<Say>", chr(0x436)),
        (375, "<Say>", chr(0x1F642)),
    ],
)
def test_what_a_say_holds_is_bounded(most: int, opening: str, sign: str) -> None:
    parse(opening + sign * most + "</Say>")
    with pytest.raises(TwimlError) as wrong:
        parse(opening + sign * (most + 1) + "</Say>")
    assert wrong.value.code == 13521
