"""The phone as a gateway service: everything made, started and stopped in order."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio

from voicecall.errors import ConfigError, ProviderError, VoicecallError
from voicecall.events import CallEvent
from voicecall.hosting import GatewayHost
from voicecall.model import CallRecord, MediaPath, TranscriptEntry
from voicecall.providers import ProviderKind
from voicecall.store import CallStore, Commit, TurnRow
from voicecall_calls.config import VoiceCallConfig
from voicecall_calls.conversation.base import Conversation
from voicecall_calls.conversation.dialogue import Brain, KeepTurn
from voicecall_calls.engine.engine import CallEngine
from voicecall_calls.engine.lane import CallLane
from voicecall_calls.operations import CallOperations, projection
from voicecall_calls.rpc import PhoneRpc
from voicecall_calls.server.options import ServeOptions, StreamOptions, WebhookSecurity
from voicecall_calls.server.server import CallServer
from voicecall_calls.wiring import CONFIG_PATH, PLUGIN_ID, Wiring, is_public_url, require, resolve

__all__ = ["PhoneService"]

_log = logging.getLogger("voicecall.calls")


class PhoneService:
    """One a gateway. ``engine``, ``server`` and ``carrier`` are set while it runs."""

    name = PLUGIN_ID

    def __init__(self, host: GatewayHost) -> None:
        self._host = host
        self._missing: list[str] = []
        self.engine: CallEngine | None = None
        self.server: CallServer | None = None
        self.carrier: Any = None
        self._operations: CallOperations | None = None
        config: VoiceCallConfig = host.plugin_config(PLUGIN_ID)
        self._config = config
        timeouts = config.transcript_timeout_ms + config.tts.timeout_ms
        self._rpc = PhoneRpc(self.operations, host.seam, poll_timeout_ms=timeouts)
        for method in self._rpc.methods():
            host.register_rpc(method)

    # --- the gateway's view -----------------------------------------------------------------

    def problems(self) -> Sequence[str]:
        return list(self._missing)

    def operations(self) -> CallOperations:
        """The operations of the running phone. Raises ``ConfigError`` with what is missing."""
        if self._operations is None:
            raise ConfigError("; ".join(self._missing) or "the phone is not running")
        return self._operations

    async def drain(self) -> None:
        if self.engine is not None:
            self.engine.accepting = False
            await self.engine.wait_idle()

    @asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        if not self._config.enabled:
            self._missing = [f"the phone is off: {CONFIG_PATH}.enabled is false"]
            yield
            return
        wiring = self._resolve()
        if self._missing or wiring is None:
            _log.warning("the phone does not start: %s", "; ".join(self._missing))
            yield
            return
        for note in wiring.notes:
            _log.warning(note)
        async with AsyncExitStack() as stack:
            await self._start(stack, wiring)
            try:
                yield
            finally:
                self._operations = None

    def _resolve(self) -> Wiring | None:
        host = self._host
        try:
            wiring = resolve(
                self._config,
                registry=host.registry,
                environ=host.environ,
                agents=host.section("agents"),
                tts=host.section("tts"),
            )
        except VoicecallError as error:
            self._missing = [str(error)]
            return None
        self._missing = list(wiring.problems)
        return wiring

    # --- starting ---------------------------------------------------------------------------

    async def _start(self, stack: AsyncExitStack, wiring: Wiring) -> None:
        host, config = self._host, self._config
        context = host.provider_context(CONFIG_PATH)
        info, carrier_config = require(wiring.carrier)
        carrier = info.factory(carrier_config, context)
        store = await self._core(stack, ProviderKind.STORE, "sqlite", self._store_block())
        coordinator = await self._core(stack, ProviderKind.COORDINATOR, "memory", {})
        backend_info, backend_config = require(wiring.backend)
        backend = backend_info.factory(backend_config, context)
        await stack.enter_async_context(backend.lifespan())
        voice = _voice(wiring)

        server: CallServer | None = None

        def url_of(name: str) -> Callable[[], str]:
            return lambda: str(getattr(server, name))

        engine = CallEngine(
            config,
            provider_id=info.id,
            provider=carrier,
            store=store,
            coordinator=coordinator,
            seam=host.seam,
            observer=_Observer(host),
            stream_url=url_of("stream_url"),
            webhook_url=url_of("webhook_url"),
            default_agent=wiring.agent.agent_id,
            inbound_media=wiring.media,
            voice=voice,
        )
        brain = Brain(
            backend,
            wiring.agent.agent_id,
            config.response_system_prompt,
            config.response_timeout_ms / 1000,
        )
        keep = _turn_keeper(store, host)
        engine.conversations = await self._conversations(stack, wiring, engine, brain, keep, voice)
        server = self._server(engine, carrier)
        await stack.enter_async_context(carrier.lifespan())
        await stack.enter_async_context(server.run())
        if carrier.capabilities.public_url and not is_public_url(server.webhook_url):
            raise ConfigError(
                f"{info.label} cannot reach {server.webhook_url}; set a public https URL",
                path=f"{CONFIG_PATH}.publicUrl",
            )
        await stack.enter_async_context(engine.run())
        self._rpc.tasks = await stack.enter_async_context(anyio.create_task_group())
        stack.callback(self._rpc.tasks.cancel_scope.cancel)
        try:
            await carrier.register_webhook(server.webhook_url)
        except ProviderError as error:
            _log.warning("inbound calls are not announced to the carrier: %s", error)
        self.engine, self.server, self.carrier = engine, server, carrier
        self._operations = CallOperations(engine, outbound_media=wiring.media)
        _log.info("the phone is ready at %s", server.webhook_url)

    def _store_block(self) -> dict[str, Any]:
        directory = self._config.store
        path = Path(directory).expanduser() if directory else self._host.state_dir / "voice-calls"
        return {"directory": str(path.absolute())}

    async def _core(
        self, stack: AsyncExitStack, kind: ProviderKind, provider_id: str, block: dict[str, Any]
    ) -> Any:
        provider = self._host.provider_context(kind.value).create(kind, provider_id, block)
        await stack.enter_async_context(provider.lifespan())
        return provider

    def _server(self, engine: CallEngine, carrier: Any) -> CallServer:
        config = self._config
        security, streaming = config.webhook_security, config.streaming
        return CallServer(
            carrier,
            engine,
            engine,
            serve=ServeOptions(
                port=config.serve.port, bind=config.serve.bind, path=config.serve.path
            ),
            stream=StreamOptions(
                path=self._stream_path,
                pre_start_timeout_ms=streaming.pre_start_timeout_ms,
                max_pending=streaming.max_pending_connections,
                max_pending_per_client=streaming.max_pending_connections_per_ip,
                max_connections=streaming.max_connections,
            ),
            security=WebhookSecurity(
                allowed_hosts=security.allowed_hosts,
                trust_forwarding_headers=security.trust_forwarding_headers,
                trusted_proxy_ips=security.trusted_proxy_ips,
                max_in_flight_per_client=security.max_in_flight_per_client,
                max_in_flight=security.max_in_flight,
            ),
            seam=self._host.seam,
            public_url=config.public_url,
        )

    @property
    def _stream_path(self) -> str:
        realtime = self._config.realtime
        path = realtime.stream_path if realtime.enabled else None
        return path or self._config.streaming.stream_path

    async def _conversations(
        self,
        stack: AsyncExitStack,
        wiring: Wiring,
        engine: CallEngine,
        brain: Brain,
        keep: KeepTurn,
        voice: str | None,
    ) -> Callable[[CallLane], Conversation]:
        from voicecall_calls.conversation.nativetalk import NativeConversation

        config, seam, carrier = self._config, self._host.seam, engine.provider

        def native(lane: CallLane) -> Conversation:
            return NativeConversation(
                lane,
                carrier,
                brain,
                planner=engine.planner,
                voice=voice,
                config=config,
                keep=keep,
                seam=seam,
            )

        if wiring.media is MediaPath.NATIVE:
            return native
        if wiring.media is MediaPath.REALTIME:
            talking = await self._realtime(stack, wiring, engine, brain, keep)

            def talked(lane: CallLane) -> Conversation:
                return native(lane) if lane.record.media is MediaPath.NATIVE else talking(lane)

            return talked
        from voicecall_calls.conversation.streaming import SpeechSet, StreamConversation

        context = self._host.provider_context(CONFIG_PATH)
        parts = []
        for selected in (wiring.transcription, wiring.speech):
            assert selected is not None
            info, values = require(selected)
            provider = info.factory(values, context)
            await stack.enter_async_context(provider.lifespan())
            parts.append(provider)
        speech = SpeechSet(parts[0], parts[1], voice)

        def streamed(lane: CallLane) -> Conversation:
            if lane.record.media is MediaPath.NATIVE:
                return native(lane)
            return StreamConversation(
                lane, carrier, speech, brain, config=config, keep=keep, seam=seam
            )

        return streamed

    async def _realtime(
        self,
        stack: AsyncExitStack,
        wiring: Wiring,
        engine: CallEngine,
        brain: Brain,
        keep: KeepTurn,
    ) -> Callable[[CallLane], Conversation]:
        from voicecall_calls.conversation.realtime import RealtimeConversation, RealtimeModel

        assert wiring.realtime is not None
        info, values = require(wiring.realtime)
        provider = info.factory(values, self._host.provider_context(CONFIG_PATH))
        await stack.enter_async_context(provider.lifespan())
        model, config, seam = RealtimeModel(provider), self._config, self._host.seam

        def make(lane: CallLane) -> Conversation:
            return RealtimeConversation(
                lane, engine.provider, model, brain, config=config, keep=keep, seam=seam
            )

        return make


def _voice(wiring: Wiring) -> str | None:
    """The preferred voice: that of the chosen speech provider's block."""
    chosen = wiring.speech.info.id if wiring.speech and wiring.speech.info else wiring.tts.provider
    block = wiring.tts.providers.get(chosen or "", {})
    for key in ("speakerVoice", "speakerVoiceId", "voice", "voiceId"):
        value = block.get(key)
        if isinstance(value, str) and value.strip():
            return value.strip()
    return None


