"""Conformance of the pure half of a carrier (:mod:`voicecall.telephony`): signatures, events,
replies and media messages. Nothing here uses the network."""

from __future__ import annotations

import json
import random
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from voicecall.errors import MediaProtocolError, WebhookRejected
from voicecall.events import CarrierEvent
from voicecall.media import Audio, MediaCodec, MediaEvent, Message, Started, Upgrade
from voicecall.telephony import (
    Action,
    Answer,
    CallRef,
    Hangup,
    Rendered,
    Speak,
    StreamRequest,
    TelephonyProvider,
    WebhookReply,
    WebhookRequest,
)

__all__ = ["TelephonyContract"]

_DEEP = '{"a":' * 10_000
"""JSON nested deeper than parsers allow."""
_SECONDS = 100_000_000_000
"""Greater than any timestamp in seconds, less than any in milliseconds."""
_TEXTS = st.one_of(
    st.text(max_size=200),
    st.dictionaries(
        st.sampled_from(["event", "type", "payload", "media", "start", "mark", "name", "streamSid"])
        | st.text(max_size=8),
        st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=20), st.just({})),
        max_size=6,
    ).map(json.dumps),
)


def _has_right_types(event: CarrierEvent) -> None:
    """Check the type of each field. A string in place of an enum member is wrong, too: ``is`` would
    not recognise it."""
    kind = type(event)
    read = msgspec.msgpack.decode(msgspec.msgpack.encode(event), type=kind)
    for name in kind.__struct_fields__:
        found, wanted = (type(getattr(one, name)) for one in (event, read))
        text = f"{name} of {kind.__name__} is of type {found.__name__}, not {wanted.__name__}"
        assert wanted is float or issubclass(found, wanted), text


def _can_be_sent(reply: WebhookReply) -> None:
    assert type(reply.status) is int
    assert 200 <= reply.status < 300
    assert isinstance(reply.body, bytes)
    texts = [reply.content_type, *reply.headers, *reply.headers.values()]
    assert all(isinstance(text, str) for text in texts)


