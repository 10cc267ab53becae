"""A complete phone without network, on virtual time: engine, store and conversations, with a
scripted carrier, recogniser, voice and agent.

::

    async with open_phone(tmp_path) as phone:        # an anyio test on virtual_backend
        await phone.call_in()
        await phone.settle(5)                         # the greeting is played
        phone.hears("Hello?")
        await phone.settle(5)
        assert phone.said == [("bot", ...), ("user", "Hello?"), ("bot", "Yes.")]

Needs the package ``voicecall-calls`` (the extra ``phone``).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import anyio.abc

from voicecall import events as ev
from voicecall import telephony as tel
from voicecall.agent import AgentBackend
from voicecall.audio import MULAW_8K, AudioFormat
from voicecall.errors import InvalidRequest
from voicecall.media import Started, Upgrade
from voicecall.model import (
    CallMode,
    CallRecord,
    Direction,
    EndReason,
    MediaPath,
)
from voicecall.providers import ProviderKind
from voicecall.store import TurnRow
from voicecall.tones import tones_ms
from voicecall.transcription import TranscriptionProvider
from voicecall.tts import SpeechProvider
from voicecall.turn import TurnDetectorProvider
from voicecall_calls.config import VoiceCallConfig
from voicecall_calls.conversation.agentturn import Brain
from voicecall_calls.conversation.base import Conversation
from voicecall_calls.conversation.nativetalk import NativeConversation
from voicecall_calls.conversation.streaming import SpeechSet, StreamConversation
from voicecall_calls.coordinator import MemoryCoordinator
from voicecall_calls.doors import AdmissionRefused
from voicecall_calls.engine.engine import CallEngine
from voicecall_calls.engine.lane import CallLane
from voicecall_calls.observing import turn_keeper
from voicecall_calls.operations import CallOperations, DialOptions
from voicecall_calls.troubles import Troubles

from .clock import VirtualSeam, VirtualTimeLoop
from .fakes import (
    NATIVE,
    STREAMING,
    ScriptedAgentBackend,
    ScriptedCarrier,
    ScriptedSpeech,
    ScriptedTranscription,
)
from .phone import PhoneSocket
from .watching import FailingStore, Watcher

__all__ = ["CALLEE", "CALLER", "FailingStore", "Phone", "Watcher", "open_phone"]

CALLER = "+15550002222"
CALLEE = "+15550001111"
_URL = "https://phone.test/voice/webhook"
_A_MOMENT = 0.01


@dataclass
class Phone:
    """A gateway, its scripted providers, and the far side of its calls.

    - ``opens_streams``: the carrier opens a media socket whenever it is asked to
    - ``sockets``: the sockets that the gateway admitted, oldest first; ``refused``: why it refused
      others
    - ``audio_format``, ``returns_marks``: of new sockets
    - ``takes_tones``: keypad tones are sent through the socket; without it, the carrier closes the
      socket to play them, and opens another one
    - ``plays``: the carrier plays the texts that it is to speak itself, and reports their end
    """

    config: VoiceCallConfig
    media: MediaPath
    engine: CallEngine
    operations: CallOperations
    store: FailingStore
    seam: VirtualSeam
    carrier: ScriptedCarrier
    watcher: Watcher
    stt: ScriptedTranscription
    tts: ScriptedSpeech
    agent: ScriptedAgentBackend
    tasks: anyio.abc.TaskGroup
    troubles: Troubles
    returns_marks: bool = True
    opens_streams: bool = True
    takes_tones: bool = True
    audio_format: AudioFormat = MULAW_8K
    plays: bool = True
    sockets: list[PhoneSocket] = field(default_factory=list)
    refused: list[AdmissionRefused] = field(default_factory=list)
    _number: int = 0

    # --- looking ---

    @property
    def lane(self) -> CallLane:
        """The lane of the only live call."""
        (lane,) = self.engine.lanes.values()
        return lane

    @property
    def record(self) -> CallRecord:
        """The newest record of the only call, live or over."""
        return self.watcher.ends[-1] if self.watcher.ends else self.lane.record

    @property
    def socket(self) -> PhoneSocket:
        """The newest media socket."""
        return self.sockets[-1]

    @property
    def said(self) -> list[tuple[str, str]]:
        """The transcript: speakers and texts."""
        return [(entry.speaker.value, entry.text) for entry in self.record.transcript]

    @property
    def heard(self) -> list[str]:
        """The texts that the far side heard at least in part, in order, over all sockets."""
        audio = b"".join(bytes(socket.heard) for socket in self.sockets)
        return [text for text, _ in self.tts.texts_in(audio)]

    async def rows(self) -> list[TurnRow]:
        """The stored turns, oldest first."""
        return list(reversed(await self.store.turns()))

    def now(self) -> int:
        return self.seam.now_ms()

    # --- driving ---

    async def settle(self, seconds: float = _A_MOMENT) -> None:
        """Let virtual time pass."""
        await anyio.sleep(seconds)

    async def tell(self, *events: ev.CarrierEvent, key: str | None = None) -> tel.WebhookReply:
        """Deliver one webhook with these events; ``key`` identifies the request."""
        self._number += 1
        request = tel.WebhookRequest(
            method="POST", url=_URL, query={}, headers={}, body=b"", client="192.0.2.1"
        )
        verified = tel.Verified(key or f"request-{self._number}")
        reply = await self.engine.handle(request, verified, events)
        await self.settle()
        return reply

    def make(self, kind: type[ev.CarrierEvent], **more: Any) -> ev.CarrierEvent:
        """An event of the only call, with a new key unless one is given."""
        self._number += 1
        values: dict[str, Any] = {"at": self.now(), "key": f"event-{self._number}", **more}
        if "provider_call_id" not in values:
            known = self.record.provider_call_id if self._has_call else None
            values["provider_call_id"] = known or "carrier-1"
        return kind(**values)

    @property
    def _has_call(self) -> bool:
        return bool(self.watcher.ends or self.engine.lanes)

    async def event(self, kind: type[ev.CarrierEvent], **more: Any) -> tel.WebhookReply:
        """Deliver a webhook with one event of the only call."""
        return await self.tell(self.make(kind, **more))

    async def call_in(self, *, from_number: str | None = CALLER, **more: Any) -> None:
        """Let a call come in; unless it is refused, the carrier reports it as answered."""
        values = {"direction": Direction.INBOUND, "provider_call_id": "carrier-1", **more}
        await self.event(ev.Initiated, from_number=from_number, to_number=CALLEE, **values)
        if self.engine.lanes:
            await self.event(ev.Answered)

    async def dial(
        self, message: str | None = None, mode: CallMode = CallMode.CONVERSATION, **more: Any
    ) -> CallRecord:
        """Place a call and let it ring."""
        record = await self.operations.dial(
            DialOptions(to=CALLEE, message=message, mode=mode, **more)
        )
        await self.settle()
        return record

    async def answer(self) -> None:
        """Let the callee answer."""
        await self.event(ev.Answered)

    def hears(self, text: str) -> None:
        """Let the recogniser report a whole utterance at once."""
        self.stt.started()
        self.stt.final(text)
        self.stt.ended()

    async def hang_up(self) -> None:
        """Let the far side hang up."""
        await self.event(ev.CallEnded, reason=EndReason.HANGUP_USER)

    # --- what the carrier does ---

    async def attach(self, token: str, *, call: str | None = None) -> PhoneSocket:
        """Open a media socket with this token. Raises :exc:`AdmissionRefused`."""
        socket = PhoneSocket(
            f"stream-{len(self.sockets) + 1}",
            returns_marks=self.returns_marks,
            takes_tones=self.takes_tones,
            audio_format=self.audio_format,
        )
        provider_call_id = call or self.record.provider_call_id or ""
        started = Started(
            token, socket.stream_id, provider_call_id, self.audio_format, self.audio_format
        )
        upgrade = Upgrade(path="/voice/stream", query={}, headers={}, client="192.0.2.1")
        socket.listener = await self.engine.admit(started, upgrade, socket)
        self.sockets.append(socket)
        self.tasks.start_soon(socket.run)
        return socket

    def acted(self, call: tel.CallRef | None, action: tel.Action) -> None:
        match action:
            case tel.Answer(stream=stream) if stream is not None and self.opens_streams:
                self.tasks.start_soon(self._open, call, stream)
            case tel.AttachStream(stream=stream) if self.opens_streams:
                self.tasks.start_soon(self._open, call, stream)
            case tel.PlayDigits(digits=digits, stream=stream) if stream is not None:
                self.tasks.start_soon(self._play_digits, call, digits, stream)
            case tel.Speak() if self.plays:
                self.tasks.start_soon(self._play, call, action)

    async def _open(self, call: tel.CallRef | None, stream: tel.StreamRequest) -> None:
        await self.settle()
        try:
            await self.attach(stream.token, call=call.provider_call_id if call else None)
        except AdmissionRefused as refusal:
            self.refused.append(refusal)

    async def _play_digits(
        self, call: tel.CallRef | None, digits: str, stream: tel.StreamRequest
    ) -> None:
        """The socket closes, the tones are played, and another socket opens."""
        self.socket.stop()
        await anyio.sleep(tones_ms(digits) / 1000)
        if self.opens_streams:
            await self._open(call, stream)

    async def _play(self, call: tel.CallRef | None, speak: tel.Speak) -> None:
        await anyio.sleep(self.tts.duration_s(speak.text))
        if call is not None and call.call_id in self.engine.lanes:
            await self.event(
                ev.PlaybackEnded,
                utterance_id=speak.utterance_id,
                provider_call_id=call.provider_call_id,
            )


@asynccontextmanager
async def _plain_errors() -> AsyncIterator[None]:
    """Raise a single error, such as a failed assertion, without the groups around it."""
    try:
        yield
    except ExceptionGroup as group:
        error: Exception = group
        while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
            error = error.exceptions[0]
        raise error from None


@asynccontextmanager
async def open_phone(
    directory: Path,
    *,
    media: MediaPath = MediaPath.STREAM,
    config: Mapping[str, Any] | None = None,
    carrier: ScriptedCarrier | None = None,
    transcription: TranscriptionProvider | None = None,
    speech: SpeechProvider | None = None,
    turn: TurnDetectorProvider | None = None,
    agent: AgentBackend | None = None,
    agents: Collection[str] = ("main",),
    returns_marks: bool = True,
    seed: int = 0,
) -> AsyncIterator[Phone]:
    """Open a phone with its store in ``directory``.

    ``config`` is the plugin's configuration, as in the configuration file. Unless it says
    otherwise, inbound calls are accepted, and a silent caller is not prompted. Providers that are
    given replace the scripted ones; without ``turn``, there is no turn detector. Calls can be
    placed as any of ``agents``, which all have the same backend. Runs only on a
    :class:`~voicecall_testing.clock.VirtualTimeLoop`.
    """
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop), "open_phone runs on virtual time"
    settings = VoiceCallConfig.model_validate(
        {"inboundPolicy": "open", "silence": {"promptAfterMs": 0}, **(config or {})}
    )
    streamed = media is MediaPath.STREAM
    seam = VirtualSeam(seed)
    store = FailingStore(directory, seam, fsync=False)
    carrier = carrier or ScriptedCarrier(STREAMING if streamed else NATIVE)
    watcher, stt, tts = Watcher(), ScriptedTranscription(), ScriptedSpeech()
    scripted = ScriptedAgentBackend()
    troubles = Troubles(seam)
    trouble = troubles.of(ProviderKind.TRANSCRIPTION, "scripted")
    speech_set = SpeechSet(transcription or stt, speech or tts, trouble, turn=turn)
    brain = Brain(
        agent or scripted,
        "main",
        None,
        settings.response_timeout_ms / 1000,
        troubles.of(ProviderKind.AGENT, "scripted"),
    )
    engine = CallEngine(
        settings,
        provider_id="scripted",
        provider=carrier,
        store=store,
        coordinator=MemoryCoordinator(seam),
        seam=seam,
        observer=watcher,
        stream_url=lambda: "wss://phone.test/voice/stream",
        webhook_url=lambda: _URL,
        default_agent="main",
        media=media,
    )

    keep = turn_keeper(store, watcher)

    def converse(lane: CallLane) -> Conversation:
        if lane.record.media is not MediaPath.NATIVE:
            return StreamConversation(lane, carrier, speech_set, brain, config=settings, keep=keep)
        return NativeConversation(
            lane,
            carrier,
            brain,
            voice=None,
            config=settings,
            keep=keep,
        )

    def dialling_agent(requested: str | None) -> str:
        if requested is not None and requested not in agents:
            raise InvalidRequest(f"no agent {requested!r}")
        return requested or settings.agent_id or "main"

    engine.conversations = converse
    async with _plain_errors(), AsyncExitStack() as stack:
        stack.callback(loop.add_busy_check(lambda: store.outstanding > 0))
        await stack.enter_async_context(store.lifespan())
        tasks = await stack.enter_async_context(anyio.create_task_group())
        stack.callback(tasks.cancel_scope.cancel)
        phone = Phone(
            settings,
            media,
            engine,
            CallOperations(engine, dialling_agent=dialling_agent, standing=troubles.report),
            store,
            seam,
            carrier,
            watcher,
            stt,
            tts,
            scripted,
            tasks,
            troubles,
            returns_marks,
        )
        carrier.acted = phone.acted
        await stack.enter_async_context(engine.run())
        yield phone
