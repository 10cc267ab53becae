"""What a realtime conversation is held with."""

from __future__ import annotations

from dataclasses import dataclass

from voicecall.realtime import RealtimeProvider
from voicecall.tts import SpeechProvider
from voicecall_calls.conversation.realtimetools import FindTool

__all__ = ["FallbackSpeech", "RealtimeModel"]


@dataclass(frozen=True, slots=True)
class RealtimeModel:
    """The voice model of realtime calls; ``find_tool`` gives the gateway's tools, by name, that
    carry out what it calls."""

    provider: RealtimeProvider
    find_tool: FindTool


@dataclass(frozen=True, slots=True)
class FallbackSpeech:
    """Who speaks where the model cannot: a synthesis provider, where one is selected, which begins
    within ``patience_s``, and the voice of it (of the carrier, without one)."""

    provider: SpeechProvider | None = None
    voice: str | None = None
    patience_s: float = 8.0
