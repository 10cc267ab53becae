"""ITU-T G.711 mu-law and A-law, exact in both directions.

The tables follow the algorithm of ITU-T G.191 (Software Tool Library): 16 bit input is used with
14 (mu-law) or 13 (A-law) significant bits, negative values by one's complement. ``audioop``
differs from it for 508 of the 65,536 inputs of mu-law.

Audio is ``bytes``: one byte per sample for G.711, little-endian signed 16 bit for linear.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["alaw_to_pcm16", "mulaw_to_pcm16", "pcm16_to_alaw", "pcm16_to_mulaw"]


def _mulaw_decode_table() -> NDArray[np.int16]:
    code = ~np.arange(256) & 0xFF
    exponent = (code >> 4) & 7
    mantissa = code & 0x0F
    magnitude = (((mantissa << 3) + 132) << exponent) - 132
    return np.where(code & 0x80, -magnitude, magnitude).astype(np.int16)


def _mulaw_encode_table() -> NDArray[np.uint8]:
    # Indexed by the sample's two's complement bit pattern, so that a uint16 view is the index.
    sample = np.arange(65536).astype(np.uint16).view(np.int16).astype(np.int32)
    magnitude = np.where(sample < 0, ~sample, sample) >> 2
    biased = np.minimum(magnitude + 33, 0x1FFF)
    segment = np.floor(np.log2(biased)).astype(np.int32) - 5
    code = (segment << 4) | ((biased >> (segment + 1)) & 0x0F)
    table: NDArray[np.uint8] = np.where(sample < 0, ~code & 0x7F, ~code & 0xFF).astype(np.uint8)
    return table


def _alaw_decode_table() -> NDArray[np.int16]:
    code = np.arange(256) ^ 0x55
    exponent = (code >> 4) & 7
    mantissa = code & 0x0F
    low = (mantissa << 4) + 8
    magnitude = np.where(exponent == 0, low, (low + 256) << np.maximum(exponent - 1, 0))
    return np.where(code & 0x80, magnitude, -magnitude).astype(np.int16)


def _alaw_encode_table() -> NDArray[np.uint8]:
    sample = np.arange(65536).astype(np.uint16).view(np.int16).astype(np.int32)
    magnitude = np.where(sample < 0, ~sample, sample) >> 4
    segment = np.floor(np.log2(np.maximum(magnitude, 16))).astype(np.int32) - 4
    companded = np.where(
        magnitude < 16, magnitude, ((segment + 1) << 4) | ((magnitude >> segment) & 0x0F)
    )
    return (np.where(sample < 0, companded, companded | 0x80) ^ 0x55).astype(np.uint8)


_MULAW_DECODE = _mulaw_decode_table()
_MULAW_ENCODE = _mulaw_encode_table()
_ALAW_DECODE = _alaw_decode_table()
_ALAW_ENCODE = _alaw_encode_table()


def mulaw_to_pcm16(audio: bytes) -> bytes:
    """Decode mu-law; returns two bytes for each byte."""
    return _MULAW_DECODE[np.frombuffer(audio, np.uint8)].tobytes()


def pcm16_to_mulaw(audio: bytes) -> bytes:
    """Encode to mu-law; ``audio`` must be whole samples."""
    return _MULAW_ENCODE[np.frombuffer(audio, np.uint16)].tobytes()


def alaw_to_pcm16(audio: bytes) -> bytes:
    """Decode A-law; returns two bytes for each byte."""
    return _ALAW_DECODE[np.frombuffer(audio, np.uint8)].tobytes()


def pcm16_to_alaw(audio: bytes) -> bytes:
    """Encode to A-law; ``audio`` must be whole samples."""
    return _ALAW_ENCODE[np.frombuffer(audio, np.uint16)].tobytes()
