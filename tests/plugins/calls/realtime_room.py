"""A phone whose calls are handled by a scripted voice model."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from voicecall.hosting import ToolSpec
from voicecall.model import MediaPath
from voicecall.providers import ProviderKind
from voicecall.realtime import RealtimeProvider
from voicecall.telephony import TelephonyCapabilities
from voicecall.tts import SpeechProvider
from voicecall_calls.agentprofile import AgentProfile
from voicecall_calls.conversation.agentturn import Brain
from voicecall_calls.conversation.base import Conversation
from voicecall_calls.conversation.lastwords import FallbackSpeech
from voicecall_calls.conversation.realtime.conversation import RealtimeConversation
from voicecall_calls.engine.lane import CallLane
from voicecall_calls.observing import turn_keeper
from voicecall_testing.fakes import STREAMING, ScriptedCarrier
from voicecall_testing.harness import Phone, open_phone

__all__ = ["open_realtime"]


@asynccontextmanager
async def open_realtime(
    directory: Path,
    model: RealtimeProvider,
    *,
    returns_marks: bool = True,
    capabilities: TelephonyCapabilities = STREAMING,
    synthesis: SpeechProvider | None = None,
    voice: str | None = None,
    profile: AgentProfile | None = None,
    tools: Sequence[ToolSpec] = (),
    brain_model: str | None = None,
    seed: int = 0,
    **config: Any,
) -> AsyncIterator[Phone]:
    """``synthesis`` speaks where the model cannot, in its ``voice`` (the carrier's, without one);
    ``tools`` are the gateway's."""
    known = {tool.name: tool for tool in tools}
    async with open_phone(
        directory,
        media=MediaPath.REALTIME,
        carrier=ScriptedCarrier(capabilities),
        config=config,
        returns_marks=returns_marks,
        seed=seed,
    ) as phone:
        brain = Brain(
            phone.agent,
            "main",
            None,
            phone.config.response_timeout_ms / 1000,
            phone.troubles.of(ProviderKind.AGENT, "scripted"),
            brain_model,
        )

        keep = turn_keeper(phone.store, phone.watcher)

        def converse(lane: CallLane) -> Conversation:
            return RealtimeConversation(
                lane,
                phone.carrier,
                model,
                brain,
                config=phone.config,
                keep=keep,
                find_tool=known.get,
                profile=profile,
                fallback=FallbackSpeech(synthesis, voice),
                trouble=phone.troubles.of(ProviderKind.REALTIME, "scripted"),
            )

        phone.engine.conversations = converse
        yield phone
