"""Column types that hold the same values in every database."""

from __future__ import annotations

from sqlalchemy import BigInteger, Dialect, Integer, Text, TypeDecorator

__all__ = ["Whole", "Words", "escaped", "unescaped"]


def escaped(text: str) -> str:
    """``text`` without NUL, which PostgreSQL cannot store; :func:`unescaped` restores it."""
    return text.replace("\x01", "\x01\x02").replace("\x00", "\x01\x01")


def unescaped(text: str) -> str:
    return text.replace("\x01\x01", "\x00").replace("\x01\x02", "\x01")


class _EscapedText(TypeDecorator[str]):
    """PostgreSQL text, ordered by code point as in SQLite, whatever the database's locale."""

    impl = Text
    cache_ok = True

    def __init__(self) -> None:
        super().__init__(collation="C")

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        return None if value is None else escaped(value)

    def process_result_value(self, value: str | None, dialect: Dialect) -> str | None:
        return None if value is None else unescaped(value)


Whole = Integer().with_variant(BigInteger(), "postgresql")
"""64 bits, for milliseconds since the epoch; SQLite's integers have them anyway."""

Words = Text().with_variant(_EscapedText(), "postgresql")
