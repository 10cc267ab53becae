"""Logging: JSON lines in the state directory, short lines on stderr, credentials masked.

Phone numbers are masked too. Transcripts need no masking: they are never passed to a logger.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any, TextIO

from voicecall.errors import ConfigError
from voicecall_gateway.floods import FloodFilter

__all__ = [
    "Mask",
    "configure_logging",
    "credentials_in",
    "credentials_of",
    "log_file",
    "private_directory",
]

MAX_BYTES = 10 * 1024 * 1024
KEPT_FILES = 5
_ROTATE_AGAIN_S = 60.0
MASKED = "***"

_CREDENTIAL_KEY = re.compile(
    r"(?:api|private|shared)[-_]?key|(?:auth|access)[-_]?token|token$|authorization|bearer"
    r"|credential|password|secret",
    re.IGNORECASE,
)
_CREDENTIAL_VARIABLE = re.compile(r"(?:KEY|TOKEN|SECRET|PASSWORD)\Z")
_PATTERNS = (
    (re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{8,}"), r"\1 " + MASKED),
    (
        re.compile(
            r"(?i)((?:api[-_]?key|auth[-_]?token|access[-_]?token|password|secret|token)"
            r"[\"']?\s*[=:]\s*[\"']?)[^\s\"',;&]{4,}"
        ),
        r"\1" + MASKED,
    ),
    (re.compile(r"(://[^/\s:@]+:)[^/\s@]+@"), r"\1" + MASKED + "@"),
    (re.compile(r"\+[1-9]\d{6,14}\b"), "+" + MASKED),
)
# Trying all patterns would be most of the cost of a line.
_SUSPECT = ("+", "://", "token", "key", "secret", "password", "bearer", "bas")
"""No pattern matches a casefolded line without any of these, and most lines have none. Only "bas"
of "basic", because the patterns match a Turkish i, which ``str.casefold`` does not map to i."""
_OURS = {"message", "asctime", "taskName", "masked"}
_encode = json.JSONEncoder(default=str).encode
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | _OURS


class Mask:
    """Removes credentials and phone numbers from text. ``add`` registers known values."""

    def __init__(self, values: Iterable[str] = ()) -> None:
        self._values: tuple[str, ...] = ()
        self.add(values)

    def add(self, values: Iterable[str]) -> None:
        # Longest first, so that no part of a longer value is left over. Stripped, because a quote
        # of a value may lack the white space around it or escape a line break.
        known = {*self._values, *(text for value in values if len(text := value.strip()) >= 6)}
        self._values = tuple(sorted(known, key=len, reverse=True))

    def __call__(self, text: str) -> str:
        for value in self._values:
            text = text.replace(value, MASKED)
        folded = text.casefold()
        for word in _SUSPECT:
            if word in folded:
                return _masked_by_patterns(text)
        return text


def _masked_by_patterns(text: str) -> str:
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text


def credentials_in(tree: Any) -> list[str]:
    """Strings in a configuration whose key names a credential."""
    found: list[str] = []
    if isinstance(tree, Mapping):
        for key, value in tree.items():
            if isinstance(value, str) and _CREDENTIAL_KEY.search(str(key)):
                found.append(value)
            else:
                found += credentials_in(value)
    elif isinstance(tree, list):
        for item in tree:
            found += credentials_in(item)
    return found


def credentials_of(environ: Mapping[str, str]) -> list[str]:
    """Values of environment variables whose names end like a credential's. They can replace keys
    of the configuration, and some libraries read their own."""
    named = ((name, value.strip()) for name, value in environ.items())
    return [value for name, value in named if _CREDENTIAL_VARIABLE.search(name) and value]


class _Second:
    """Formats a time once for all lines in the same second."""

    def __init__(self, make: Callable[[int], str]) -> None:
        self._make = make
        self._of = -1
        self._text = ""

    def __call__(self, time_s: float) -> str:
        second = int(time_s)
        if second != self._of:
            self._of, self._text = second, self._make(second)
        return self._text


class _JsonLines(logging.Formatter):
    def __init__(self, mask: Mask) -> None:
        super().__init__()
        self._mask = mask
        self._second = _Second(lambda at: time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at)))

    def format(self, record: logging.LogRecord) -> str:
        # Assembled by hand, because encoding a dict takes three times as long.
        time_ = f"{self._second(record.created)}.{int(record.msecs):03d}+00:00"
        message = _encode(_message(record, self._mask))
        line = (
            f'{{"time": "{time_}", "level": "{record.levelname.lower()}", '
            f'"logger": {_encode(record.name)}, "message": {message}'
        )
        for key in sorted(vars(record).keys() - _STANDARD):
            line += f", {_encode(key)}: {_encode(_masked(getattr(record, key), self._mask))}"
        if record.exc_info:
            error = self._mask(self.formatException(record.exc_info))
            line += f', "error": {_encode(error)}'
        return line + "}"


def _message(record: logging.LogRecord, mask: Mask) -> str:
    """The message without credentials, computed once for all handlers."""
    masked = vars(record).get("masked")
    if masked is None:
        masked = record.masked = mask(record.getMessage())
    return str(masked)


def _masked(value: Any, mask: Mask) -> Any:
    if isinstance(value, str):
        return mask(value)
    if isinstance(value, Mapping):
        return {str(key): _masked(item, mask) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_masked(item, mask) for item in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    return mask(str(value))


class _ShortLines(logging.Formatter):
    """``12:00:01 warning voicecall.calls: message``, always one line without control characters,
    because some messages quote untrusted text. Tracebacks go to the file only."""

    def __init__(self, mask: Mask) -> None:
        super().__init__()
        self._mask = mask
        self._second = _Second(lambda at: time.strftime("%H:%M:%S", time.localtime(at)))

    def format(self, record: logging.LogRecord) -> str:
        clock = self._second(record.created)
        text = _message(record, self._mask)
        if record.exc_info and record.exc_info[1] is not None:
            causes = dict.fromkeys(_causes(record.exc_info[1]))
            text += self._mask(f" ({'; '.join(causes)})")
        return f"{clock} {record.levelname.lower()} {record.name}: {_in_one_line(text)}"


def _causes(error: BaseException) -> Iterator[str]:
    """An error as text; for a group, whose own message says nothing, every error in it."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _causes(inner)
    else:
        yield f"{type(error).__name__}: {error}"


