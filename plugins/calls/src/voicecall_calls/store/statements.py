"""Statements that are run for the rows of one group of commits after the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Dialect
from sqlalchemy.sql import ClauseElement

from .rows import Params

__all__ = ["ForRows"]


class ForRows:
    """A statement for rows that have the same keys; without rows it does nothing.

    For SQLite, whose driver takes the values as they are, it is compiled once: the execution of
    a statement by SQLAlchemy costs more than what the database does.
    """

    def __init__(self, statement: Any) -> None:
        self._statement = statement
        self._text = ""
        self._names: Sequence[str] = ()

    def run(self, connection: Connection, rows: Sequence[Params]) -> None:
        """Raises what SQLAlchemy raises."""
        if not rows:
            return
        if connection.dialect.name != "sqlite":
            connection.execute(self._statement, rows)
            return
        if not self._text:
            self._compile(connection.dialect, rows[0])
        names = self._names
        connection.exec_driver_sql(self._text, [tuple([row[n] for n in names]) for row in rows])

    def _compile(self, dialect: Dialect, row: Params) -> None:
        element: ClauseElement = self._statement
        compiled: Any = element.compile(dialect=dialect, column_keys=list(row))
        self._names = compiled.positiontup
        self._text = compiled.string
