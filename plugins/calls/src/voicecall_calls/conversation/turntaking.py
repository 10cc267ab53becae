"""Whose turn it is on a streamed call: what counts as an interruption, what as a turn.

Pure: the time is passed in. A reply is given up only for an accepted interruption: speech that
lasts, or words that are more than an acknowledgement. With a voice detector (``gated``) the bot is
paused first, which leaves more time to recognise words.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum

from voicecall_calls.config import BargeInConfig
from voicecall_calls.conversation.ownwords import OwnWords

__all__ = ["TurnTaking", "Verdict"]

_ACKNOWLEDGEMENTS = frozenset(
    {
        *("ah", "aha", "hm", "hmm", "hm hm", "mhm", "mm", "mmm", "mm hm", "mm hmm", "oh"),
        *("uh", "uh huh", "um", "er", "eh", "huh"),
    }
)
_LASTING_S = 1.5
"""Acknowledgements last up to a second; a longer voice over a paused bot is an interruption."""
_WORDLESS_S = 4.0
"""How long an answer waits for a sound without words."""
_LONGEST_S = 60.0
"""Longest utterance: after it, the recogniser has missed the end or hears a television."""


class Verdict(StrEnum):
    """What to do with a finished utterance: answer it as a turn, keep it as context, treat it as
    not understood, or drop it."""

    TURN = "turn"
    CONTEXT = "context"
    NOT_UNDERSTOOD = "not-understood"
    DROP = "drop"


def _is_acknowledgement(text: str) -> bool:
    return re.sub(r"[^a-z]+", " ", text.lower()).strip() in _ACKNOWLEDGEMENTS


@dataclass(slots=True)
class TurnTaking:
    """Decides what interrupts the bot and what becomes of an utterance. One per call.

    Times are seconds on a monotonic clock."""

    config: BargeInConfig
    gated: bool = False
    own: OwnWords = field(default_factory=OwnWords)
    bot_speaking: bool = False
    bot_began_at: float = 0.0
    protected_until: float = 0.0
    speech_began: float | None = None
    _accepted: bool = False
    _protected: bool = False
    _over_bot: bool = False
    _worded: bool = False

    def bot_began(self, now: float, protection_ms: float = 0) -> None:
        """The bot speaks; speech that begins within ``protection_ms`` does not interrupt it."""
        if not self.bot_speaking:
            self.bot_began_at = now
        self.bot_speaking = True
        # Without protection, speech that began just before and is reported now interrupts, too.
        self.protected_until = now + protection_ms / 1000 if protection_ms else 0.0
        if protection_ms and self.speech_began is not None:
            self._protected = True

    def bot_stopped(self) -> None:
        self.bot_speaking = False
        if self.speech_began is not None:
            # A caller who still speaks after the protected message has more to say than hello.
            self._protected = False

    def speech_started(self, now: float) -> float | None:
        """The caller makes a sound. Returns when to ask :meth:`lasted`; None if that is not needed
        (nothing to interrupt, not allowed, or left to the voice detector)."""
        self.speech_began = now
        self._accepted = self._worded = False
        self._over_bot = self.bot_speaking
        self._protected = self.bot_speaking and now < self.protected_until
        stops_it = self.bot_speaking and not self._protected and self._by_sound
        self.own.began(now, over_bot=self._over_bot, stops_it=stops_it)
        if not stops_it or self.gated:
            return None
        return now + self.config.min_speech_ms / 1000

    @property
    def _by_sound(self) -> bool:
        """Whether a sound without words can interrupt: with an echo it may be the bot itself."""
        return self.config.enabled and not self.own.known

    def lasted(self) -> bool:
        """The speech has lasted long enough; whether it interrupts now."""
        return self.speech_began is not None and self._accept()

    def voice_pauses(self, began: float, now: float) -> bool:
        """Whether a voice that began at ``began`` and still sounds pauses the bot."""
        if not self.bot_speaking or not self._by_sound:
            return False
        # A voice that began before the bot may be the end of what is being answered.
        if began < max(self.bot_began_at, self.protected_until):
            return False
        return now - began >= self.config.min_speech_ms / 1000

    def voice_lasted(self, began: float, now: float) -> bool:
        """Whether a voice that has paused the bot interrupts it without words: it must last, and
        the recogniser must take it for speech, too."""
        if self.speech_began is None:
            return False
        return now - began >= max(_LASTING_S, self.config.min_speech_ms / 1000) and self._accept()

    def partial(self, text: str) -> bool:
        """The recogniser reports ``text`` so far; whether it interrupts now."""
        self._worded = self._worded or bool(text.strip())
        if not text.strip() or _is_acknowledgement(text):
            return False
        return self._accept()

    def _accept(self) -> bool:
        if self._accepted or self._protected or not self.bot_speaking or not self.config.enabled:
            return False
        self._accepted = True
        return True

    def final(self, text: str, *, owed: bool = False, own: bool = False) -> Verdict:
        """The utterance is over. ``owed``: the bot speaks or owes an answer, which a cough or an
        acknowledgement does not replace. ``own``: the utterance was an echo of the bot."""
        self.speech_began = None
        if own:
            # Its sound may have interrupted the bot nevertheless.
            return Verdict.NOT_UNDERSTOOD if self._accepted else Verdict.DROP
        over_bot = self._over_bot and not self._accepted
        says_something = bool(text.strip()) and not _is_acknowledgement(text)
        if self._protected:
            return Verdict.CONTEXT if text.strip() else Verdict.DROP
        if over_bot and self.bot_speaking:
            # It did not interrupt the bot: a cough, an acknowledgement, or barge-in is off.
            if not says_something:
                return Verdict.DROP
            return Verdict.TURN if self.config.enabled else Verdict.CONTEXT
        if owed and not says_something and not self._accepted:
            return Verdict.DROP
        if not text.strip():
            return Verdict.NOT_UNDERSTOOD
        return Verdict.TURN

    def caller_speaks(self, now: float) -> bool:
        """Whether the caller is in the middle of an utterance."""
        return self.speech_began is not None and now - self.speech_began < _LONGEST_S

    def caller_goes_on(self, now: float) -> bool:
        """Whether an answer should wait for what the caller is saying. A long sound without words
        may be a television."""
        if self.speech_began is None:
            return False
        return self._worded or now - self.speech_began < _WORDLESS_S

    def speech_ended(self) -> bool:
        """The sound is over. Whether it interrupted the bot and turned out not to be speech."""
        silenced = self.speech_began is not None and self._accepted
        self.speech_began = None
        return silenced
