"""The options with which a voice model's sessions are opened."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from voicecall.audio import AudioFormat
from voicecall.model import CallMode
from voicecall.realtime import RealtimeCapabilities, RealtimeOptions, Tool
from voicecall_calls.config import VoiceCallConfig
from voicecall_calls.conversation.line import AudioLine
from voicecall_calls.conversation.realtime import words
from voicecall_calls.conversation.realtime.voice import ModelVoice

if TYPE_CHECKING:
    from voicecall_calls.engine.lane import CallLane

__all__ = ["SessionTerms"]


class SessionTerms:
    """``tools`` returns the tools for a model that can call functions. ``about`` describes the
    agent and is part of the instructions."""

    def __init__(
        self,
        lane: CallLane,
        line: AudioLine,
        voice: ModelVoice,
        capabilities: RealtimeCapabilities,
        config: VoiceCallConfig,
        *,
        tools: Callable[[], Sequence[Tool]],
    ) -> None:
        self.about = ""
        self._lane = lane
        self._line = line
        self._voice = voice
        self._capabilities = capabilities
        self._config = config.realtime
        self._interruptible = config.barge_in.enabled
        self._tools = tools

    @contextmanager
    def options(self) -> Iterator[RealtimeOptions]:
        """Options for a session that is opened now, which is heard until the context is left."""
        output_format = self._format(self._line.output_format)
        # A model may speak as soon as its session is open.
        sink = self._voice.session_opened(output_format)
        try:
            yield RealtimeOptions(
                sink=sink,
                input_format=self._format(self._line.input_format),
                output_format=output_format,
                instructions=self.instructions,
                tools=self._tools() if self._function_tools else (),
                history=words.history(self._lane.record.transcript),
                interruptible=self._interruptible,
            )
        finally:
            self._voice.session_closed()

    @property
    def instructions(self) -> str:
        return words.instructions(self._config, tools=self._function_tools, about=self.about)

    @property
    def _function_tools(self) -> bool:
        converses = self._lane.record.mode is CallMode.CONVERSATION
        return converses and not self._capabilities.delegation

    def _format(self, wanted: AudioFormat) -> AudioFormat:
        formats = self._capabilities.formats
        return wanted if wanted in formats else formats[0]
