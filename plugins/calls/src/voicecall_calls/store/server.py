"""Connections to a PostgreSQL server through psycopg 3, and owning a database on it.

Source: the manual of PostgreSQL, chapters "Database Connection Control Functions", "Advisory Locks"
and "Client Connection Defaults".
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.errors import LockNotAvailable
from sqlalchemy import Connection, create_engine
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from voicecall.errors import ConfigError, StoreError

__all__ = ["ServerAddress"]

_LOCK = int.from_bytes(b"voiccall")
"""Key of the advisory lock that the gateway writing to a database holds."""

_DEFAULTS = {
    "connect_timeout": "10",
    # A server that vanishes without closing the connection is noticed within half a minute.
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "20000",
}

_OWNER = """
SELECT a.application_name FROM pg_locks l JOIN pg_stat_activity a USING (pid)
WHERE l.locktype = 'advisory' AND l.granted AND a.datname = current_database()
AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
AND (l.classid::bigint << 32 | l.objid::bigint) = %s
"""


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """``name`` is the address without user and password, ``params`` are libpq's parameters."""

    name: str
    params: Mapping[str, str] = field(repr=False)

    @classmethod
    def parse(cls, url: str) -> ServerAddress:
        """Raises :exc:`ConfigError`, which does not quote the URL: it may contain a password."""
        try:
            given = {key: str(value) for key, value in conninfo_to_dict(url).items()}
        except (psycopg.Error, ValueError):
            raise ConfigError(
                "the URL of the PostgreSQL store is invalid; it must look like"
                " postgresql://user:password@host:5432/database"
            ) from None
        if _may_hold_a_password(given, url.count("@")):
            raise ConfigError(
                "the URL of the PostgreSQL store is invalid; characters of a password such as @"
                " and / must be written as %40 and %2F"
            )
        host, port = given.get("host", "localhost"), given.get("port", "5432")
        database = given.get("dbname") or given.get("user", "")
        me = f"voicecall pid {os.getpid()} on {socket.gethostname()}"
        fixed = {"application_name": me[:63], "client_encoding": "utf8"}
        return cls(f"postgresql://{host}:{port}/{database}", {**_DEFAULTS, **given, **fixed})

    @contextmanager
    def connected(self, *, writing: bool, lock_seconds: float) -> Iterator[Connection]:
        """A connection for one thread. The writing one owns the database, and owns it again when
        it is lost and reopened; the other only reads."""

        def connect() -> psycopg.Connection:
            made = psycopg.connect(**self.params)  # type: ignore[arg-type]
            try:
                self._set_up(made, writing, lock_seconds)
            except BaseException:
                made.close()
                raise
            return made

        engine = create_engine(
            "postgresql+psycopg://", creator=connect, poolclass=NullPool, hide_parameters=True
        )
        try:
            with engine.connect() as connection:
                try:
                    yield connection
                finally:
                    if writing:
                        _release(connection)
        finally:
            engine.dispose()

    def _set_up(self, made: psycopg.Connection, writing: bool, lock_seconds: float) -> None:
        if made.info.parameter_status("server_encoding") != "UTF8":
            raise StoreError(f"{self.name}: the database must have the encoding UTF8")
        if not writing:
            # All queries of a transaction see the same state.
            made.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            made.read_only = True
            return
        made.autocommit = True
        made.execute(
            "SELECT set_config('synchronous_commit', 'on', false)"
            " WHERE current_setting('synchronous_commit') = 'off'"
        )
        self._own(made, lock_seconds)
        made.autocommit = False

    def _own(self, made: psycopg.Connection, lock_seconds: float) -> None:
        """Wait for the lock: the server may still hold it for a gateway that was just killed."""
        made.execute(
            "SELECT set_config('lock_timeout', %s, false)", (f"{int(lock_seconds * 1000)}ms",)
        )
        try:
            made.execute("SELECT pg_advisory_lock(%s)", (_LOCK,))
        except LockNotAvailable as error:
            row = made.execute(_OWNER, (_LOCK,)).fetchone()
            owner = (row and row[0]) or "unknown"
            raise StoreError(f"another gateway ({owner}) uses {self.name}") from error
        made.execute("RESET lock_timeout")


def _may_hold_a_password(given: Mapping[str, str], ats: int) -> bool:
    """Whether a part of ``given`` that errors quote may contain a piece of the password: libpq
    ends the password at the first @ or slash. ``ats`` is the number of @ in the URL."""
    ports = given.get("port", "").replace(",", "")
    database = "@" in given.get("dbname", "") and (
        "user" not in given or ("password" in given and ats > 1)
    )
    return "@" in given.get("host", "") or database or not (ports + "0").isdecimal()


def _release(connection: Connection) -> None:
    """Release the lock now: the server would do it only some time after the connection closes."""
    # A lost connection has released it already.
    with suppress(SQLAlchemyError, StoreError):
        connection.rollback()
        if not connection.invalidated:
            with connection.begin():
                connection.exec_driver_sql(f"SELECT pg_advisory_unlock({_LOCK})")
