"""Configuration block ``pocketsphinx``."""

from __future__ import annotations

import re
from pathlib import Path

from pydantic import Field, field_validator, model_validator

from voicecall.configuring import ConfigModel

__all__ = ["MEASURED_CMN", "PocketsphinxConfig"]

MEASURED_CMN = "54.1,24.8,-28.6,24.9,-19.6,0.5,-2.5,-12.2,2.5,-2.0,6.2,-8.1,4.7"
"""Cepstral mean of synthetic speech in telephone quality; README.md says how it was measured."""

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)


class PocketsphinxConfig(ConfigModel):
    """Local recognition of a fixed set of sentences. One of ``grammar``, ``grammarFile`` and
    ``phrases`` is required."""

    grammar: str | None = Field(default=None, description="JSGF text with one public rule")
    grammar_file: Path | None = Field(
        default=None, description="Path of a JSGF file; ~ is the home directory"
    )
    phrases: tuple[str, ...] = Field(default=(), description="The sentences that are understood")
    cmninit: str = Field(
        default=MEASURED_CMN,
        description="Cepstral mean that partial results start from: 13 numbers",
    )
    pool: int = Field(
        default=4, ge=1, le=64, description="Decoders created before the gateway is ready"
    )
    end_silence_ms: int | None = Field(
        default=None, ge=200, le=5000, description="Silence that ends an utterance"
    )
    reject_below: float = Field(
        default=-3.4,
        allow_inf_nan=False,
        description="Score below which an utterance counts as not understood; lower accepts more",
    )

    @model_validator(mode="after")
    def _one_source(self) -> PocketsphinxConfig:
        given = {
            "grammar": self.grammar is not None,
            "grammarFile": self.grammar_file is not None,
            "phrases": bool(self.phrases),
        }
        names = [name for name, there in given.items() if there]
        if len(names) != 1:
            found = " and ".join(names) or "none"
            raise ValueError(
                f"exactly one of grammar, grammarFile and phrases is required, not {found}"
            )
        return self

    @field_validator("cmninit")
    @classmethod
    def _thirteen_numbers(cls, value: str) -> str:
        parts = value.split(",")
        if len(parts) != 13 or not all(_NUMBER.fullmatch(part.strip()) for part in parts):
            raise ValueError("must be 13 numbers separated by commas")
        return value
