"""Prepares the messages of a run for the history, and cuts an answer to what was heard."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace

from pydantic_ai.messages import (
    ModelMessage,
    ModelMessagesTypeAdapter,
    ModelRequest,
    ModelRequestPart,
    ModelResponse,
    ModelResponsePart,
    TextPart,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)

from voicecall_agents.llm.prompts import END_CALL_NAMES

__all__ = ["dump", "heard_of", "parse", "remembered", "with_results"]


def dump(messages: Sequence[ModelMessage]) -> tuple[str, ...]:
    """One JSON document per message."""
    return tuple(ModelMessagesTypeAdapter.dump_json([one]).decode() for one in messages)


def parse(documents: Iterable[str]) -> list[ModelMessage]:
    """The inverse of :func:`dump`. Raises ``ValueError`` for documents in another format."""
    return [one for text in documents for one in ModelMessagesTypeAdapter.validate_json(text)]


def with_results(
    messages: Sequence[ModelMessage], results: Sequence[ToolReturnPart]
) -> list[ModelMessage]:
    """The messages of a run that was stopped during or after tool calls, with those ``results``
    that are missing from them."""
    told = {
        part.tool_call_id
        for message in messages
        for part in message.parts
        if isinstance(part, ToolReturnPart)
    }
    new = [part for part in results if part.tool_call_id not in told]
    if not new:
        return list(messages)
    last = messages[-1]
    if isinstance(last, ModelRequest):
        # Vendors require all tool results for one answer in one message.
        return [*messages[:-1], replace(last, parts=[*last.parts, *new])]
    return [*messages, ModelRequest(new)]


def remembered(messages: Sequence[ModelMessage], words: str) -> list[ModelMessage]:
    """The messages of a run as later turns see them: with the caller's ``words``, without
    instructions, and with answered tool calls only."""
    answered = {
        part.tool_call_id
        for message in messages
        for part in message.parts
        if isinstance(part, ToolReturnPart) and part.tool_name not in END_CALL_NAMES
    }
    kept: list[ModelMessage] = []
    for message in messages:
        if isinstance(message, ModelRequest):
            said = [_said(part, words) for part in message.parts if _belongs(part, answered)]
            if said:
                kept.append(replace(message, parts=said, instructions=None))
        else:
            parts = [part for part in message.parts if _belongs(part, answered)]
            kept += _response(message, parts)
    if not any(isinstance(part, UserPromptPart) for one in kept for part in one.parts):
        kept.insert(0, ModelRequest([UserPromptPart(words)]))
    return kept


def _belongs(part: ModelRequestPart | ModelResponsePart, answered: set[str]) -> bool:
    if isinstance(part, ToolCallPart | ToolReturnPart):
        return part.tool_call_id in answered
    return True


def _said(part: ModelRequestPart, words: str) -> ModelRequestPart:
    return replace(part, content=words) if isinstance(part, UserPromptPart) else part


def _response(message: ModelResponse, parts: Sequence[ModelResponsePart]) -> list[ModelResponse]:
    """``message`` with other parts; nothing if no text and no tool calls are left."""
    if list(parts) != list(message.parts):
        # An id refers to the vendor's unchanged response, so changed parts must not have one.
        parts = [
            replace(part, id=None, provider_details=None)
            for part in parts
            if isinstance(part, TextPart | ToolCallPart)
        ]
    if any(isinstance(p, ToolCallPart) or (isinstance(p, TextPart) and p.content) for p in parts):
        return [replace(message, parts=parts)]
    return []


def heard_of(
    messages: Sequence[ModelMessage], heard: str, *, spoken_contract: bool
) -> list[ModelMessage]:
    """The messages of a turn with its answer cut to what was heard."""
    rest = heard.strip()
    kept: list[ModelMessage] = []
    for message in messages:
        if isinstance(message, ModelRequest):
            kept.append(message)
            continue
        parts: list[ModelResponsePart] = []
        for part in message.parts:
            if not isinstance(part, TextPart):
                parts.append(part)
                continue
            text = part.content.strip()
            if text and rest.startswith(text):
                rest = rest[len(text) :].lstrip()
                parts.append(part if part.content == text else replace(part, content=text))
            elif rest:
                words = json.dumps({"spoken": rest}, ensure_ascii=False)
                parts.append(replace(part, content=words if spoken_contract else rest))
                rest = ""
        kept += _response(message, parts)
    return kept
