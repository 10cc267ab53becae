"""Providers that do what a test tells them: a carrier, a recogniser, a voice and an agent.

They need no network and no time of their own beyond ``anyio.sleep``, so they run on virtual
time (:mod:`voicecall_testing.clock`). :mod:`voicecall_testing.harness` puts them together.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

import anyio

from voicecall import events as ev
from voicecall import telephony as tel
from voicecall.agent import AgentBackend, AgentEvent, AgentTurn, TextDelta
from voicecall.audio import MULAW_8K, AudioFormat
from voicecall.errors import MediaProtocolError, ProviderError, WebhookRejected
from voicecall.media import (
    Audio,
    Dtmf,
    MarkReached,
    MediaCodec,
    MediaEvent,
    Message,
    Started,
    Stopped,
    Upgrade,
)
from voicecall.transcription import (
    Final,
    Partial,
    SessionLost,
    SpeechEnded,
    SpeechStarted,
    TranscriptionEvent,
    TranscriptionOptions,
    TranscriptionProvider,
    TranscriptionSession,
)
from voicecall.tts import PlainSpeechProvider

__all__ = [
    "NATIVE",
    "STREAMING",
    "ScriptedAgentBackend",
    "ScriptedCarrier",
    "ScriptedCodec",
    "ScriptedSpeech",
    "ScriptedTranscription",
    "ScriptedTranscriptionSession",
]

NATIVE = tel.TelephonyCapabilities(
    native_speech=True,
    native_listening=True,
    dtmf_out=True,
    explicit_answer=True,
    dial_lookup=True,
    public_url=False,
    from_number_required=False,
)
"""A carrier that speaks and listens by itself."""
STREAMING = replace(NATIVE, stream=frozenset({tel.StreamPoint.ANSWER, tel.StreamPoint.COMMAND}))
"""The same with media sockets, asked for in the answer or by a command."""

_SIGNATURE = "x-scripted-signature"
_PIECE_MS = 100


# --- the carrier -----------------------------------------------------------------------------


class ScriptedCodec(MediaCodec):
    """JSON objects with one key: ``start``, ``audio``, ``mark``, ``clear``, ``digits``,
    ``stop``. Both directions use the same messages."""

    def decode(self, message: Message) -> MediaEvent | None:
        try:
            values = json.loads(message)
            ((kind, value),) = values.items()
            match kind:
                case "start":
                    return Started(
                        str(value["token"]), str(value["stream"]), str(value["call"]),
                        MULAW_8K, MULAW_8K,
                    )  # fmt: skip
                case "audio":
                    return Audio(base64.b64decode(value, validate=True), 0)
                case "mark":
                    return MarkReached(str(value))
                case "digits":
                    return Dtmf(str(value))
                case "stop":
                    return Stopped(str(value))
        except (ValueError, AttributeError, KeyError, TypeError, binascii.Error) as error:
            raise MediaProtocolError(f"not a message of the scripted carrier: {error}") from None
        return None

    def audio(self, payload: bytes) -> Message:
        return json.dumps({"audio": base64.b64encode(payload).decode()})

    def mark(self, name: str) -> Message | None:
        return json.dumps({"mark": name})

    def clear(self) -> Message | None:
        return json.dumps({"clear": True})

    def digits(self, digits: str) -> Message | None:
        return json.dumps({"digits": digits})


class ScriptedCarrier(tel.TelephonyProvider):
    """Does what it is asked, and keeps a list of it.

    ``dialled`` are the dial requests, ``performed`` the actions asked for by a request and
    ``rendered`` those that went out in a reply (all of them, if ``steers``: a carrier whose
    replies steer the call). ``acted`` is called with each action, however it came. Errors to
    raise wait in ``dial_errors``, ``action_errors`` (by type of action) and ``status_errors``,
    one a request. ``delay_s`` is how long every request takes. ``status_of`` is the answer to
    :meth:`status`. A webhook's body is a key of ``inbox``, which holds its events.
    """

    def __init__(
        self, capabilities: tel.TelephonyCapabilities = STREAMING, *, steers: bool = False
    ) -> None:
        self.capabilities = capabilities
        self.steers = steers
        self.delay_s = 0.0
        self.dialled: list[tel.DialRequest] = []
        self.performed: list[tel.Action] = []
        self.rendered: list[tel.Action] = []
        self.acted: Callable[[tel.CallRef | None, tel.Action], None] = _nobody
        self.dial_errors: deque[ProviderError] = deque()
        self.action_errors: dict[type[tel.Action], deque[ProviderError]] = {}
        self.status_errors: deque[ProviderError] = deque()
        self.status_of = tel.CallStatus(ev.CarrierStatus.CONNECTED)
        self.inbox: dict[bytes, Sequence[ev.CarrierEvent]] = {}
        self.webhook_url: str | None = None

    def fail(self, action: type[tel.Action], *errors: ProviderError) -> None:
        """Let the next requests for such an action fail."""
        self.action_errors.setdefault(action, deque()).extend(errors)

    # --- pure ---

    @property
    def signature_headers(self) -> tuple[tuple[str, ...], ...]:
        return ((_SIGNATURE,),)

    def verify(self, request: tel.WebhookRequest, now_ms: int) -> tel.Verified:
        key = request.headers.get(_SIGNATURE, "")
        if not key:
            raise WebhookRejected(401, "no signature")
        return tel.Verified(key)

    def parse(self, request: tel.WebhookRequest, now_ms: int) -> Sequence[ev.CarrierEvent]:
        events = self.inbox.get(request.body)
        if events is None:
            raise WebhookRejected(400, "a body that the test did not announce")
        return events

    def render(
        self,
        request: tel.WebhookRequest,
        call: tel.CallRef | None,
        actions: Sequence[tel.Action],
    ) -> tel.Rendered:
        if not self.steers:
            return tel.Rendered(tel.WebhookReply(), tuple(actions))
        self.rendered.extend(actions)
        for action in actions:
            self.acted(call, action)
        body = json.dumps([type(action).__name__ for action in actions]).encode()
        return tel.Rendered(tel.WebhookReply(body=body, content_type="application/json"))

    def media_codec(self, upgrade: Upgrade) -> MediaCodec:
        return ScriptedCodec()

    # --- requests ---

    async def place_call(self, request: tel.DialRequest) -> str:
        self.dialled.append(request)
        await anyio.sleep(self.delay_s)
        if self.dial_errors:
            raise self.dial_errors.popleft()
        return f"carrier-{len(self.dialled)}"

    async def find_dial(self, call_id: str) -> str | None:
        for number, request in enumerate(self.dialled, 1):
            if request.call_id == call_id:
                return f"carrier-{number}"
        return None

    async def perform(self, call: tel.CallRef, action: tel.Action) -> None:
        self.performed.append(action)
        await anyio.sleep(self.delay_s)
        waiting = self.action_errors.get(type(action))
        if waiting:
            raise waiting.popleft()
        self.acted(call, action)

    async def status(self, call: tel.CallRef) -> tel.CallStatus:
        if self.status_errors:
            raise self.status_errors.popleft()
        return self.status_of

    async def register_webhook(self, url: str) -> None:
        self.webhook_url = url

    def performed_of(self, *kinds: type[tel.Action]) -> list[tel.Action]:
        """The performed actions of some types."""
        return [action for action in self.performed if isinstance(action, kinds)]


def _nobody(call: tel.CallRef | None, action: tel.Action) -> None:
    """Nobody reacts."""


# --- recognition -----------------------------------------------------------------------------


class ScriptedTranscriptionSession(TranscriptionSession):
    """Hears what :class:`ScriptedTranscription` is told. ``audio`` is all that was sent."""

    def __init__(self, options: TranscriptionOptions) -> None:
        self.options = options
        self.audio = bytearray()
        self._in, self._out = anyio.create_memory_object_stream[TranscriptionEvent](1000)

    @property
    def at_ms(self) -> int:
        """Position on the audio clock."""
        return round(self.options.audio_format.duration_ms(len(self.audio)))

    def send_audio(self, audio: bytes) -> None:
        self.audio += audio

    def tell(self, event: TranscriptionEvent) -> None:
        self._in.send_nowait(event)

    def commit(self) -> None:
        """Utterances end when the test says so."""

    async def finish(self) -> None:
        self._in.close()

    def close(self) -> None:
        self._in.close()
        self._out.close()

    async def __aiter__(self) -> AsyncIterator[TranscriptionEvent]:
        async for event in self._out:
            yield event


class ScriptedTranscription(TranscriptionProvider):
    """The newest session hears what the test says it hears. ``open_errors`` are raised, one
    each, by the next sessions; opening takes ``open_delay_s``."""

    def __init__(self) -> None:
        self.sessions: list[ScriptedTranscriptionSession] = []
        self.open_errors: deque[ProviderError] = deque()
        self.open_delay_s = 0.0
        self._number = 0

    @asynccontextmanager
    async def session(
        self, options: TranscriptionOptions
    ) -> AsyncIterator[ScriptedTranscriptionSession]:
        await anyio.sleep(self.open_delay_s)
        if self.open_errors:
            raise self.open_errors.popleft()
        session = ScriptedTranscriptionSession(options)
        self.sessions.append(session)
        try:
            yield session
        finally:
            session.close()

    @property
    def current(self) -> ScriptedTranscriptionSession:
        """The newest session."""
        return self.sessions[-1]

    def started(self) -> None:
        """The caller begins to make sounds."""
        self._number += 1
        session = self.current
        session.tell(SpeechStarted(utterance=self._number, at_ms=session.at_ms))

    def partial(self, text: str) -> None:
        session = self.current
        session.tell(Partial(utterance=self._number, at_ms=session.at_ms, text=text))

    def final(self, text: str, confidence: float | None = None) -> None:
        """The utterance is over and understood; blank: it was not."""
        session = self.current
        session.tell(
            Final(utterance=self._number, at_ms=session.at_ms, text=text, confidence=confidence)
        )

    def ended(self) -> None:
        """The caller is silent again."""
        session = self.current
        session.tell(SpeechEnded(utterance=self._number, at_ms=session.at_ms))

    def lost(self, reason: str = "gone", *, fatal: bool = True) -> None:
        self.current.tell(SessionLost(reason=reason, fatal=fatal))


# --- speech ----------------------------------------------------------------------------------


class ScriptedSpeech(PlainSpeechProvider):
    """Every character lasts ``ms_per_char``, and every text has a byte of its own, so that
    :meth:`texts_in` tells from audio what was said and for how long.

    ``errors`` are raised, one each, by the next texts (None lets one pass); a text in ``mute``
    gives no audio; the first audio of a text takes ``delay_s``.
    """

    def __init__(self, *, ms_per_char: int = 50) -> None:
        self.ms_per_char = ms_per_char
        self.delay_s = 0.0
        self.errors: deque[ProviderError | None] = deque()
        self.mute: set[str] = set()
        self.voices: list[str | None] = []
        self._bytes: dict[str, int] = {}

    @property
    def native_format(self) -> AudioFormat:
        return MULAW_8K

    def duration_s(self, text: str) -> float:
        """Seconds that ``text`` lasts."""
        return len(text.strip()) * self.ms_per_char / 1000

    async def synthesize(self, text: str, voice: str | None) -> AsyncIterator[bytes]:
        self.voices.append(voice)
        await anyio.sleep(self.delay_s)
        error = self.errors.popleft() if self.errors else None
        if error is not None:
            raise error
        said = text.strip()
        if said in self.mute:
            return
        # 0xff is silence; at most 255 different texts a test.
        value = self._bytes.setdefault(said, len(self._bytes) % 255)
        audio = bytes([value]) * MULAW_8K.size(len(said) * self.ms_per_char)
        piece = MULAW_8K.size(_PIECE_MS)
        for start in range(0, len(audio), piece):
            yield audio[start : start + piece]

    def texts_in(self, audio: bytes) -> list[tuple[str, float]]:
        """What is said in ``audio``, in order: texts and their milliseconds."""
        names: Mapping[int, str] = {value: text for text, value in self._bytes.items()}
        runs: list[tuple[int, int]] = []
        for value in audio:
            if runs and runs[-1][0] == value:
                runs[-1] = (value, runs[-1][1] + 1)
            else:
                runs.append((value, 1))
        return [
            (names[value], MULAW_8K.duration_ms(count)) for value, count in runs if value in names
        ]


# --- the agent -------------------------------------------------------------------------------

Step = str | float | AgentEvent | Exception


class ScriptedAgentBackend(AgentBackend):
    """Each turn takes the next script of :meth:`then`, and ``Yes.`` where none is left.

    A script has texts (deltas of the answer), numbers (seconds to wait), events, and exceptions
    to raise. ``turns`` were asked, ``settled`` holds what was heard of interrupted answers.
    """

    def __init__(self, *, otherwise: str = "Yes.") -> None:
        self.otherwise = otherwise
        self.turns: list[AgentTurn] = []
        self.settled: list[tuple[str, str]] = []
        self._scripts: deque[tuple[Step, ...]] = deque()

    def then(self, *steps: Step) -> None:
        """The script of one more turn."""
        self._scripts.append(steps)

    @property
    def asked(self) -> list[str]:
        """The texts of the turns."""
        return [turn.text for turn in self.turns]

    async def reply(self, turn: AgentTurn) -> AsyncIterator[AgentEvent]:
        self.turns.append(turn)
        script = self._scripts.popleft() if self._scripts else (self.otherwise,)
        for step in script:
            if isinstance(step, str):
                yield TextDelta(step)
            elif isinstance(step, int | float):
                await anyio.sleep(step)
            elif isinstance(step, Exception):
                raise step
            else:
                yield step

    async def settle(self, turn: AgentTurn, heard_text: str) -> None:
        self.settled.append((turn.text, heard_text))
