"""Positions of keys and values in the text of a JSON5 document (json5.org), for edits in place.

A real parser has accepted the text before. This module only finds positions, and raises
:exc:`Unfamiliar` for anything that it does not expect.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["Member", "Node", "Unfamiliar", "locate"]

_SPACE = re.compile(r"(?:[\s\ufeff]|//[^\n\r\u2028\u2029]*|/\*.*?\*/)*", re.DOTALL)
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"|\'(?:[^\'\\]|\\.)*\'', re.DOTALL)
_BARE = re.compile(r"[^\s\"'{}\[\]:,/\\]+")
_PLAIN_STRING = re.compile(r"[^\\]*")


class Unfamiliar(Exception):
    """The text uses syntax that this module does not handle."""


@dataclass(slots=True)
class Node:
    """A value: ``text[start:end]``. ``members`` is set for an object."""

    start: int
    end: int
    members: list[Member] | None = None


@dataclass(slots=True)
class Member:
    """A key with its value. ``start`` is where the key begins, ``comma`` the position after the
    comma that follows, None if there is none."""

    key: str
    start: int
    value: Node
    comma: int | None = None


def locate(text: str) -> Node:
    """The document's value. Raises :exc:`Unfamiliar`."""
    reader = _Reader(text)
    try:
        node = reader.value(reader.skip(0))
    except (IndexError, RecursionError):
        raise Unfamiliar("the text ends too early or is nested too deeply") from None
    if reader.skip(node.end) != len(text):
        raise Unfamiliar("something follows the document")
    return node


class _Reader:
    def __init__(self, text: str) -> None:
        self._text = text

    def skip(self, at: int) -> int:
        """The position after white space and comments."""
        found = _SPACE.match(self._text, at)
        return at if found is None else found.end()

    def value(self, at: int) -> Node:
        first = self._text[at]
        if first == "{":
            return self._object(at)
        if first == "[":
            return self._array(at)
        found = (_STRING if first in "\"'" else _BARE).match(self._text, at)
        if found is None:
            raise Unfamiliar(f"unexpected {first!r}")
        return Node(at, found.end())

    def _object(self, start: int) -> Node:
        members: list[Member] = []
        at = self.skip(start + 1)
        while self._text[at] != "}":
            key, after = self._key(at)
            after = self.skip(after)
            if self._text[after] != ":":
                raise Unfamiliar(f"no colon after the key {key!r}")
            value = self.value(self.skip(after + 1))
            member = Member(key, at, value)
            members.append(member)
            at = self.skip(value.end)
            if self._text[at] == ",":
                member.comma = at + 1
                at = self.skip(at + 1)
            elif self._text[at] != "}":
                raise Unfamiliar(f"neither a comma nor a brace after {key!r}")
        return Node(start, at + 1, members)

    def _array(self, start: int) -> Node:
        at = self.skip(start + 1)
        while self._text[at] != "]":
            at = self.skip(self.value(at).end)
            if self._text[at] == ",":
                at = self.skip(at + 1)
            elif self._text[at] != "]":
                raise Unfamiliar("neither a comma nor a bracket after an element")
        return Node(start, at + 1)

    def _key(self, at: int) -> tuple[str, int]:
        quoted = _STRING.match(self._text, at)
        found = quoted or _BARE.match(self._text, at)
        if found is None:
            raise Unfamiliar(f"unexpected {self._text[at]!r} for a key")
        key = found.group()[1:-1] if quoted else found.group()
        if _PLAIN_STRING.fullmatch(key) is None:
            raise Unfamiliar("a key with an escape")
        return key, found.end()
