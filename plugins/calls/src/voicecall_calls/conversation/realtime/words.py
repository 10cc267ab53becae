"""Texts for a full-duplex voice model and its agent: instructions, requests, prompts."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from voicecall.model import Speaker, TranscriptEntry
from voicecall.wellformed import well_formed_text
from voicecall_calls.config import RealtimeConfig

__all__ = [
    "consult_prompt",
    "consult_question",
    "consult_request",
    "consults_always",
    "cut",
    "greeting",
    "history",
    "instructions",
    "interrupted",
    "is_small_talk",
    "joined",
    "pressed",
]

_DEFAULT = (
    "You are speaking with a person on the telephone. Be brief and natural: one or two short"
    " sentences at a time, no lists, no markup."
)
_END = (
    "When the conversation is over, say your last words first, then call voicecall_end_call to"
    " hang up."
)
_CONSULT = (
    "Call voicecall_agent_consult before you answer what needs deeper thought, current facts or"
    " tools."
)
_CONSULT_POLICY: Mapping[str, str] = {
    "auto": "",
    "substantive": (
        "Answer small talk yourself. Call voicecall_agent_consult for facts, memory, tools and"
        " anything current or specific to the caller, and keep its answer concise."
    ),
    "always": (
        "Call voicecall_agent_consult before every answer of substance. Only greetings,"
        " acknowledgements and fillers are your own."
    ),
}
_PROMPT_ENTRIES = 12
_HISTORY_ENTRIES = 40
_SHORT_QUESTION = 40
_MUCH_LONGER = 8
_FRESH_MS = 2000
_SENTENCE_END = re.compile(r"[.!?…](?=\s|$)")
_SMALL_TALK = frozenset(
    {
        *("", "hello", "hello there", "hi", "hi there", "hey", "good morning", "good afternoon"),
        *("good evening", "good day", "thanks", "thank you", "thank you very much", "many thanks"),
        *("bye", "bye bye", "goodbye", "good bye", "ok", "okay", "i see", "all right", "alright"),
        *("ah", "aha", "hm", "hmm", "mhm", "mm", "mm hm", "mmm", "oh", "uh", "uh huh", "um"),
    }
)


def instructions(config: RealtimeConfig, *, tools: bool, about: str = "") -> str:
    """The session's instructions. ``tools``: whether the model has function tools. ``about``
    describes the agent."""
    parts = [config.instructions or _DEFAULT, about]
    if tools:
        parts.append(_END)
        if config.tool_policy != "none":
            parts += [_CONSULT, _CONSULT_POLICY[config.consult_policy]]
    return "\n".join(part for part in parts if part)


def greeting(base: str, message: str) -> str:
    """The request for a greeting from a model that cannot be made to say given words."""
    return f'{base}\nIn your first reply, open with this greeting: "{message}"'


def pressed(base: str, digits: str) -> str:
    keys = " ".join(digits)
    return f"{base}\nThe caller pressed these keys of the telephone: {keys}. Respond to that."


def interrupted(base: str) -> str:
    """The request to a new session after a break during a conversation."""
    return (
        f"{base}\nYour connection was interrupted for a moment, and the end of the conversation may"
        " be missing. Answer what the caller said last, or finish what you were saying; where you"
        " cannot tell what that was, ask the caller to say it again."
    )


def history(entries: Sequence[TranscriptEntry]) -> list[tuple[str, str]]:
    """The end of a transcript as (role, text)."""
    return [
        ("user" if entry.speaker is Speaker.USER else "assistant", entry.text)
        for entry in entries[-_HISTORY_ENTRIES:]
    ]


def consults_always(config: RealtimeConfig) -> bool:
    """Whether the model may give no substantial answer of its own."""
    return config.consult_policy == "always" and config.tool_policy != "none"


def cut(text: str, longest: int) -> str:
    """``text``, shortened to at most ``longest`` characters: to its last whole sentence, or else
    its last whole word."""
    if len(text) <= longest:
        return text
    kept = text[:longest]
    ends = [match.end() for match in _SENTENCE_END.finditer(kept)]
    return kept[: ends[-1]] if ends else kept.rpartition(" ")[0] or kept


def is_small_talk(text: str) -> bool:
    """Whether a voice model may answer this itself, whatever the policy for consulting."""
    words = re.findall(r"[^\W_]+", text.lower())
    return " ".join(words) in _SMALL_TALK


def joined(known: str, text: str) -> str:
    """The text of an item so far: ``text`` replaces ``known`` if it continues it, else it is
    appended."""
    return text if text.startswith(known) else known + text


# --- consulting the agent --------------------------------------------------------------------


def consult_request(arguments: Mapping[str, Any]) -> tuple[str, str]:
    """Question and context from the arguments of a consult call; empty strings if missing."""
    texts = (arguments.get(key) for key in ("question", "prompt", "query", "task"))
    question = next((text.strip() for text in texts if isinstance(text, str) and text.strip()), "")
    context = [arguments.get("context")]
    style = arguments.get("responseStyle")
    if isinstance(style, str) and style.strip():
        context.append(f"Style of the answer: {style.strip()}")
    told = "\n".join(c.strip() for c in context if isinstance(c, str) and c.strip())
    # A model may produce half a surrogate pair, which no agent can send to its own model.
    return well_formed_text(question), well_formed_text(told)


def consult_question(
    question: str, context: str, entries: Sequence[TranscriptEntry], now_ms: int
) -> tuple[str, str]:
    """Question and context for the agent. A question that is much shorter than what the caller has
    just said is replaced by the caller's words."""
    said = next((e for e in reversed(entries) if e.speaker is Speaker.USER), None)
    if (
        said is not None
        and now_ms - said.at <= _FRESH_MS
        and len(question) < _SHORT_QUESTION
        and len(said.text) >= len(question) + _MUCH_LONGER
    ):
        context = "\n".join(part for part in (context, f"Asked as: {question}") if part)
        question = said.text
    return question, context


def consult_prompt(question: str, context: str, entries: Sequence[TranscriptEntry]) -> str:
    """The prompt for the agent."""
    lines = [
        "You help the voice of a telephone call. Answer briefly, in words that can be spoken.",
        "The call so far:",
        *(f"{role}: {text}" for role, text in history(entries[-_PROMPT_ENTRIES:])),
    ]
    if context:
        lines += ["Context:", context]
    return "\n".join([*lines, "Request:", question])
