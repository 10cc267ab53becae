"""Reading a file of lines as it grows: the call journal, or another that somebody names."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

__all__ = ["follow", "last_lines"]


def last_lines(path: Path, count: int) -> list[str]:
    """The last ``count`` lines that are complete and not blank; none of a file that is not there.
    Raises ``OSError``."""
    stream = _open(path)
    if stream is None:
        return []
    with stream:
        return _last(_lines(stream), count)


def follow(path: Path, count: int, wait: Callable[[], None]) -> Iterator[str]:
    """The last ``count`` lines, then each new one once it is complete. A file that was replaced is
    read to its end and then the new one from its begin; one that was cut is read anew. ``wait()``
    is called when there is nothing new; the generator never ends by itself. Raises ``OSError``."""
    first = True
    while True:
        stream = _open(path)
        if stream is None:
            first = False
            wait()
            continue
        with stream:
            if first:
                yield from _last(_lines(stream), count)
                first = False
            while True:
                # Whether the file was replaced is asked first: what is read after that is all
                # that was written to it.
                replaced = _replaced(stream, path)
                if os.fstat(stream.fileno()).st_size < stream.tell():
                    stream.seek(0)
                yield from _lines(stream)
                if replaced:
                    break
                wait()


def _lines(stream: BinaryIO) -> Iterator[str]:
    """Complete lines from here on; the stream is left behind the last one."""
    while True:
        start = stream.tell()
        line = stream.readline()
        if not line.endswith(b"\n"):
            stream.seek(start)
            return
        if line.strip():
            yield line.decode("utf-8", "replace").rstrip("\r\n")


def _last(lines: Iterator[str], count: int) -> list[str]:
    return list(deque(lines, maxlen=count))


def _open(path: Path) -> BinaryIO | None:
    try:
        return path.open("rb")
    except FileNotFoundError:
        return None


def _replaced(stream: BinaryIO, path: Path) -> bool:
    """Whether another file has the name now; one that is missing may come back under it."""
    try:
        now = path.stat()
    except FileNotFoundError:
        return False
    opened = os.fstat(stream.fileno())
    return (now.st_dev, now.st_ino) != (opened.st_dev, opened.st_ino)
