"""Reading the last lines of a log or journal, across rotated files, and following it."""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

from .logs import KEPT_FILES

__all__ = ["follow", "last_lines", "parse_line", "pretty"]

_SHOWN = frozenset({"time", "level", "logger", "message", "error"})


def last_lines(file: Path, count: int) -> list[str]:
    """The last ``count`` complete lines, oldest first. Raises :exc:`OSError`."""
    with _open(file) or nullcontext() as stream:
        return list(_last(file, stream, count))


def follow(file: Path, count: int, wait: Callable[[], None]) -> Iterator[str]:
    """The last ``count`` lines and then every new one, across rotations. A file that was truncated
    is read from its beginning. ``wait()`` is called when there is nothing new; the generator never
    ends by itself. Raises :exc:`OSError`."""
    stream, first = _open(file), True
    while True:
        with stream or nullcontext():
            if first:
                yield from _last(file, stream, count)
                first = False
            later = None
            while later is None and stream is not None:
                # Look for a following file first: nothing is written to this one after that file
                # exists, so what is read below is complete.
                later = _after(stream, file)
                if os.fstat(stream.fileno()).st_size < stream.tell():
                    stream.seek(0)
                yield from _lines(stream, over=later is not None)
                if later is None:
                    wait()
        if stream is None:
            wait()
        stream = later or _open(file)


def _last(file: Path, stream: BinaryIO | None, count: int) -> Iterable[str]:
    """The last lines of the older parts and of the file itself; ``stream`` is left after the last
    one."""
    lines: deque[str] = deque(maxlen=count)
    for path in _older(file):
        if (part := _open(path)) is not None:
            with part:
                # The file may have been rotated meanwhile.
                if stream is None or not _is_same(part, stream):
                    lines.extend(_lines(part, over=True))
    if stream is not None:
        lines.extend(_lines(stream))
    return lines


def _lines(stream: BinaryIO, *, over: bool = False) -> Iterator[str]:
    """Complete, non-blank lines from here on; the stream is left after the last one. If the file is
    finished (``over``), an incomplete last line, as a crash leaves it, counts too."""
    for line in stream:
        if not (over or line.endswith(b"\n")):
            stream.seek(-len(line), os.SEEK_CUR)
            return
        if line.strip():
            yield line.decode("utf-8", "replace").rstrip("\r\n")


def _older(file: Path) -> list[Path]:
    """The paths of a log's older parts, oldest first."""
    return [file.with_name(f"{file.name}.{n}") for n in range(KEPT_FILES, 0, -1)]


def _open(file: Path) -> BinaryIO | None:
    try:
        return file.open("rb")
    except FileNotFoundError:
        return None


def _is_same(one: BinaryIO, other: BinaryIO) -> bool:
    return os.path.sameopenfile(one.fileno(), other.fileno())


def _after(stream: BinaryIO, file: Path) -> BinaryIO | None:
    """The file that follows ``stream``; None while that is the newest, or while the log is being
    renamed. If ``stream`` was deleted or moved away, it is the oldest file written to after it."""
    now = os.fstat(stream.fileno())
    places = [*_older(file), file]
    opened = [(path, found) for path in places if (found := _open(path)) is not None]
    same = [_is_same(found, stream) for _, found in opened]
    if any(same):
        later = opened[same.index(True) + 1 :]
    else:
        # The log itself qualifies whatever its time, because the clock may have been set back.
        later = [
            (path, found)
            for path, found in opened
            if path == file or os.fstat(found.fileno()).st_mtime_ns >= now.st_mtime_ns
        ]
    chosen = later[0][1] if later else None
    for _, found in opened:
        if found is not chosen:
            found.close()
    return chosen


def parse_line(line: str) -> Mapping[str, Any]:
    """A line of the log as an object; any other text becomes its ``message``."""
    try:
        found = json.loads(line)
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {"message": line}


def pretty(line: str) -> str:
    """A line for people: local time, level, logger, message, then all other fields."""
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
    # A log contains text that strangers sent, which must not control the terminal.
    return "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text)
