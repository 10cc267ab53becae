"""Statements that are run for the rows of each group of commits."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Dialect
from sqlalchemy.exc import DBAPIError
from sqlalchemy.sql import ClauseElement

from .rows import Params

__all__ = ["ForRows"]


class ForRows:
    """A statement for rows that have the same keys; without rows it does nothing.

    For SQLite, whose driver accepts the values unconverted, it is compiled once and run by the
    driver directly: SQLAlchemy's execution costs more than the work of the database.
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
        values = [tuple([row[n] for n in names]) for row in rows]
        cursor = connection.connection.cursor()
        try:
            cursor.executemany(self._text, values)
        except sqlite3.Error as error:
            raise DBAPIError.instance(self._text, None, error, sqlite3.Error) from error
        finally:
            cursor.close()

    def _compile(self, dialect: Dialect, row: Params) -> None:
        element: ClauseElement = self._statement
        compiled: Any = element.compile(dialect=dialect, column_keys=list(row))
        self._names = compiled.positiontup
        self._text = compiled.string
