"""Audio: formats, exact G.711, low-delay resampling.

The submodules that need numpy are imported on first use, so that naming a format costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .formats import MULAW_8K, PCM16_8K, PCM16_16K, PCM16_24K, AudioFormat, Encoding

if TYPE_CHECKING:
    from .convert import Converter
    from .g711 import alaw_to_pcm16, mulaw_to_pcm16, pcm16_to_alaw, pcm16_to_mulaw
    from .resampling import Resampler, resample

__all__ = [
    "MULAW_8K",
    "PCM16_8K",
    "PCM16_16K",
    "PCM16_24K",
    "AudioFormat",
    "Converter",
    "Encoding",
    "Resampler",
    "alaw_to_pcm16",
    "mulaw_to_pcm16",
    "pcm16_to_alaw",
    "pcm16_to_mulaw",
    "resample",
]

_HOMES = {
    "Converter": "convert",
    "Resampler": "resampling",
    "resample": "resampling",
    "alaw_to_pcm16": "g711",
    "mulaw_to_pcm16": "g711",
    "pcm16_to_alaw": "g711",
    "pcm16_to_mulaw": "g711",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f".{home}", __name__), name)
