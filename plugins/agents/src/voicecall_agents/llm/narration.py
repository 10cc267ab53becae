"""Translates the library's events of a run into agent events."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic_ai.messages import (
    FunctionToolCallEvent,
    FunctionToolResultEvent,
    PartDeltaEvent,
    PartStartEvent,
    TextPart,
    TextPartDelta,
    ToolCallPart,
    ToolReturnPart,
)

from voicecall.agent import AgentEvent, EndCall, PressKeys, TextDelta, ToolActivity
from voicecall.errors import InvalidRequest
from voicecall.tones import check_digits
from voicecall_agents.llm.prompts import END_CALL_NAMES, PRESS_KEYS

__all__ = ["Narration"]

_OURS = frozenset({*END_CALL_NAMES, PRESS_KEYS})
_GIVEN_UP = "The tool was given up before it answered. Whether it had an effect is not known."


class Narration:
    """One run. ``began``: it has produced something that cannot be taken back. ``over``: nothing
    more is wanted of it, and it is to be stopped."""

    def __init__(self, *, speculative: bool) -> None:
        self._speculative = speculative
        self._running: dict[str, ToolCallPart] = {}
        self._last = ""
        self.began = False
        self.over = False
        self.ending: str | None = None
        """The reason for ending the call, once the model wants to end it."""
        self._pressing: set[str] = set()
        self.pressed: list[ToolReturnPart] = []
        """The tool's results for the keys that were pressed."""

    def events(self, event: Any) -> Iterator[AgentEvent]:
        """The agent events for ``event``; other events of the library are ignored."""
        match event:
            case PartStartEvent(part=TextPart(content=text)):
                yield from self._text(text)
            case PartDeltaEvent(delta=TextPartDelta(content_delta=text)):
                yield from self._text(text)
            case PartStartEvent(part=ToolCallPart()) if self._speculative:
                # Tools have effects: from here on, only the real turn may continue.
                self.over = True
            case FunctionToolCallEvent(part=part):
                yield from self._tool_called(part)
            case FunctionToolResultEvent(part=part):
                if part.tool_call_id in self._pressing:
                    self.pressed.append(part)
                yield from self._tool_done(part.tool_name, part.tool_call_id)

    def finish(self) -> Iterator[AgentEvent]:
        """The agent events after the end of the run."""
        if self.ending is not None:
            yield EndCall(self.ending)

    def results(self) -> list[ToolReturnPart]:
        """Tool results that the model needs if the run was stopped: which keys were pressed, and
        which tools were running. Those may have had an effect, such as an order."""
        given_up = [
            ToolReturnPart(part.tool_name, _GIVEN_UP, part.tool_call_id, outcome="interrupted")
            for part in self._running.values()
            if part.tool_name not in _OURS
        ]
        return [*self.pressed, *given_up]

    def _text(self, text: str) -> Iterator[AgentEvent]:
        if text:
            self.began = True
            self._last = text[-1]
            yield TextDelta(text)

    def _tool_called(self, part: ToolCallPart) -> Iterator[AgentEvent]:
        self._running[part.tool_call_id] = part
        if self._last and not self._last.isspace():
            # The text before a tool call and after it are separate sentences.
            yield from self._text(" ")
        if part.tool_name in END_CALL_NAMES:
            self.ending = _text_in(part, "reason")
        elif part.tool_name == PRESS_KEYS:
            yield from self._keys(part)
        else:
            self.began = True
            yield ToolActivity(part.tool_name, True)

    def _tool_done(self, name: str, call_id: str) -> Iterator[AgentEvent]:
        self._running.pop(call_id, None)
        if name not in _OURS:
            yield ToolActivity(name, False)
        # After a goodbye nothing more is to be said, and nothing is said to a menu besides keys.
        said = self.ending is not None and bool(self._last)
        self.over = (said or bool(self.pressed)) and not self._running

    def _keys(self, part: ToolCallPart) -> Iterator[AgentEvent]:
        try:
            keys = PressKeys(check_digits(_text_in(part, "digits")))
        except InvalidRequest:
            # The tool reports it to the model.
            return
        self._pressing.add(part.tool_call_id)
        self.began = True
        yield keys


def _text_in(part: ToolCallPart, name: str) -> str:
    try:
        text = part.args_as_dict().get(name)
    except ValueError:
        return ""
    return text if isinstance(text, str) else ""
