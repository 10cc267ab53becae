"""An agent that answers by rules: for demonstrations, tests and simple menus."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Annotated

import anyio
from pydantic import AfterValidator, Field, field_validator

from voicecall.agent import AgentBackend, AgentEvent, AgentTurn, EndCall, PressKeys, TextDelta
from voicecall.configuring import ConfigModel
from voicecall.errors import InvalidRequest
from voicecall.tones import check_digits
from voicecall.wording import did_you_mean

__all__ = ["Exchange", "Rule", "ScriptedAgent", "ScriptedConfig", "never_used", "unknown_fields"]

_PATH = "agents.backends.scripted"

NOT_HEARD = "I did not catch that. Could you say it again?"
NOT_MATCHED = "I heard: {text}. Is there anything else?"
PRESSED = "You pressed {digits}."

_SESSIONS = 1_000
_TURNS = 200
_WORD = re.compile(r"\s*\S+\s*")
_FIELDS = ("text", "digits", "number_of_turns")
_FIELD = re.compile(rf"\{{({'|'.join(_FIELDS)})\}}(\.?)")
_PRESSED = re.compile(r"[0-9A-D*#]+")
_BRACES = re.compile(r"\{([^{}]*)\}")
_ENDS = (".", "!", "?", "…")

Milliseconds = Annotated[int, Field(ge=0, le=600_000)]


def _keys(value: str) -> str:
    try:
        return check_digits(value) if value else ""
    except InvalidRequest as error:
        raise ValueError(str(error)) from None


Keys = Annotated[str, AfterValidator(_keys)]


class Rule(ConfigModel):
    """``match`` is a regular expression, or a list of phrases, one of which must occur as whole
    words; case does not matter. Several replies are used one after the other in a session, and the
    last one is repeated. After the reply, the keys in ``press`` are pressed (for automated menus),
    and with ``end`` the call ends."""

    match: str | tuple[str, ...]
    reply: str | tuple[str, ...] = ""
    press: Keys = ""
    end: bool = False

    @field_validator("match")
    @classmethod
    def _compiles(cls, value: str | tuple[str, ...]) -> str | tuple[str, ...]:
        if isinstance(value, str):
            try:
                re.compile(value)
            except re.error as error:
                raise ValueError(f"not a regular expression: {error}") from None
        return value

    @property
    def pattern(self) -> re.Pattern[str]:
        if isinstance(self.match, str):
            return re.compile(self.match, re.IGNORECASE)
        phrases = "|".join(re.escape(phrase.strip()) for phrase in self.match if phrase.strip())
        # An empty list of phrases matches nothing.
        return re.compile(rf"(?<!\w)(?:{phrases})(?!\w)" if phrases else r"(?!)", re.IGNORECASE)

    @property
    def replies(self) -> tuple[str, ...]:
        return (self.reply,) if isinstance(self.reply, str) else self.reply


DEFAULT_RULES = (
    Rule(
        match=("goodbye", "good bye", "bye", "bye bye", "hang up", "that is all", "that's all"),
        reply="Thank you for calling. Goodbye!",
        end=True,
    ),
    Rule(match=("hello", "hi", "good morning"), reply="Hello! How can I help you?"),
    Rule(match=("thanks", "thank you"), reply="You are welcome. Is there anything else?"),
    Rule(
        match=("who are you", "what can you do", "help"),
        reply="I am a simple voice assistant. Tell me something, or say goodbye to end the call.",
    ),
)


class ScriptedConfig(ConfigModel):
    """``digits`` maps keypad input to replies. ``fallback`` answers other keys, text that no rule
    matches, and silence. Replies may contain ``{text}``, ``{digits}`` and ``{number_of_turns}``."""

    rules: tuple[Rule, ...] = DEFAULT_RULES
    digits: dict[str, str] = Field(default_factory=dict)
    fallback: str | None = None
    delay_ms: Milliseconds = 0
    """Delay before the first word."""
    word_delay_ms: Milliseconds = 0
    """Delay between words."""


def unknown_fields(config: ScriptedConfig) -> Iterator[str]:
    """Fields in replies that nothing is filled in for, a sentence each."""
    replies = {"fallback": config.fallback or ""}
    replies |= {f"digits.{keys}": reply for keys, reply in config.digits.items()}
    for index, rule in enumerate(config.rules):
        for number, reply in enumerate(rule.replies):
            several = "" if isinstance(rule.reply, str) else f".{number}"
            replies[f"rules.{index}.reply{several}"] = reply
    known = ", ".join(f"{{{name}}}" for name in _FIELDS)
    for place, reply in replies.items():
        for name in dict.fromkeys(_BRACES.findall(reply)):
            if name not in _FIELDS:
                meant = did_you_mean(name, _FIELDS, 0.6) or f" (there are {known})"
                yield f"{_PATH}.{place}: {{{name}}} is spoken literally{meant}"


def never_used(config: ScriptedConfig) -> Iterator[str]:
    """Replies that no caller will hear, a sentence each."""
    for index, rule in enumerate(config.rules):
        if not isinstance(rule.match, str) and not any(map(str.strip, rule.match)):
            yield f"{_PATH}.rules.{index}.match: has no phrase and matches nothing"
    for keys in config.digits:
        if not _PRESSED.fullmatch(keys):
            yield f"{_PATH}.digits.{keys}: no caller can press that; keys are 0-9, *, # and A-D"


@dataclass(slots=True)
class Exchange:
    """One turn of a session: what was said, and as much of the reply as was sent or heard."""

    turn_id: str
    text: str
    reply: str = ""
    rule: int | None = None


@dataclass(slots=True)
class _Session:
    turns: int = 0
    exchanges: list[Exchange] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Answer:
    text: str
    press: str = ""
    end: bool = False
    rule: int | None = None


class ScriptedAgent(AgentBackend):
    """The agent. It keeps the history of the last 1,000 sessions, 200 turns each, in memory."""

    def __init__(self, config: ScriptedConfig | None = None) -> None:
        self.config = config or ScriptedConfig()
        self._patterns = [rule.pattern for rule in self.config.rules]
        self._sessions: OrderedDict[str, _Session] = OrderedDict()

    async def reply(self, turn: AgentTurn) -> AsyncIterator[AgentEvent]:
        session = self._sessions.get(turn.session_key, _Session())
        known = [one for one in session.exchanges if one.turn_id != turn.turn_id]
        repeated = len(known) < len(session.exchanges)
        number = session.turns if repeated else session.turns + 1
        # A voice model's prompt repeats the call so far, and rules would match old text in it.
        said = str(turn.metadata.get("question", turn.text))
        answer = self._answer(said, turn.digits, known)
        exchange = Exchange(turn.turn_id, said, rule=answer.rule)
        if not turn.speculative:
            self._remember(turn.session_key, _Session(number, [*known, exchange][-_TURNS:]))
        values = {"text": said, "digits": turn.digits, "number_of_turns": str(number)}
        text = _FIELD.sub(lambda found: _in_place(values[found[1]], found[2]), answer.text)
        await anyio.sleep(self.config.delay_ms / 1000)
        for position, word in enumerate(_WORD.findall(text)):
            if position and self.config.word_delay_ms:
                await anyio.sleep(self.config.word_delay_ms / 1000)
            exchange.reply += word
            yield TextDelta(word)
        if answer.press:
            yield PressKeys(answer.press)
        if answer.end:
            yield EndCall("scripted")

    def _answer(self, said: str, digits: str, history: list[Exchange]) -> _Answer:
        if digits:
            return _Answer(self.config.digits.get(digits, self.config.fallback or PRESSED))
        if not said.strip():
            return _Answer(self.config.fallback or NOT_HEARD)
        for index, (rule, pattern) in enumerate(
            zip(self.config.rules, self._patterns, strict=True)
        ):
            if pattern.search(said):
                used = sum(one.rule == index for one in history)
                replies = rule.replies or ("",)
                reply = replies[min(used, len(replies) - 1)]
                return _Answer(reply, rule.press, rule.end, index)
        return _Answer(self.config.fallback or NOT_MATCHED)

    def _remember(self, session_key: str, session: _Session) -> None:
        self._sessions[session_key] = session
        self._sessions.move_to_end(session_key)
        while len(self._sessions) > _SESSIONS:
            self._sessions.popitem(last=False)

    async def settle(self, turn: AgentTurn, heard_text: str) -> None:
        for exchange in self.history(turn.session_key):
            if exchange.turn_id == turn.turn_id:
                exchange.reply = heard_text

    async def forget(self, session_key: str) -> None:
        self._sessions.pop(session_key, None)

    def history(self, session_key: str) -> tuple[Exchange, ...]:
        """The exchanges of a session, oldest first."""
        session = self._sessions.get(session_key)
        return tuple(session.exchanges) if session else ()


def _in_place(value: str, full_stop: str) -> str:
    """``value`` followed by ``full_stop``, unless it already ends a sentence."""
    return value if value.endswith(_ENDS) else value + full_stop
