"""From what a model writes to what the caller hears: decode, clean, cut into sentences."""

from __future__ import annotations

from .cleanup import clean
from .sentences import SentenceSplitter
from .stream import Payload, SpokenStream, extract

__all__ = ["Payload", "SentenceSplitter", "SpokenStream", "clean", "extract"]
