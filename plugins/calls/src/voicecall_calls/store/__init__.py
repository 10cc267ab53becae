"""The call store on SQL databases. :mod:`.postgres` is imported separately: it needs an extra."""

from .sqlite import SqliteStore

__all__ = ["SqliteStore"]
