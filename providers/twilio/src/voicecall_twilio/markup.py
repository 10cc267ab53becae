"""XML elements as text."""

from __future__ import annotations

import re
from xml.etree.ElementTree import Element

__all__ = ["written"]

_SPECIAL = re.compile('[&<>"\\t\\n\\r]')


def written(element: Element) -> str:
    """``element`` as ``ElementTree.tostring`` writes it, where no name has a namespace and no
    element a tail. That looks for both, which takes several times as long."""
    attributes = "".join([f' {name}="{_quoted(value)}"' for name, value in element.items()])
    content = _escaped(element.text or "") + "".join(map(written, element))
    if not content:
        return f"<{element.tag}{attributes} />"
    return f"<{element.tag}{attributes}>{content}</{element.tag}>"


def _escaped(text: str) -> str:
    if not _SPECIAL.search(text):
        return text
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _quoted(text: str) -> str:
    if not _SPECIAL.search(text):
        return text
    text = _escaped(text).replace('"', "&quot;")
    # As they stand, a reader would take them for blanks.
    return text.replace("\r", "&#13;").replace("\n", "&#10;").replace("\t", "&#09;")
