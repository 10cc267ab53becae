"""Reading the log back: the last lines, across rotated files, and whatever comes after them."""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

from .logs import KEPT_FILES

__all__ = ["follow", "last_lines", "parse_line", "pretty"]

_SHOWN = frozenset({"time", "level", "logger", "message", "error"})


def last_lines(file: Path, count: int) -> list[str]:
    """The last ``count`` complete lines, oldest first. Raises :exc:`OSError`."""
    lines, stream = _tail(file, count)
    if stream is not None:
        stream.close()
    return lines


def follow(file: Path, count: int, wait: Callable[[], None]) -> Iterator[str]:
    """The last ``count`` lines and then every new one, also after a rotation. A log that was cut is
    read from its begin. ``wait()`` is called when there is nothing new; the generator never ends by
    itself."""
    lines, stream = _tail(file, count)
    rest = b""
    while True:
        if stream is None:
            wait()
            stream = _open(file)
            continue
        with stream:
            yield from lines
            while True:
                # Whether another file follows is asked first: nothing is written to this one
                # after that, and what is read below is all of it.
                later = _after(stream, file)
                if os.fstat(stream.fileno()).st_size < stream.tell():
                    stream.seek(0)
                    rest = b""
                for chunk in _chunks(stream):
                    *whole, rest = (rest + chunk).split(b"\n")
                    yield from (_text(line) for line in whole)
                if later is not None:
                    break
                wait()
        lines, stream, rest = [], later, b""


def _tail(file: Path, count: int) -> tuple[list[str], BinaryIO | None]:
    """The last lines, and the newest file behind the last of them; None where there is no file."""
    lines: deque[str] = deque(maxlen=count)
    newest: BinaryIO | None = None
    for path in _files(file):
        if (stream := _open(path)) is None:
            continue
        if newest is not None:
            newest.close()
        newest = stream
        for line in stream:
            if not line.endswith(b"\n"):
                stream.seek(-len(line), os.SEEK_CUR)
                break
            lines.append(_text(line))
    return list(lines), newest


def _chunks(stream: BinaryIO) -> Iterator[bytes]:
    while chunk := stream.read(65536):
        yield chunk


def _files(file: Path) -> list[Path]:
    """The log and its older parts, oldest first."""
    older = [file.with_name(f"{file.name}.{n}") for n in range(KEPT_FILES, 0, -1)]
    return [path for path in (*older, file) if path.exists()]


def _open(file: Path) -> BinaryIO | None:
    try:
        return file.open("rb")
    except FileNotFoundError:
        return None


def _after(stream: BinaryIO, file: Path) -> BinaryIO | None:
    """The file that follows the one that is read; None while that is the newest, or the log is
    between two names. One that has vanished among the older ones, or was moved away, is followed by
    the oldest that was written to after it."""
    now = os.fstat(stream.fileno())
    opened = [(path, found) for path in _files(file) if (found := _open(path)) is not None]
    abouts = [os.fstat(found.fileno()) for _, found in opened]
    names = [_identity(about) for about in abouts]
    if _identity(now) in names:
        later = opened[names.index(_identity(now)) + 1 :]
    else:
        # The log itself follows whatever its time: a clock may have been set.
        later = [
            (path, found)
            for (path, found), about in zip(opened, abouts, strict=True)
            if path == file or about.st_mtime_ns >= now.st_mtime_ns
        ]
    chosen = later[0][1] if later else None
    for _, found in opened:
        if found is not chosen:
            found.close()
    return chosen


def _identity(about: os.stat_result) -> tuple[int, int]:
    return about.st_dev, about.st_ino


def _text(line: bytes) -> str:
    return line.decode("utf-8", "replace").rstrip("\r\n")


def parse_line(line: str) -> Mapping[str, Any]:
    """A line of the log as an object; one that is none becomes its message."""
    try:
        found = json.loads(line)
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {"message": line}


def pretty(line: str) -> str:
    """A line for people: local time, level, logger, message, then whatever else it says."""
    record = parse_line(line)
    logger = str(record.get("logger", ""))
    words = [_clock(record.get("time")), str(record.get("level", ""))]
    words += [f"{logger}:" if logger else "", str(record.get("message", ""))]
    words += [f"{key}={_value(value)}" for key, value in record.items() if key not in _SHOWN]
    text = " ".join(word for word in words if word)
    error = record.get("error")
    if error:
        text += "".join(f"\n    {part}" for part in str(error).splitlines())
    return _printable(text)


def _clock(value: Any) -> str:
    try:
        return datetime.fromisoformat(str(value)).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    except ValueError:
        return ""


def _value(value: Any) -> str:
    return value if isinstance(value, str) and " " not in value else json.dumps(value)


def _printable(text: str) -> str:
    # A log holds what strangers sent; it must not steer the terminal.
    return "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text)
