"""Logging: JSON lines in the state directory, short lines on stderr, credentials masked.

Phone numbers are masked too. Transcripts are not masked, they are never handed to a logger.
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
# Looking for all patterns at once would be most of what a line costs.
_SUSPECT = ("+", "://", "token", "key", "secret", "password", "bearer", "bas")
"""Where a line has none of these, whatever its case, no pattern fits; most have none. Of "basic"
no more: the patterns take a Turkish i for an i, as ``str.casefold`` does not."""
_OURS = {"message", "asctime", "taskName", "masked"}
_encode = json.JSONEncoder(default=str).encode
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | _OURS


class Mask:
    """Removes credentials and phone numbers from text. ``add`` registers known values."""

    def __init__(self, values: Iterable[str] = ()) -> None:
        self._values: tuple[str, ...] = ()
        self.add(values)

    def add(self, values: Iterable[str]) -> None:
        # Longest first, so that no rest of a longer value stays behind. Blanks around one may be
        # missing where it is quoted, and a line break is written otherwise.
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
    """Strings in a configuration that stand under a key which names a credential."""
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
    """Values of variables whose names end like that of a credential. Such a one stands in for a key
    that a configuration does not have, and some libraries look for theirs by themselves."""
    named = ((name, value.strip()) for name, value in environ.items())
    return [value for name, value in named if _CREDENTIAL_VARIABLE.search(name) and value]


class _Second:
    """The text of a second, made once for all lines in it."""

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
        # Put together by hand: to encode a dict takes three times as long.
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
    """The message without credentials; made once for all handlers."""
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
    """``12:00:01 warning voicecall.calls: message``, always one line that steers no terminal: texts
    of strangers are in some. The traceback stays in the file."""

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
    """An error in words; for a group, which says nothing by itself, each one in it."""
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
    """Make a directory that only its owner can read; raises :exc:`ConfigError`."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"{directory}: the state directory cannot be made ({error.strerror}); set"
            " VOICECALL_STATE_DIR to one that can"
        ) from None


class _StandardError(logging.StreamHandler[TextIO]):
    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (the base's name)
        """Where stderr is broken, nobody can be told; a line that is none, the file tells of."""


class _PrivateRotatingFile(RotatingFileHandler):
    """The base formats every record a second time to know its length; this file may instead
    outgrow its limit by one line, and one that cannot be renamed grows on. One that was moved away
    or deleted is begun anew within a second."""

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
        """One sentence on stderr, once until a line is written again: the base prints a traceback
        for each line, with its arguments as they are."""
        if not self._failing:
            self._failing = True
            self._complain("lines of the log are lost")

    def _complain(self, what: str) -> None:
        """Tell stderr of the present exception."""
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
                self._complain("the log cannot be rotated, and grows on")
            self._rotates_from = now + _ROTATE_AGAIN_S
            if self.stream is not None and self.stream.closed:
                # On a full disk it is closed, and not forgotten.
                self.stream = None

    def _look(self) -> None:
        """Whether the name still means the file that is written to, and how long it is."""
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
    """Whether nothing stands behind the last end of a line: a crash may leave half of one."""
    with open(file, "rb") as stream:
        stream.seek(-1, os.SEEK_END)
        return stream.read(1) == b"\n"


def configure_logging(state_dir: Path, mask: Mask, *, stderr: bool = True) -> None:
    """Send everything to the log file and to stderr. For the gateway's process, once."""
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
    # No line tells the thread, the process or the place in the code, and each record would look for
    # them: the ways that the standard library's guide to logging gives to leave that out.
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
