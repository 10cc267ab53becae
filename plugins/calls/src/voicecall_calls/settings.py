"""The settings of one call: the configuration of its number, its agent and its voice.

A call keeps the settings that it began with. A changed configuration creates a new book, which is
used for new calls.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

from voicecall.agent import AgentBackend
from voicecall.errors import InvalidRequest, VoicecallError
from voicecall.model import CallRecord
from voicecall.providers import ProviderContext, ProviderKind
from voicecall.selection import Selected, Selection
from voicecall_calls.config import VoiceCallConfig
from voicecall_calls.conversation.agentturn import Brain
from voicecall_calls.making import open_provider
from voicecall_calls.speech.chain import ChainMember, ChainSpeech, Rest
from voicecall_calls.speech.choosing import VOICE_KEYS, SpeechChoice, block_of, voice_of
from voicecall_calls.troubles import Troubles
from voicecall_calls.wiring import Wiring, require

__all__ = ["CallSettings", "Providers", "SettingsBook", "effective"]

_log = logging.getLogger("voicecall.calls")


def effective(config: VoiceCallConfig, route_key: str | None) -> VoiceCallConfig:
    """The configuration for calls to one of our numbers: the root, overridden by the route."""
    route = config.numbers.get(route_key or "")
    if route is None:
        return config
    own = {name: getattr(route, name) for name in route.model_fields_set if name != "tts"}
    return config.model_copy(
        update={name: value for name, value in own.items() if value is not None}
    )


@dataclass(frozen=True, slots=True)
class CallSettings:
    """``speech`` is None unless a speech provider is in use. ``config`` has the merged ``tts``."""

    config: VoiceCallConfig
    brain: Brain
    voice: str | None
    speech: ChainSpeech | None


class Providers:
    """Speech providers and agent backends, made once and kept while the phone runs."""

    def __init__(self, stack: AsyncExitStack, context: ProviderContext) -> None:
        self._stack = stack
        self._context = context
        self._made: dict[str, Any] = {}
        self._failed: dict[str, str] = {}
        self._rests: dict[str, Rest] = {}
        self.troubles = Troubles(context.seam)

    async def need(self, wiring: Wiring) -> None:
        """Make the providers that ``wiring`` needs and that do not exist yet."""
        for key, selected, loss in _needs(wiring):
            if self._has(key, loss):
                continue
            try:
                self._made[key] = await open_provider(selected, self._context, self._stack)
            except VoicecallError as error:
                if loss is None:
                    raise
                self._failed[key] = str(error)
                _log.warning("%s: %s", loss, error)

    def has(self, wiring: Wiring) -> bool:
        """Whether all providers that ``wiring`` needs exist already."""
        return all(self._has(key, loss) for key, _, loss in _needs(wiring))

    def _has(self, key: str, loss: str | None) -> bool:
        return key in self._made or (loss is not None and key in self._failed)

    def failure(self, wiring: Wiring, agent_id: str) -> str | None:
        """Why the backend of an agent could not be made."""
        return self._failed.get(_backend_key(wiring, agent_id))

    def speech(self, choice: SpeechChoice, call_id: str) -> ChainSpeech | None:
        """The speech providers of one call; None if there are none."""
        members = []
        for selected in choice.chain:
            key = _speech_key(choice, selected)
            if key in self._made:
                info, _ = require(selected)
                voice = voice_of(choice.tts, selected)
                rest = self._rest(key, info.id)
                members.append(ChainMember(info.id, self._made[key], voice, rest))
        if not members:
            return None
        return ChainSpeech(
            members,
            timeout_s=choice.tts.timeout_ms / 1000,
            max_text=choice.tts.max_text_length,
            call_id=call_id,
        )

    def _rest(self, key: str, provider_id: str) -> Rest:
        if key not in self._rests:
            trouble = self.troubles.of(ProviderKind.TTS, provider_id)
            self._rests[key] = Rest(self._context.seam, trouble)
        return self._rests[key]

    def backend(self, wiring: Wiring, agent_id: str) -> AgentBackend:
        backend: AgentBackend = self._made[_backend_key(wiring, agent_id)]
        return backend


def _needs(wiring: Wiring) -> Iterator[tuple[str, Selected, str | None]]:
    """The providers that calls use: key, selection, and what is lost without it. The last is set
    for providers that may fail: backends of optional agents, and speech providers that only take
    over from another."""
    for choice in wiring.speech.values():
        for selected in choice.chain:
            loss = None
            if selected is not choice.selected:
                provider_id = require(selected)[0].id
                loss = f"the fallback speech provider {provider_id} is not used"
            yield _speech_key(choice, selected), selected, loss
    for agent_id, selected in wiring.backends.items():
        loss = f"no call can be placed as the agent {agent_id}"
        yield (
            _backend_key(wiring, agent_id),
            selected,
            loss if agent_id in wiring.optional else None,
        )


def _key(kind: str, provider_id: str, block: Mapping[str, Any]) -> str:
    return json.dumps([kind, provider_id, block], sort_keys=True, default=str)


def _speech_key(choice: SpeechChoice, selected: Selected) -> str:
    # The voice is chosen for each call, so another voice needs no other provider.
    block = block_of(choice.tts, selected)
    rest = {name: value for name, value in block.items() if name not in VOICE_KEYS}
    return _key("speech", require(selected)[0].id, rest)


def _backend_key(wiring: Wiring, agent_id: str) -> str:
    info, _ = require(wiring.backends[agent_id])
    return _key("agent", info.id, wiring.agents.block(info))


class SettingsBook:
    """The settings of every call, by its record."""

    def __init__(self, wiring: Wiring, providers: Providers) -> None:
        self.wiring = wiring
        self._providers = providers
        self.troubles = providers.troubles
        self._configs = {key: self._config(key) for key in (None, *wiring.config.numbers)}

    def _config(self, route_key: str | None) -> VoiceCallConfig:
        """The configuration shared by all calls of a route."""
        config = effective(self.wiring.config, route_key)
        return config.model_copy(update={"tts": self._choice(route_key).tts})

    def _choice(self, route_key: str | None) -> SpeechChoice:
        """The speech choice of a route, or the general one if the route's cannot be used."""
        usual = self.wiring.speech[None]
        choice = self.wiring.speech.get(route_key, usual)
        streamed = usual.selected.outcome is Selection.OK
        return usual if streamed and choice.selected.outcome is not Selection.OK else choice

    def _useless(self, agent_id: str) -> str | None:
        """Why an agent cannot take calls; None if it can."""
        wiring = self.wiring
        if agent_id in wiring.backends:
            return self._providers.failure(wiring, agent_id)
        known = ", ".join(sorted({*wiring.backends, *wiring.unusable}))
        return wiring.unusable.get(agent_id) or f"no such agent (there are: {known[:200]})"

    def dialling_agent(self, requested: str | None) -> str:
        """The agent of an outbound call: ``requested``, else the default agent. Raises
        ``InvalidRequest`` for an agent that does not exist or cannot take calls."""
        if requested is None:
            return self.wiring.agent_id
        agent_id = requested.strip().lower()
        reason = self._useless(agent_id)
        if reason is not None:
            raise InvalidRequest(f"the agent {agent_id[:80]!r} cannot take the call: {reason}")
        return agent_id

    def for_call(self, record: CallRecord) -> CallSettings:
        wiring = self.wiring
        choice = self._choice(record.route_key)
        config = self._configs.get(record.route_key, self._configs[None])
        agent_id = record.agent_id
        if agent_id is None or self._useless(agent_id) is not None:
            agent_id = wiring.agent_id
        brain = Brain(
            self._providers.backend(wiring, agent_id),
            agent_id,
            config.response_system_prompt,
            config.response_timeout_ms / 1000,
            self.troubles.of(ProviderKind.AGENT, require(wiring.backends[agent_id])[0].id),
            config.response_model or wiring.agents.model(agent_id),
            wiring.agents.fallback_models(agent_id),
            wiring.agents.allowed_tools(agent_id),
            wiring.agents.profile(agent_id).identity.get("name"),
        )
        return CallSettings(
            config,
            brain,
            voice_of(choice.tts, choice.selected),
            self._providers.speech(choice, record.call_id),
        )
