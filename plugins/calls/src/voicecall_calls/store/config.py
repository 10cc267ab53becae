"""Configuration of the SQLite store."""

from __future__ import annotations

from pydantic import Field

from voicecall.configuring import ConfigModel

__all__ = ["SqliteConfig"]


class SqliteConfig(ConfigModel):
    """``directory`` holds the database, the journal and the lock."""

    directory: str = Field(min_length=1)
