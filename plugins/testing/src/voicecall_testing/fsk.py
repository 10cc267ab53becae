"""Text as telephone audio that can be read back exactly: frequency-shift keying.

Sixteen tones, 400 + 200 k Hz, carry one nibble each for 10 ms (50 bytes a second), high nibble
first. A packet is the preamble F 0 F 0, the length in bytes (16 bit, big endian), the text in
UTF-8, and CRC-16/CCITT of length and text. It survives mu-law, noise 12 dB below it and any
alignment of frames. A packet that is cut short or damaged is reported as broken, never as another
text. The receiver does not correct for a drifting sample clock, which loopback does not have.
"""

from __future__ import annotations

from binascii import crc_hqx
from functools import cache

import numpy as np
import numpy.typing as npt

from voicecall.audio import mulaw_to_pcm16, pcm16_to_mulaw

__all__ = ["MAX_BYTES", "FskDecoder", "decode", "encode"]

MAX_BYTES = 0xFFFF
"""Maximum length of the text in one packet, in bytes of UTF-8."""

_RATE = 8000
_FREQUENCIES = 400 + 200 * np.arange(16)
_SYMBOL = 80
_AMPLITUDE = 6000
_PREAMBLE = (15, 0, 15, 0)
_HEAD = len(_PREAMBLE) * _SYMBOL
_HOP = 20
_FINE_HOP = 10
_SPAN = 80
"""How many samples after the first trace of a preamble its exact position is searched."""
_SYNC_PURITY = 0.5
_LEAST_PURITY = 0.35
_LEAST_POWER = 250_000.0
_CRC_START = 0xFFFF

_Samples = npt.NDArray[np.float32]


@cache
def _tones() -> npt.NDArray[np.complex64]:
    """Correlators of the sixteen tones, one per row."""
    angles = 2 * np.pi * np.outer(_FREQUENCIES, np.arange(_SYMBOL)) / _RATE
    tones: npt.NDArray[np.complex64] = np.exp(-1j * angles).astype(np.complex64)
    return tones


@cache
def _symbols() -> tuple[bytes, ...]:
    """Each tone in mu-law; whole waves, so that they join without a click."""
    angles = 2 * np.pi * np.outer(_FREQUENCIES, np.arange(_SYMBOL)) / _RATE
    samples = (_AMPLITUDE * np.sin(angles)).astype("<i2")
    return tuple(pcm16_to_mulaw(row.tobytes()) for row in samples)


def encode(text: str) -> bytes:
    """One packet as mu-law at 8 kHz: 120 ms plus 20 ms per byte. Raises ``ValueError`` if the text
    is longer than :data:`MAX_BYTES`."""
    data = text.encode()
    if len(data) > MAX_BYTES:
        raise ValueError(f"a text of {len(data)} bytes does not fit into a packet")
    framed = len(data).to_bytes(2, "big") + data
    framed += crc_hqx(framed, _CRC_START).to_bytes(2, "big")
    nibbles = [*_PREAMBLE]
    for byte in framed:
        nibbles += (byte >> 4, byte & 15)
    return b"".join(_symbols()[nibble] for nibble in nibbles)


def decode(audio: bytes) -> list[str | None]:
    """All packets in mu-law ``audio`` (8 kHz), in order; None for each broken one."""
    decoder = FskDecoder()
    found = decoder.feed(mulaw_to_pcm16(audio))
    return found + decoder.finish()


class FskDecoder:
    """Reads packets from audio in pieces of any size (PCM16 at 8 kHz, whole samples)."""

    def __init__(self) -> None:
        self._samples: _Samples = np.empty(0, np.float32)
        self._nibbles: list[int] | None = None

    @property
    def receiving(self) -> bool:
        """Whether a packet has begun and is not complete."""
        return self._nibbles is not None

    def feed(self, pcm: bytes) -> list[str | None]:
        """The packets that this audio completes; None for a broken one."""
        new = np.frombuffer(pcm, "<i2").astype(np.float32)
        self._samples = np.concatenate((self._samples, new))
        found: list[str | None] = []
        while self._nibbles is not None or self._synchronise():
            if not self._receive(found):
                break
        return found

    def finish(self) -> list[str | None]:
        """End the audio; returns the packets in the last samples. The decoder is then as new."""
        found = self.feed(bytes(4 * _SYMBOL))
        if self.receiving:
            found.append(None)
        self._samples, self._nibbles = np.empty(0, np.float32), None
        return found

    # --- finding a packet -------------------------------------------------------------------

    def _synchronise(self) -> bool:
        """Look for a preamble, and drop the samples before and in it."""
        start = 0
        while len(self._samples) - start >= _HEAD + _SPAN:
            if self._preamble_at(start) >= _SYNC_PURITY:
                best = max(range(start, start + _SPAN, _FINE_HOP), key=self._preamble_at)
                self._samples = self._samples[best + _HEAD :]
                self._nibbles = []
                return True
            start += _HOP
        self._samples = self._samples[start:]
        return False

    def _preamble_at(self, start: int) -> float:
        """How clear a preamble at ``start`` is: 0 is none, 1 a perfect one."""
        worst = 1.0
        for index, nibble in enumerate(_PREAMBLE):
            window = self._samples[start + index * _SYMBOL : start + (index + 1) * _SYMBOL]
            power = float(window @ window)
            if power < _LEAST_POWER * _SYMBOL:
                return 0.0
            strength = abs(complex(_tones()[nibble] @ window)) ** 2
            worst = min(worst, 2 * strength / (_SYMBOL * power))
            if worst < _SYNC_PURITY:
                break
        return worst

    # --- reading a packet -------------------------------------------------------------------

    def _receive(self, found: list[str | None]) -> bool:
        """Read symbols; True when the packet is over."""
        nibbles = self._nibbles
        assert nibbles is not None
        while len(self._samples) >= _SYMBOL:
            nibble = self._symbol(self._samples[:_SYMBOL])
            if nibble is None:
                # Keep these samples: another packet may begin here.
                found.append(None)
                self._nibbles = None
                return True
            self._samples = self._samples[_SYMBOL:]
            nibbles.append(nibble)
            if len(nibbles) == self._wanted(nibbles):
                pairs = zip(nibbles[::2], nibbles[1::2], strict=True)
                found.append(_text(bytes(high << 4 | low for high, low in pairs)))
                self._nibbles = None
                return True
        return False

    @staticmethod
    def _wanted(nibbles: list[int]) -> int:
        """Nibbles of the whole packet without its preamble; -1 while this is not known."""
        if len(nibbles) < 4:
            return -1
        length = nibbles[0] << 12 | nibbles[1] << 8 | nibbles[2] << 4 | nibbles[3]
        return 2 * (length + 4)

    @staticmethod
    def _symbol(window: _Samples) -> int | None:
        power = float(window @ window)
        if power < _LEAST_POWER * _SYMBOL:
            return None
        strengths = np.abs(_tones() @ window) ** 2
        nibble = int(np.argmax(strengths))
        pure = 2 * float(strengths[nibble]) >= _LEAST_PURITY * _SYMBOL * power
        return nibble if pure else None


def _text(data: bytes) -> str | None:
    """The text of a framed packet; None if it is damaged."""
    if crc_hqx(data[:-2], _CRC_START) != int.from_bytes(data[-2:], "big"):
        return None
    try:
        return data[2:-2].decode()
    except UnicodeDecodeError:
        return None