class TelephonyContract(ABC):
    """Inherit, and override the methods below. The test module marks itself with
    ``pytest.mark.contract``. The suite does not enter the provider's lifespan. If the carrier has
    no media sockets, it does not call ``stream_start`` and ``caller_audio``."""

    now_ms = 1_700_000_000_000
    signs_url = True
    """The carrier's signature covers the URL as well as the body."""

    # --- what the test of a carrier provides -------------------------------------------------

    @abstractmethod
    def make_provider(self) -> TelephonyProvider:
        """A new provider; its credentials are the same each time."""

    @abstractmethod
    def signed(self, body: bytes) -> WebhookRequest:
        """A webhook with this body, correctly signed at ``now_ms``."""

    @abstractmethod
    def event_bodies(self) -> Sequence[bytes]:
        """At least two webhook bodies of one call, each with at least one event. No two events
        are the same."""

    @abstractmethod
    def redelivered(self, body: bytes) -> WebhookRequest:
        """The webhook as the carrier delivers it again a minute later, correctly signed at that
        time. If the carrier repeats the identical request: ``self.signed(body)``."""

    @abstractmethod
    def stream_start(self, token: str) -> Message:
        """The message by which a media socket announces its stream. It contains the stream
        ``token``, unless :meth:`stream_upgrade` does."""

    def stream_upgrade(self, token: str) -> Upgrade:
        """The request that opens this media socket. Override it if the token is in the URL or in
        a header."""
        return Upgrade("/voice/stream", {}, {}, "127.0.0.1")

    @abstractmethod
    def caller_audio(self, payload: bytes) -> Message:
        """The message in which the carrier sends 20 ms of caller audio."""

    # --- webhooks ----------------------------------------------------------------------------

    @pytest.fixture
    def provider(self) -> TelephonyProvider:
        return self.make_provider()

    def _rejected(self, request: WebhookRequest) -> int:
        with pytest.raises(WebhookRejected) as caught:
            self.make_provider().verify(request, self.now_ms)
        return caught.value.status

    def test_a_signature_is_required(self, provider: TelephonyProvider) -> None:
        assert provider.signature_headers
        for names in provider.signature_headers:
            assert names
            assert all(name == name.lower() for name in names)
        request = self.signed(self.event_bodies()[0])
        headers = dict(request.headers)
        assert any(set(names) <= set(headers) for names in provider.signature_headers)
        for names in provider.signature_headers:
            for name in names:
                headers.pop(name, None)
        assert self._rejected(replace(request, headers=headers)) == 401

    def test_a_right_signature_is_accepted_with_a_stable_key(
        self, provider: TelephonyProvider
    ) -> None:
        keys = []
        for body in self.event_bodies():
            request = self.signed(body)
            key = provider.verify(request, self.now_ms).key
            assert key
            assert provider.verify(request, self.now_ms + 1000).key == key
            keys.append(key)
        assert len(set(keys)) == len(keys)

    def test_a_forged_signature_is_401(self, provider: TelephonyProvider) -> None:
        request = self.signed(self.event_bodies()[0])
        for names in provider.signature_headers:
            for name in names:
                if name not in request.headers:
                    continue
                for forged in ("", "0", "forged", "ü", request.headers[name][::-1] + "x"):
                    headers = {**request.headers, name: forged}
                    assert self._rejected(replace(request, headers=headers)) == 401

    def test_the_signature_covers_body_and_url(self) -> None:
        request = self.signed(self.event_bodies()[0])
        other = self.signed(self.event_bodies()[1])
        assert self._rejected(replace(request, body=other.body)) == 401
        if self.signs_url:
            assert self._rejected(replace(request, url=request.url + "x")) == 401

    def test_every_event_names_its_call(self, provider: TelephonyProvider) -> None:
        for body in self.event_bodies():
            events = provider.parse(self.signed(body), self.now_ms)
            assert events
            assert all(isinstance(event, CarrierEvent) for event in events)
            assert all(event.key and event.provider_call_id for event in events)
            for event in events:
                _has_right_types(event)
                assert event.at > _SECONDS, f"{event.at} is not a time in milliseconds"

    def test_event_keys_survive_redelivery_and_differ_between_events(
        self, provider: TelephonyProvider
    ) -> None:
        keys: list[str] = []
        for body in self.event_bodies():
            first = provider.parse(self.signed(body), self.now_ms)
            again = self.redelivered(body)
            provider.verify(again, self.now_ms + 60_000)
            second = provider.parse(again, self.now_ms + 60_000)
            assert [event.key for event in first] == [event.key for event in second]
            keys += [event.key for event in first]
        assert len(set(keys)) == len(keys)

    # Each test defines the function that Hypothesis runs: a method would be shared by all carriers
    # that inherit it.

    def test_any_body_parses_or_is_400(self, provider: TelephonyProvider) -> None:
        @settings(max_examples=60, deadline=None)
        @given(body=st.one_of(st.binary(max_size=300), _TEXTS.map(str.encode)))
        @example(body=_DEEP.encode())
        def check(body: bytes) -> None:
            request = self.signed(body)
            provider.verify(request, self.now_ms)
            self._parses_or_is_400(provider, request)

        check()

    def test_damaged_events_parse_or_are_400(self, provider: TelephonyProvider) -> None:
        chance = random.Random(1)
        for body in self.event_bodies():
            for _ in range(50):
                at = chance.randrange(len(body))
                damaged = body[:at] + bytes([chance.randrange(256)]) + body[at + 1 :]
                self._parses_or_is_400(provider, self.signed(damaged))

    def _parses_or_is_400(self, provider: TelephonyProvider, request: WebhookRequest) -> None:
        status = 400
        events: Sequence[CarrierEvent] = ()
        try:
            events = provider.parse(request, self.now_ms)
        except WebhookRejected as error:
            status = error.status
        assert status == 400
        assert all(isinstance(event, CarrierEvent) for event in events)

    def test_rendering_loses_no_action(self, provider: TelephonyProvider) -> None:
        request = self.signed(self.event_bodies()[0])
        stream = StreamRequest("wss://gateway.example/voice/stream", "one-use-token")
        actions: list[Action] = [Answer(stream), Speak("u1", "Hello & <goodbye>"), Hangup()]
        call = CallRef("our-id", "their-id")
        for count in range(len(actions) + 1):
            rendered = provider.render(request, call, actions[:count])
            assert isinstance(rendered, Rendered)
            _can_be_sent(rendered.reply)
            kept = count - len(rendered.rest)
            assert list(rendered.rest) == actions[kept:count]

    def test_rendering_for_an_unknown_call(self, provider: TelephonyProvider) -> None:
        rendered = provider.render(self.signed(self.event_bodies()[0]), None, [])
        _can_be_sent(rendered.reply)
        assert rendered.rest == ()

    # --- media -------------------------------------------------------------------------------

    def _codec(self) -> MediaCodec:
        return self._started(self.make_provider())[0]

    def _started(self, provider: TelephonyProvider) -> tuple[MediaCodec, Started]:
        codec = provider.media_codec(self.stream_upgrade("one-use-token"))
        started = codec.decode(self.stream_start("one-use-token"))
        assert isinstance(started, Started)
        return codec, started

    def test_without_media_sockets_there_is_no_codec(self, provider: TelephonyProvider) -> None:
        if not provider.capabilities.stream:
            with pytest.raises(WebhookRejected):
                provider.media_codec(self.stream_upgrade("one-use-token"))

    def test_the_start_carries_the_token(self, provider: TelephonyProvider) -> None:
        if not provider.capabilities.stream:
            return
        _, started = self._started(provider)
        assert started.token == "one-use-token"
        assert started.stream_id
        assert started.provider_call_id
        assert started.input_format in provider.capabilities.codecs
        assert started.output_format in provider.capabilities.codecs

    def test_caller_audio_arrives_as_it_was_sent(self, provider: TelephonyProvider) -> None:
        if not provider.capabilities.stream:
            return

        @settings(max_examples=40, deadline=None)
        @given(payload=st.binary(min_size=160, max_size=160))
        def check(payload: bytes) -> None:
            codec, message = self._codec(), self.caller_audio(payload)
            event = codec.decode(message)
            assert isinstance(event, Audio)
            assert event.payload == payload
            assert event.timestamp_ms >= 0
            assert codec.caller_audio(message) in (payload, None)

        check()

    def test_audio_marks_and_clear_are_messages(self, provider: TelephonyProvider) -> None:
        capabilities = provider.capabilities
        if not capabilities.stream:
            return
        codec = self._codec()
        assert isinstance(codec.binary, bool)
        loud, quiet = codec.audio(b"\x00" * 160), codec.audio(b"\xff" * 160)
        assert loud != quiet
        mark = codec.mark("m-1")
        assert (mark is not None) == capabilities.marks
        others = (mark, codec.clear(), codec.digits("1"))
        for message in (loud, quiet, *(one for one in others if one is not None)):
            assert isinstance(message, bytes | str)
            assert message

    def test_any_message_decodes_or_is_a_protocol_error(self, provider: TelephonyProvider) -> None:
        if not provider.capabilities.stream:
            return

        @settings(max_examples=100, deadline=None)
        @given(message=st.one_of(st.binary(max_size=200), _TEXTS))
        @example(message=_DEEP)
        def check(message: Message) -> None:
            codec = self._codec()
            audio = codec.caller_audio(message)
            event: MediaEvent | None = None
            with suppress(MediaProtocolError):
                event = codec.decode(message)
            assert audio is None or (isinstance(event, Audio) and event.payload == audio)
            event = codec.decode(self.caller_audio(b"\xff" * 160))
            assert isinstance(event, Audio)

        check()
