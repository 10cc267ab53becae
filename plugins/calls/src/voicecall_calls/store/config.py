"""Configuration of the stores."""

from __future__ import annotations

from pydantic import Field

from voicecall.configuring import ConfigModel

__all__ = ["PostgresConfig", "SqliteConfig"]


class SqliteConfig(ConfigModel):
    """``directory`` contains the database, the journal and the lock."""

    directory: str = Field(
        min_length=1,
        description="directory of the database; filled in: `voice-calls` in the state directory",
    )


class PostgresConfig(ConfigModel):
    """``url`` is a connection URL as PostgreSQL's own programs accept it."""

    url: str = Field(
        pattern=r"^postgres(ql)?://",
        repr=False,
        description="postgresql://user:password@host:5432/database, with the parameters of libpq",
    )
    directory: str | None = Field(
        default=None,
        min_length=1,
        description="directory of journal and lock; default: `voice-calls` in the state directory",
    )
