"""Changing single keys of a JSON5 (or JSON) text; comments, layout and line ends stay as they are.

Every edit is checked: the result is parsed and must be exactly the wanted tree. Otherwise
:exc:`CannotEdit` is raised.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from voicecall.errors import ConfigError, VoicecallError

from .json5text import Member, Node, Unfamiliar, locate
from .jsonfile import parse_tree

__all__ = ["CannotEdit", "line_end", "remove_key", "set_key"]

_IDENTIFIER = re.compile(r"[A-Za-z_$][A-Za-z0-9_$]*")
_LINE = re.compile(r"[ \t]*(?://[^\n\r]*)?(?:\r\n|\n|\r)?")
_LINE_END = re.compile(r"\r\n|\n|\r")


class CannotEdit(VoicecallError):
    """The text is too unusual to be changed safely."""


def set_key(text: str, path: Sequence[str], value: Any) -> str:
    """``text`` with ``value`` at ``path``; missing objects on the way are created. Raises
    :exc:`CannotEdit`."""
    wanted = _tree(text)
    place = wanted
    for part in path[:-1]:
        place = place.setdefault(part, {})
        if not isinstance(place, dict):
            raise CannotEdit(f"{'.'.join(path)} is inside a value that is not an object")
    place[path[-1]] = value
    return _checked(_set(text, path, value), wanted)


def remove_key(text: str, path: Sequence[str]) -> str:
    """``text`` without the key at ``path``; unchanged if there is none. Raises
    :exc:`CannotEdit`."""
    wanted = _tree(text)
    place: Any = wanted
    for part in path[:-1]:
        place = place.get(part) if isinstance(place, dict) else None
    if not isinstance(place, dict) or path[-1] not in place:
        return text
    del place[path[-1]]
    return _checked(_remove(text, path), wanted)


def line_end(text: str) -> str:
    """How most lines of ``text`` end."""
    found = _LINE_END.findall(text)
    return max(("\n", "\r\n", "\r"), key=found.count)


def _tree(text: str) -> dict[str, Any]:
    try:
        return parse_tree(text, "the file")
    except ConfigError as error:
        raise CannotEdit(str(error)) from None


def _checked(text: str, wanted: dict[str, Any]) -> str:
    if _tree(text) != wanted:
        raise CannotEdit("the file is written in a way that cannot be edited safely")
    return text


def _walk(text: str, path: Sequence[str]) -> tuple[list[Node], Sequence[str]]:
    """The nodes from the root along ``path`` as far as they exist, and the rest of the path."""
    try:
        node = locate(text)
    except Unfamiliar as error:
        raise CannotEdit(f"the file cannot be edited: {error}") from None
    nodes = [node]
    for depth, part in enumerate(path):
        found = [m for m in nodes[-1].members or () if m.key == part]
        if len(found) > 1:
            raise CannotEdit(f"the key {part!r} is there more than once")
        if not found:
            return nodes, path[depth:]
        nodes.append(found[0].value)
    return nodes, ()


# --- setting ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Style:
    """How the file is written: one level of indentation, whether keys are unquoted, and the end of
    a line."""

    step: str
    bare: bool
    end: str

    def key(self, key: str) -> str:
        return key if self.bare and _IDENTIFIER.fullmatch(key) else json.dumps(key)

    def value(self, value: Any, indent: str | None) -> str:
        """``value`` as JSON5. ``indent`` is the indentation of the line on which it begins; None:
        all on one line."""
        if not isinstance(value, dict) or not value:
            return json.dumps(value, ensure_ascii=False)
        if indent is None:
            inside = ", ".join(f"{self.key(k)}: {self.value(v, None)}" for k, v in value.items())
            return f"{{ {inside} }}"
        inner = indent + self.step
        lines = [f"{inner}{self.key(k)}: {self.value(v, inner)}" for k, v in value.items()]
        return self.end.join(["{", f",{self.end}".join(lines), f"{indent}}}"])


def _style(text: str, root: Node) -> _Style:
    found = re.search(r"(?<![^\r\n])([ \t]+)[^\s/*]", text)
    return _Style(found.group(1) if found else "  ", _has_bare_key(text, root), line_end(text))


def _has_bare_key(text: str, node: Node) -> bool:
    return any(
        text[member.start] not in "\"'" or _has_bare_key(text, member.value)
        for member in node.members or ()
    )


def _set(text: str, path: Sequence[str], value: Any) -> str:
    nodes, rest = _walk(text, path)
    style = _style(text, nodes[0])
    node = nodes[-1]
    if not rest:
        written = style.value(value, _indent_of(text, node.start))
        return text[: node.start] + written + text[node.end :]
    for part in reversed(rest[1:]):
        value = {part: value}
    if node.members is None:
        raise CannotEdit(f"{'.'.join(path)} is inside a value that is not an object")
    if not node.members:
        return _insert_first(text, node, rest[0], value, style)
    if _LINE_END.search(text, node.start, node.end) is None:
        return _insert_inline(text, node.members[-1], rest[0], value, style)
    return _insert_line(text, node.members[-1], rest[0], value, style)


def _insert_first(text: str, node: Node, key: str, value: Any, style: _Style) -> str:
    indent = _indent_of(text, node.start)
    inner = indent + style.step
    head = text[: node.end - 1].rstrip(" \t")
    start = "" if head.endswith(("\n", "\r")) else style.end
    written = f"{inner}{style.key(key)}: {style.value(value, inner)}"
    return f"{head}{start}{written}{style.end}{indent}{text[node.end - 1 :]}"


def _insert_inline(text: str, last: Member, key: str, value: Any, style: _Style) -> str:
    written = f"{style.key(key)}: {style.value(value, None)}"
    if last.comma is None:
        return f"{text[: last.value.end]}, {written}{text[last.value.end :]}"
    return f"{text[: last.comma]} {written},{text[last.comma :]}"


def _insert_line(text: str, last: Member, key: str, value: Any, style: _Style) -> str:
    indent = _indent_of(text, last.start)
    written = f"{indent}{style.key(key)}: {style.value(value, indent)}"
    behind = last.value.end if last.comma is None else last.comma
    head = text[:behind] + ("," if last.comma is None else "")
    # A comment on the last line belongs to the member on that line.
    line = _LINE.match(text, behind)
    rest_of_line = line.group() if line is not None else ""
    tail = text[behind + len(rest_of_line) :]
    end_of_line = "" if rest_of_line.endswith(("\n", "\r")) else style.end
    written += "," if last.comma else ""
    return f"{head}{rest_of_line}{end_of_line}{written}{style.end}{tail}"


def _indent_of(text: str, at: int) -> str:
    """The white space at the beginning of the line that contains ``at``."""
    line = text[max(text.rfind("\n", 0, at), text.rfind("\r", 0, at)) + 1 : at]
    return line[: len(line) - len(line.lstrip(" \t"))]


# --- removing ---------------------------------------------------------------------------------


def _remove(text: str, path: Sequence[str]) -> str:
    nodes, rest = _walk(text, path)
    if rest:
        raise CannotEdit(f"{'.'.join(path)} cannot be found in the text")
    members = nodes[-2].members or []
    index = next(i for i, m in enumerate(members) if m.key == path[-1])
    member = members[index]
    start = member.start
    end = member.comma or member.value.end
    line_start = max(text.rfind("\n", 0, start), text.rfind("\r", 0, start)) + 1
    alone = not text[line_start:start].strip()
    line = _LINE.match(text, end)
    if alone and line is not None and line.group().endswith(("\n", "\r")):
        start, end = line_start, line.end()
    head, tail = text[:start], text[end:]
    if member.comma is None and index > 0:
        # Plain JSON allows no comma before the closing brace.
        before = members[index - 1].comma
        if before is not None:
            head = text[: before - 1] + text[before:start]
    if not alone and member.comma is not None:
        tail = tail.lstrip(" \t")
    return head + tail
