"""Turns model text into sentences to speak while it is still being written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .cleanup import clean
from .parser import Kind, Parser, Part
from .planning import Gate
from .sentences import SentenceSplitter

__all__ = ["Payload", "SpokenStream", "extract"]


@dataclass(frozen=True, slots=True)
class Payload:
    """One piece of an agent's output. Errors and reasoning are never spoken."""

    text: str
    is_reasoning: bool = False
    is_error: bool = False


class SpokenStream:
    """Model text in, sentences for the synthesiser out.

    The sentences depend on the text alone, not on the pieces in which it arrives. Once a spoken
    value was seen, only spoken values count. With ``patient`` plain text waits for
    :meth:`finish`, so that an object late in the text still wins over all of it.
    """

    def __init__(self, *, patient: bool = False) -> None:
        self.end_requested = False
        self._patient = patient
        self._parser = Parser()
        self._gate = Gate()
        self._waiting: list[str] = []
        self._splitter = SentenceSplitter()
        self._structured = False
        self._said: list[str] = []

    @property
    def text(self) -> str:
        """Everything given out so far, sentences joined by a blank."""
        return " ".join(self._said)

    def feed(self, delta: str) -> list[str]:
        """More of the model's text; the sentences that are ready now."""
        return self._clean(self._sentences(self._parser.feed(delta)))

    def finish(self) -> list[str]:
        """The model is done: the rest."""
        sentences = self._sentences(self._parser.finish())
        if not self._structured:
            rest = self._gate.feed("".join(self._waiting)) + self._gate.finish()
            sentences += self._splitter.feed(rest)
        return self._clean(sentences + self._splitter.flush())

    def _sentences(self, parts: Sequence[Part]) -> list[str]:
        sentences: list[str] = []
        for part in parts:
            match part.kind:
                case Kind.PLAIN if self._structured:
                    pass
                case Kind.PLAIN if self._patient:
                    self._waiting.append(part.text)
                case Kind.PLAIN:
                    sentences += self._splitter.feed(self._gate.feed(part.text))
                case Kind.NOT_MEANT if not self._structured:
                    self._forget_plain()
                case Kind.NOT_MEANT:
                    pass
                case Kind.END_CALL:
                    self.end_requested = True
                case Kind.SPOKEN | Kind.VALUE_END:
                    if not self._structured:
                        self._structured = True
                        self._forget_plain()
                    if part.kind is Kind.SPOKEN:
                        sentences += self._splitter.feed(part.text)
                    else:
                        sentences += self._splitter.flush()
        return sentences

    def _forget_plain(self) -> None:
        self._waiting.clear()
        self._gate.drop()
        self._splitter.drop()

    def _clean(self, sentences: list[str]) -> list[str]:
        cleaned = [text for text in map(clean, sentences) if text]
        self._said += cleaned
        return cleaned


def extract(payloads: Sequence[Payload]) -> str | None:
    """What to speak of a finished answer, payloads joined by a blank; None for silence."""
    said = []
    for payload in payloads:
        if payload.is_error or payload.is_reasoning:
            continue
        stream = SpokenStream(patient=True)
        stream.feed(payload.text)
        stream.finish()
        said.append(stream.text)
    return " ".join(text for text in said if text) or None
