"""From a model's text to what the caller hears: decode, clean, cut into sentences."""

from __future__ import annotations

from .cleanup import clean
from .sentences import SentenceSplitter
from .stream import SpokenStream

__all__ = ["SentenceSplitter", "SpokenStream", "clean"]