def _turn_keeper(store: CallStore, host: GatewayHost) -> KeepTurn:
    async def keep(row: TurnRow) -> None:
        await store.commit(Commit(turns=(row,)))
        host.publish(
            "voicecall.turn",
            {
                "callId": row.call_id,
                "turnId": row.turn_id,
                "kind": row.kind,
                "latencyMs": row.latency_ms,
                "bargeInStopMs": row.barge_in_stop_ms,
                "filler": row.filler,
                "failed": row.failed,
            },
        )

    return keep


class _Observer:
    """Hands committed events on to hooks and to subscribers of ``/rpc``."""

    def __init__(self, host: GatewayHost) -> None:
        self._host = host

    def event(self, record: CallRecord, event: CallEvent) -> None:
        self._host.observe_event(record, event)
        self._host.publish(
            "voicecall.call", {"event": type(event).__name__, "call": projection(record)}
        )

    def said(self, record: CallRecord, entry: TranscriptEntry) -> None:
        self._host.publish(
            "voicecall.transcript",
            {
                "callId": record.call_id,
                "at": entry.at,
                "speaker": entry.speaker.value,
                "text": entry.text,
                "complete": entry.complete,
            },
        )

    def ended(self, record: CallRecord) -> None:
        self._host.observe_end(record)
        self._host.publish("voicecall.ended", {"call": projection(record)})
