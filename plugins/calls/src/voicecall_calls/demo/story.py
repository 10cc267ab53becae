"""What the demo's caller does: the steps of a phone script, and what must be recognised."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Story", "built_in_story", "normal", "spoken_story"]

Step = Mapping[str, Any]

_WAIT: Step = {"do": "wait-for-silence", "afterMs": 700, "timeoutMs": 20_000}


@dataclass(frozen=True, slots=True)
class Story:
    """``said``: the caller's sentences, in the order in which they must be recognised."""

    steps: Sequence[Step]
    said: Sequence[str]


def normal(text: str) -> str:
    """A sentence in the grammar's form: lower case, words only."""
    return " ".join(re.findall(r"[a-z']+", text.lower()))


def built_in_story() -> Story:
    """Four spoken turns, an interruption and a key press."""
    steps: list[Step] = [
        _WAIT,
        {"do": "say", "text": "I would like to make an appointment."},
        {"do": "interrupt", "afterMs": 2500, "text": "Monday afternoon please."},
        _WAIT,
        {"do": "press", "digits": "1"},
        _WAIT,
        {"do": "say", "text": "What are your opening hours?"},
        _WAIT,
        {"do": "say", "text": "Goodbye."},
        {"do": "silent"},
    ]
    return Story(steps, _sentences(steps))


def spoken_story(sentences: Sequence[str]) -> Story:
    """The given sentences, each after the answer to the one before; then the caller hangs up."""
    steps: list[Step] = [_WAIT]
    for sentence in sentences:
        steps += [{"do": "say", "text": sentence}, _WAIT]
    return Story([*steps, {"do": "hang-up"}], list(sentences))


def _sentences(steps: Sequence[Step]) -> list[str]:
    return [str(step["text"]) for step in steps if "text" in step]
