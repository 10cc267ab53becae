"""The call store on SQL databases. :mod:`.postgres` is imported by itself: it needs an extra."""

from .sqlite import SqliteStore

__all__ = ["SqliteStore"]
