"""What commands print: one JSON document, or text for people."""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TextIO, cast

from voicecall.errors import VoicecallError

__all__ = [
    "OutputLost",
    "print_error",
    "print_json",
    "print_styled",
    "print_table",
    "print_text",
    "watched_output",
]


_STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
"""Control characters, including those that begin a line or change the direction of text."""


class OutputLost(VoicecallError):
    """The output cannot be written. The message is empty if the reader has gone, as ``head``
    does."""


@contextlib.contextmanager
def watched_output() -> Iterator[None]:
    """Raise :exc:`OutputLost` inside of this context if stdout cannot be written, also for what
    others print: typer its help, an emulator its address."""
    if sys.stdout is None:
        yield
        return
    with contextlib.redirect_stdout(cast(TextIO, _Watched(sys.stdout))):
        yield


class _Watched:
    """After one failed write every write fails, because typer ignores the first failure."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lost: OutputLost | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with self._watched():
            return self._stream.write(text)

    def flush(self) -> None:
        with self._watched():
            self._stream.flush()

    @contextlib.contextmanager
    def _watched(self) -> Iterator[None]:
        if self._lost is not None:
            raise self._lost
        try:
            yield
        except OSError as error:
            _give_up(self._stream)
            gone = isinstance(error, BrokenPipeError)
            self._lost = OutputLost("" if gone else f"cannot write the output: {error.strerror}")
            raise self._lost from None


def print_json(document: Mapping[str, Any] | Sequence[Any]) -> None:
    """Print one document, indented by two spaces. Raises :exc:`OutputLost`."""
    print_text(json.dumps(document, indent=2, ensure_ascii=False, default=str))


def print_text(text: str) -> None:
    """Print one or more lines, if there is a stdout. Raises :exc:`OutputLost`."""
    print_styled(_harmless(text))


def print_styled(text: str) -> None:
    """:func:`print_text` for our own lines, which may contain terminal control sequences."""
    if sys.stdout is None:
        return
    try:
        sys.stdout.write(text + "\n")
    except UnicodeEncodeError:
        encoding = sys.stdout.encoding
        sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding) + "\n")
    sys.stdout.flush()


def _harmless(text: str) -> str:
    """``text`` with control characters escaped as in JSON: texts and addresses come from strangers,
    and must not control the terminal."""
    return _STEERING.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _give_up(stream: TextIO) -> None:
    """Discard what is still in the buffer: the interpreter would fail to write it at exit."""
    with contextlib.suppress(OSError, ValueError), open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), stream.fileno())


def print_error(text: str) -> None:
    """Print one line on stderr. A failure is ignored: it cannot be reported anywhere."""
    if sys.stderr is None:
        return
    with contextlib.suppress(OSError):
        sys.stderr.write(_harmless(" ".join(text.splitlines())) + "\n")
        sys.stderr.flush()


def print_table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print columns aligned with spaces."""
    lines = [tuple(headers), *(tuple(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headers))]
    for line in lines:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        print_text("  ".join(cells).rstrip())
