"""A PostgreSQL server for tests: one per session, on a Unix socket in its own directory."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import psycopg

__all__ = ["Server", "missing", "running"]

_SERVER_OPTIONS = "-c listen_addresses='' -c fsync=off -c shared_buffers=16MB -c max_connections=40"


def _program(name: str) -> str | None:
    """Path of a server program, which Debian keeps out of ``PATH``."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return shutil.which(name) or (str(found[-1]) if found else None)


def missing() -> str | None:
    """Why no server can be started here; None if one can."""
    absent = [name for name in ("initdb", "pg_ctl") if _program(name) is None]
    return f"no PostgreSQL server is installed ({', '.join(absent)})" if absent else None


@dataclass
class Server:
    """``data`` and ``socket`` are directories."""

    data: Path
    socket: Path
    numbers: Iterator[int] = field(default_factory=lambda: count(1))

    def url(self, database: str = "postgres", **options: str) -> str:
        more = "".join(f"&{key}={value}" for key, value in options.items())
        return f"postgresql://tester@/{database}?host={self.socket}{more}"

    def new_database(self, options: str = "") -> str:
        """The URL of an empty database."""
        name = f"calls{next(self.numbers)}"
        self.execute(f"CREATE DATABASE {name} {options}")
        return self.url(name)

    def execute(self, statement: str, url: str | None = None) -> list[tuple[Any, ...]]:
        with psycopg.connect(url or self.url(), autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def stop(self) -> None:
        _run("pg_ctl", "stop", "-D", str(self.data), "-m", "immediate", "-w")

    def start(self) -> None:
        log = self.data.parent / "log"
        options = f"{_SERVER_OPTIONS} -k {self.socket}"
        _run("pg_ctl", "start", "-D", str(self.data), "-w", "-l", str(log), "-o", options)


@contextmanager
def running() -> Iterator[Server]:
    """A server with the superuser ``tester``, removed afterwards with all its data."""
    with tempfile.TemporaryDirectory(prefix="pg") as name:
        root = Path(name)
        server = Server(root / "data", root)
        account = _account()
        if account is not None:
            os.chown(root, account.pw_uid, account.pw_gid)
        _run(
            "initdb", "-D", str(server.data), "-U", "tester", "-A", "trust",
            "-E", "UTF8", "--locale=C", "--no-sync",
        )  # fmt: skip
        server.start()
        try:
            yield server
        finally:
            server.stop()


def _account() -> pwd.struct_passwd | None:
    """The account that the server runs under: it refuses to run as root."""
    if os.getuid() != 0:
        return None
    names = {entry.pw_name: entry for entry in pwd.getpwall()}
    return names.get("postgres") or names["nobody"]


def _run(program: str, *arguments: str) -> None:
    path = _program(program)
    assert path is not None
    account = _account()
    as_other: dict[str, Any] = {}
    if account is not None:
        as_other = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
    # The server keeps the descriptors it inherits: a pipe would stay open while it runs.
    done = subprocess.run(
        [path, *arguments],
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=False,
        **as_other,
    )
    assert done.returncode == 0, f"{program} {' '.join(arguments)} ended with {done.returncode}"