def _in_one_line(text: str) -> str:
    if text.isprintable():
        return text
    blank = "".join(" " if sign.isspace() else sign for sign in text)
    return "".join(s if s.isprintable() else "\N{REPLACEMENT CHARACTER}" for s in blank)


def log_file(state_dir: Path) -> Path:
    return state_dir / "logs" / "voicecall.log"


def private_directory(directory: Path) -> None:
    """Create a directory that only its owner can read. Raises :exc:`ConfigError`."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"{directory}: the directory cannot be created ({error.strerror}); set"
            " VOICECALL_STATE_DIR to another place"
        ) from None


class _StandardError(logging.StreamHandler[TextIO]):
    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (the base's name)
        """Do nothing: a broken stderr cannot be reported, and the handler of the file reports
        lines that cannot be formatted."""


class _PrivateRotatingFile(RotatingFileHandler):
    """Unlike the base class, which formats every record twice to know its length, this handler may
    exceed its limit by one line. A file that cannot be renamed keeps growing; one that was moved or
    deleted is recreated within a second."""

    _size = 0
    _failing = False
    _rotates_from = 0.0
    _looked = 0
    _file = (0, 0)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            if int(record.created) != self._looked:
                self._looked = int(record.created)
                self._look()
            if self._size >= self.maxBytes:
                self._rotate()
            line = self.format(record) + self.terminator
            if self.stream is None:
                self.stream = self._open()
            self.stream.write(line)
            self.stream.flush()
            self._size += len(line)
            self._failing = False
        except Exception:  # noqa: BLE001 (as every handler: a log must not disturb who writes it)
            self.handleError(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (the base's name)
        """Write one sentence to stderr, and no other until a line is written again. The base class
        would print a traceback for each line, with its arguments unmasked."""
        if not self._failing:
            self._failing = True
            self._complain("log lines are lost")

    def _complain(self, what: str) -> None:
        """Report the current exception on stderr."""
        if sys.stderr is None:
            return
        error = sys.exception()
        reason = getattr(error, "strerror", None) or type(error).__name__
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(f"{self.baseFilename}: {what} ({reason})\n")
            sys.stderr.flush()

    def _rotate(self) -> None:
        now = time.monotonic()
        if now < self._rotates_from:
            return
        try:
            self.doRollover()
            self._rotates_from = 0.0
        except OSError:
            if not self._rotates_from:
                self._complain("the log cannot be rotated and keeps growing")
            self._rotates_from = now + _ROTATE_AGAIN_S
            if self.stream is not None and self.stream.closed:
                # On a full disk the base class closes the stream but keeps the reference.
                self.stream = None

    def _look(self) -> None:
        """Update the size, or close the file if its name does not refer to it any more."""
        with contextlib.suppress(FileNotFoundError):
            about = os.stat(self.baseFilename)
            if (about.st_dev, about.st_ino) == self._file:
                self._size = about.st_size
                return
        if self.stream is not None:
            stream, self.stream = self.stream, None
            stream.close()

    def _open(self) -> Any:
        stream = super()._open()
        os.chmod(self.baseFilename, 0o600)
        about = os.fstat(stream.fileno())
        self._size, self._file = about.st_size, (about.st_dev, about.st_ino)
        if self._size and not _ends_a_line(self.baseFilename):
            stream.write(self.terminator)
        return stream


def _ends_a_line(file: str) -> bool:
    """Whether the file ends with a line break; a crash may leave half a line."""
    with open(file, "rb") as stream:
        stream.seek(-1, os.SEEK_END)
        return stream.read(1) == b"\n"


def configure_logging(state_dir: Path, mask: Mask, *, stderr: bool = True) -> None:
    """Send the log to the log file and to stderr. Call it once, in the gateway's process."""
    file = log_file(state_dir)
    private_directory(state_dir)
    private_directory(file.parent)
    try:
        to_file = _PrivateRotatingFile(
            file, maxBytes=MAX_BYTES, backupCount=KEPT_FILES, encoding="utf-8"
        )
    except OSError as error:
        raise ConfigError(
            f"{file}: the log cannot be written ({error.strerror}); make it writable or set"
            " VOICECALL_STATE_DIR"
        ) from None
    to_file.setFormatter(_JsonLines(mask))
    # No line contains the thread, the process or the place in the code. This keeps records from
    # collecting them, as the logging documentation describes under "Optimization".
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging._srcfile = None
    root = logging.getLogger()
    root.setLevel(logging.WARNING)
    root.addHandler(to_file)
    if stderr:
        to_stderr = _StandardError(sys.stderr)
        to_stderr.setFormatter(_ShortLines(mask))
        root.addHandler(to_stderr)
    logging.getLogger("voicecall").setLevel(logging.INFO)
    logging.getLogger("uvicorn.error").addFilter(FloodFilter(time.monotonic))
