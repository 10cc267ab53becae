"""The decoder: partial text during speech, and a verdict on the whole utterance.

A grammar decoder forces everything it hears into the grammar. The verdict therefore compares two
searches over the same audio: the grammar, and a free loop of phones, which always fits at least
as well. If the grammar fits much worse, over the whole utterance or over one of its long words,
the utterance is outside the grammar.

The verdict does not depend on earlier utterances: the cepstral mean is that of the utterance
itself, and each search begins with a fresh estimate of the noise. Everything here blocks and
belongs in a worker thread.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pocketsphinx

from voicecall.errors import ConfigError

from .grammar import Grammar, check_words
from .scoring import Segment, score

__all__ = ["BLOCK", "Decoder", "DecoderPool", "Verdict"]

BLOCK = 640
"""Bytes per call of the library, 20 ms: it holds the interpreter lock meanwhile."""

_GRAMMAR, _PHONES = "grammar", "phones"
_CMN_WINDOW = 500  # weight of the initial mean in frames (cmn.h of the library, CMN_WIN)


@dataclass(frozen=True, slots=True)
class Verdict:
    """``text`` is empty if the utterance is outside the grammar. ``score``: how well the grammar
    fits, in thousandths of a nat per frame (0: as well as free phones; negative: worse)."""

    text: str
    score: float | None


class Decoder:
    """One decoder. Raises :exc:`ConfigError` for a grammar that cannot be used."""

    def __init__(self, grammar: Grammar, cmninit: str, reject_below: float) -> None:
        self._initial_mean = cmninit
        self._reject_below = reject_below
        # Without the best path, an incomplete sentence gives no result at all, as it should.
        self._library: Any = pocketsphinx.Decoder(
            samprate=16000, lm=None, bestpath=False, loglevel="FATAL"
        )
        check_words(grammar, lambda word: self._library.lookup_word(word) is not None)
        try:
            self._library.add_jsgf_string(_GRAMMAR, grammar.jsgf)
        except (ValueError, RuntimeError) as error:
            raise ConfigError(
                f"the decoder refuses the grammar: {error}", path=f"pocketsphinx.{grammar.key}"
            ) from None
        self._library.add_allphone_file(
            _PHONES, pocketsphinx.get_model_path("en-us/en-us-phone.lm.bin")
        )
        self._open = False

    def start(self) -> None:
        """Begin an utterance for partial results."""
        self.stop()
        self._begin(_GRAMMAR, self._initial_mean)

    def feed(self, pcm: bytes) -> None:
        """Decode more audio of the utterance: pcm16 at 16 kHz."""
        for at in range(0, len(pcm), BLOCK):
            self._library.process_raw(pcm[at : at + BLOCK], no_search=False, full_utt=False)
            time.sleep(0)  # lets the event loop take the interpreter lock

    def partial(self) -> str:
        """The text so far."""
        hypothesis = self._library.hyp()
        return hypothesis.hypstr if hypothesis is not None else ""

    def stop(self) -> None:
        if self._open:
            self._open = False
            self._library.end_utt()

    def judge(self, pcm: bytes) -> Verdict:
        """The verdict on a whole utterance, with a little silence on both sides."""
        mean = self._mean_of(pcm)
        text, grammar_path = self._search(_GRAMMAR, mean, pcm)
        if not text:
            return Verdict("", None)
        _, phone_path = self._search(_PHONES, mean, pcm)
        fit = score(grammar_path, phone_path)
        return Verdict(text if fit >= self._reject_below else "", fit)

    def _begin(self, search: str, mean: str) -> None:
        # Otherwise the noise of the last utterance would affect the features of this one. This
        # also resets the cepstral mean, which is therefore set afterwards.
        self._library.reinit_feat()
        self._library.activate_search(search)
        self._library.set_cmn(mean)
        self._library.start_utt()
        self._open = True

    def _search(self, search: str, mean: str, pcm: bytes) -> tuple[str, Sequence[Segment]]:
        self.stop()
        self._begin(search, mean)
        self.feed(pcm)
        self.stop()
        hypothesis = self._library.hyp()
        if hypothesis is None:
            return "", ()
        return hypothesis.hypstr, [part for part in self._library.seg() if part.word != "(NULL)"]

    def _mean_of(self, pcm: bytes) -> str:
        """The cepstral mean of the audio. In the library's mean the initial one counts for
        ``_CMN_WINDOW`` frames; that share is subtracted again. The library does not count digital
        silence, so a trace of the initial mean stays."""
        self._search(_GRAMMAR, self._initial_mean, pcm)
        frames = max(self._library.n_frames(), 1)
        initial = [float(value) for value in self._initial_mean.split(",")]
        mixed = [float(value) for value in self._library.get_cmn(True).split(",")]
        total = _CMN_WINDOW + frames
        return ",".join(
            f"{(m * total - i * _CMN_WINDOW) / frames:.3f}"
            for m, i in zip(mixed, initial, strict=True)
        )


class DecoderPool:
    """Decoders, each lent for one utterance. Thread-safe.

    Making a decoder stalls the interpreter for about a tenth of a second, even from a thread, so
    :meth:`fill` makes ``size`` of them before the first call. When all are lent, another one is
    made.
    """

    def __init__(self, grammar: Grammar, cmninit: str, reject_below: float, size: int) -> None:
        self._arguments = (grammar, cmninit, reject_below)
        self._size = size
        self._lock = threading.Lock()
        self._idle: list[Decoder] = []

    def fill(self) -> None:
        """Make the decoders. Raises :exc:`ConfigError` for a grammar that cannot be used."""
        while len(self._idle) < self._size:
            self.give_back(Decoder(*self._arguments))

    def lend(self) -> Decoder:
        with self._lock:
            if self._idle:
                return self._idle.pop()
        return Decoder(*self._arguments)

    def give_back(self, decoder: Decoder) -> None:
        with self._lock:
            if len(self._idle) < self._size:
                self._idle.append(decoder)
