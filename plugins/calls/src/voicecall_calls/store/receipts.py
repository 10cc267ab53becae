"""Finds out whether a transaction was committed if its COMMIT got no answer.

Each transaction writes its number into the writer's row. A writer that lost the connection
reconnects and reads the row: the number is there if and only if the whole transaction was stored.
Reconnecting includes taking ownership of the database again; a gateway that owned it in between
has removed the row.
"""

from __future__ import annotations

from itertools import count

from sqlalchemy import Column, Connection, MetaData, Table, delete, insert, select
from sqlalchemy.exc import SQLAlchemyError

from voicecall.errors import StoreError

from .columns import Whole, Words

__all__ = ["Receipts"]

_metadata = MetaData()
_last_batch = Table(
    "last_batch",
    _metadata,
    Column("writer", Words, primary_key=True),
    Column("number", Whole, nullable=False),
)


class Receipts:
    """``session`` is an id that no other writer of the database uses."""

    def __init__(self, session: str) -> None:
        self._session = session
        self._numbers = count(1)

    def prepare(self, connection: Connection) -> None:
        """Create the table if it does not exist, and remove the rows of other writers."""
        with connection.begin():
            _metadata.create_all(connection)
            connection.execute(delete(_last_batch))
            connection.execute(insert(_last_batch), {"writer": self._session, "number": 0})

    def next(self) -> int:
        """A number for a transaction that is about to begin."""
        return next(self._numbers)

    def leave(self, connection: Connection, number: int) -> None:
        """Write the number, inside its transaction. Raises :exc:`StoreError` if another writer
        owned the database in the meantime."""
        mine = _last_batch.c.writer == self._session
        done = connection.execute(_last_batch.update().where(mine).values(number=number))
        if done.rowcount != 1:
            raise StoreError("another gateway wrote to the database while the connection was lost")

    def found(self, connection: Connection, number: int) -> bool:
        """Whether the transaction with this number was committed. Raises :exc:`StoreError` if that
        cannot be determined."""
        mine = _last_batch.c.writer == self._session
        try:
            with connection.begin():
                stored = connection.execute(select(_last_batch.c.number).where(mine)).scalar()
        except (SQLAlchemyError, StoreError) as error:
            raise StoreError(
                "the connection to the database was lost: the commit may or may not be stored"
            ) from error
        if stored is None:
            raise StoreError("another gateway wrote to the database while the connection was lost")
        return bool(stored == number)
