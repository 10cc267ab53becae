"""Turns model text into sentences to speak while it is still being written."""

from __future__ import annotations

from collections.abc import Sequence

from .cleanup import clean
from .parser import Kind, Parser, Part
from .planning import Gate
from .sentences import SentenceSplitter

__all__ = ["SpokenStream"]


class SpokenStream:
    """Takes a model's text and returns sentences for the synthesiser.

    The sentences depend on the text alone, not on the pieces in which it arrives. After the first
    spoken value of a structured reply, only such values are spoken.
    """

    def __init__(self) -> None:
        self.end_requested = False
        self._parser = Parser()
        self._gate = Gate()
        self._splitter = SentenceSplitter()
        self._structured = False

    def feed(self, delta: str) -> list[str]:
        """Take more of the model's text; returns the sentences that are ready now."""
        return _clean(self._sentences(self._parser.feed(delta)))

    def pause(self) -> list[str]:
        """The model does something else before it continues. Returns what it has written so far,
        except an incomplete object."""
        return [] if self._structured else _clean(self._rest())

    def finish(self) -> list[str]:
        """The model is done: returns the rest."""
        sentences = self._sentences(self._parser.finish())
        return _clean(sentences + self._rest())

    def _rest(self) -> list[str]:
        sentences = []
        if not self._structured:
            sentences = self._splitter.feed(self._gate.finish())
        return sentences + self._splitter.flush()

    def _sentences(self, parts: Sequence[Part]) -> list[str]:
        sentences: list[str] = []
        for part in parts:
            match part.kind:
                case Kind.PLAIN | Kind.NOT_MEANT if self._structured:
                    pass
                case Kind.PLAIN:
                    sentences += self._splitter.feed(self._gate.feed(part.text))
                case Kind.NOT_MEANT:
                    self._forget_plain()
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
        self._gate.drop()
        self._splitter.drop()


def _clean(sentences: Sequence[str]) -> list[str]:
    return [text for text in map(clean, sentences) if text]
