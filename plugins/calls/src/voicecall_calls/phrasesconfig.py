"""Configuration of fixed phrases."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from voicecall.configuring import ConfigModel

__all__ = ["PhrasesConfig", "WordsOrNone"]


def _words(text: str) -> str:
    # An empty phrase would count as a failure of the voice, or leave the caller in silence.
    if not text.strip():
        raise ValueError("must not be empty")
    return text


def _code_phrase(text: str) -> str:
    if "{code}" not in text:
        raise ValueError("must contain {code}, the place of the pairing code")
    return text


Words = Annotated[str, Field(min_length=1), AfterValidator(_words)]
WordsOrNone = Annotated[str, AfterValidator(str.strip)]
"""A blank text becomes empty: nothing is said."""
CodePhrase = Annotated[str, AfterValidator(_code_phrase)]


class PhrasesConfig(ConfigModel):
    """Fixed phrases, spoken without the agent."""

    greeting: Words = "Hello! How can I help you today?"
    filler: WordsOrNone = "One moment, please."
    not_understood: Words = "Sorry, could you say that again?"
    failed: Words = "I am sorry, something went wrong on my side. Please call again later. Goodbye."
    cannot_hear: Words = "I am sorry, I cannot hear you any more. Please call again. Goodbye."
    still_there: Words = "Are you still there?"
    goodbye: Words = "I will hang up now. Goodbye."
    refused: Words | None = None
    resumed: Words = "Sorry, I lost you for a moment. Please go on."
    pairing: CodePhrase = (
        "This line is private. Your code is {code}. Again: {code}. "
        "Ask the owner to approve it, then call again. Goodbye."
    )
