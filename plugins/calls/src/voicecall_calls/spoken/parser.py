"""Reads a model's text character by character and separates the answer from its wrapping.

The model is asked for ``{"spoken": "..."}``. Models write that in a code fence, surrounded by
chatter, cut off, several times in a row, or write plain text instead. The result does not depend on
the pieces in which the text arrives.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import Enum, auto
from itertools import groupby
from operator import attrgetter

__all__ = ["Kind", "Parser", "Part"]

_SPOKEN = "spoken"
_SIMILAR_KEYS = frozenset(
    {"text", "message", "reply", "response", "answer", "say", "speech", "content"}
)
_REASONING_TAGS = frozenset({"think", "thinking", "thought", "reasoning", "analysis"})
_LONGEST_TAG = max(map(len, _REASONING_TAGS)) + 3
_RAW_LIMIT = 65_536
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "b": " ", "f": " "}


class Kind(Enum):
    """``PLAIN``: text outside any wrapping. ``SPOKEN``: text of a spoken value. ``VALUE_END``: the
    end of a spoken value. ``NOT_MEANT``: the plain text so far was reasoning. ``END_CALL``: a
    complete object asks for the call to end."""

    PLAIN = auto()
    SPOKEN = auto()
    VALUE_END = auto()
    NOT_MEANT = auto()
    END_CALL = auto()


@dataclass(frozen=True, slots=True)
class Part:
    kind: Kind
    text: str = ""


class _Place(Enum):
    KEY = auto()
    COLON = auto()
    VALUE = auto()
    AFTER = auto()


class _Object:
    """One JSON object, read tolerantly: it may have control characters in strings, text between its
    parts, and no end."""

    def __init__(self, opening: str, key: str | None = None) -> None:
        self.done = False
        self._raw = [opening]
        self._stack = ["{"]
        self._said = [False]
        self._place = _Place.KEY
        self._speak = False
        self._spoken_any = False
        self._string: list[str] | None = None
        self._escape: str | None = None
        self._high_surrogate = ""
        if key is not None:
            self._key_read(key)
            self._place = _Place.VALUE

    def read(self, character: str) -> list[Part]:
        if len(self._raw) < _RAW_LIMIT:
            self._raw.append(character)
        if self._string is not None:
            return self._in_string(character, self._string)
        match character:
            case '"':
                self._string = []
            case ":" if self._place is _Place.COLON:
                self._place = _Place.VALUE
            case ",":
                self._place = _Place.KEY if self._stack[-1] == "{" else _Place.VALUE
            case "{":
                self._stack.append("{")
                self._said.append(False)
                self._place, self._speak = _Place.KEY, False
            case "[":
                self._stack.append("[")
                self._place = _Place.VALUE
            case "}" | "]":
                if self._stack.pop() == "{":
                    self._said.pop()
                self._place = _Place.AFTER
                if not self._stack:
                    self.done = True
                    return self._whole()
        return []

    def _in_string(self, character: str, collected: list[str]) -> list[Part]:
        speaking = self._speak and self._place is not _Place.KEY
        if self._escape is not None:
            text = self._unescape(character)
        elif character == "\\":
            self._escape = ""
            return []
        elif character == '"':
            self._string = None
            self._high_surrogate = ""
            if self._place is _Place.KEY:
                self._key_read("".join(collected))
                return []
            self._place = _Place.AFTER
            return [Part(Kind.VALUE_END)] if speaking else []
        else:
            text = character
        if not speaking:
            collected.append(text)
            return []
        return [Part(Kind.SPOKEN, text)] if text else []

    def _unescape(self, character: str) -> str:
        """The text of an escape sequence once it is complete, empty before."""
        sequence = (self._escape or "") + character
        if sequence[0] != "u":
            self._escape = None
            return _ESCAPES.get(character, character)
        if len(sequence) < 5:
            self._escape = sequence
            return ""
        self._escape = None
        try:
            code = int(sequence[1:], 16)
        except ValueError:
            return ""
        high, self._high_surrogate = self._high_surrogate, ""
        if 0xD800 <= code < 0xDC00:
            self._high_surrogate = chr(code)
            return ""
        if 0xDC00 <= code < 0xE000:
            if not high:
                return ""
            return chr(0x10000 + ((ord(high) - 0xD800) << 10) + code - 0xDC00)
        return chr(code)

    def _key_read(self, key: str) -> None:
        self._place = _Place.COLON
        self._speak = key.strip().lower() == _SPOKEN and not self._said[-1]
        if self._speak:
            self._said[-1] = self._spoken_any = True

    def _whole(self) -> list[Part]:
        """Parts that only a complete and valid object may produce."""
        try:
            value = json.loads("".join(self._raw), strict=False)
        except (ValueError, RecursionError):
            return []
        parts: list[Part] = []
        strings = {key.lower(): text for key, text in value.items() if isinstance(text, str)}
        if not self._spoken_any and len(strings) == 1:
            key, text = strings.popitem()
            if key in _SIMILAR_KEYS:
                parts = [Part(Kind.SPOKEN, text), Part(Kind.VALUE_END)]
        if value.get("end") is True and any(key.lower() == _SPOKEN for key in value):
            parts.append(Part(Kind.END_CALL))
        return parts


class Parser:
    """``feed`` returns the parts of the text in order. Plain text in code fences is left out;
    objects in them are read."""

    def __init__(self) -> None:
        self._parts: list[Part] = []
        self._object: _Object | None = None
        self._brace: str | None = None
        self._tag: str | None = None
        self._reasoning: str | None = None
        self._since = ""
        self._ticks = 0
        self._fenced = False

    def feed(self, text: str) -> list[Part]:
        for character in text:
            self._read(character)
        return self._take()

    def finish(self) -> list[Part]:
        """The text has ended; returns the last parts. An incomplete tag or brace is dropped."""
        if self._tag is not None and not self._tag[1:2].isalpha() and self._tag[1:2] != "/":
            self._plain(self._tag)
        self._tag = self._brace = None
        return self._take()

    def _take(self) -> list[Part]:
        """The parts so far, with neighbours of the same kind joined."""
        parts, self._parts = self._parts, []
        return [
            Part(kind, "".join(part.text for part in same))
            for kind, same in groupby(parts, key=attrgetter("kind"))
        ]

    def _read(self, character: str) -> None:
        if self._object is not None:
            self._parts += self._object.read(character)
            if self._object.done:
                self._object = None
        elif self._reasoning is not None:
            self._in_reasoning(character, self._reasoning)
        elif self._brace is not None:
            self._after_brace(character, self._brace)
        elif self._tag is not None:
            self._in_tag(character, self._tag)
        elif character == "`":
            self._ticks += 1
        else:
            if self._ticks >= 3:
                self._fenced = not self._fenced
            self._ticks = 0
            if character == "{":
                self._brace = "{"
            elif character == "<" and not self._fenced:
                self._tag = "<"
            else:
                self._plain(character)

    def _plain(self, text: str) -> None:
        if not self._fenced:
            self._parts.append(Part(Kind.PLAIN, text))

    def _after_brace(self, character: str, seen: str) -> None:
        """``{`` opens an object if a key follows; otherwise it is a brace in plain text."""
        name = seen[1:].strip()
        if (character.isspace() or character.isalnum() or character == "_") and len(seen) < 64:
            self._brace = seen + character
        elif character in "\"'“" and not name:
            self._brace, self._object = None, _Object(seen)
            self._read(character)
        elif character == ":" and name and not any(letter.isspace() for letter in name):
            self._brace, self._object = None, _Object(seen + ":", name)
        else:
            self._brace = None
            self._plain(seen[1:])
            if character != "}":
                self._read(character)

    def _in_tag(self, character: str, seen: str) -> None:
        name = seen[1:].lower()
        if character == ">" and name in _REASONING_TAGS:
            self._tag, self._reasoning = None, name
            self._since = ""
        elif character == ">" and name.startswith("/") and name[1:] in _REASONING_TAGS:
            self._tag = None
            self._parts.append(Part(Kind.NOT_MEANT))
        elif (character.isalpha() or (character == "/" and seen == "<")) and len(
            seen
        ) < _LONGEST_TAG:
            self._tag = seen + character
        else:
            self._tag = None
            self._plain(seen)
            self._read(character)

    def _in_reasoning(self, character: str, name: str) -> None:
        closing = f"</{name}>"
        self._since = (self._since + character.lower())[-len(closing) :]
        if self._since == closing:
            self._reasoning = None
