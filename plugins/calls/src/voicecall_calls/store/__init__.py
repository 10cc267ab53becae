"""The call store on SQLite."""

from .sqlite import SqliteStore

__all__ = ["SqliteStore"]
