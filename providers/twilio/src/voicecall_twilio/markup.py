"""XML elements as text."""

from __future__ import annotations

from xml.etree.ElementTree import Element

__all__ = ["written"]

_BLANKS = (("\r", "&#13;"), ("\n", "&#10;"), ("\t", "&#09;"))


def written(element: Element) -> str:
    """``element`` as ``ElementTree.tostring`` writes it, where no name has a namespace and no
    element a tail. That looks for both, which takes several times as long."""
    attributes = "".join([f' {name}="{_quoted(value)}"' for name, value in element.items()])
    content = _escaped(element.text or "") + "".join(map(written, element))
    if not content:
        return f"<{element.tag}{attributes} />"
    return f"<{element.tag}{attributes}>{content}</{element.tag}>"


def _escaped(text: str) -> str:
    if "&" in text:
        text = text.replace("&", "&amp;")
    if "<" in text or ">" in text:
        text = text.replace("<", "&lt;").replace(">", "&gt;")
    return text


def _quoted(text: str) -> str:
    text = _escaped(text)
    if '"' in text:
        text = text.replace('"', "&quot;")
    # As they stand, a reader would take them for blanks.
    for blank, reference in _BLANKS:
        if blank in text:
            text = text.replace(blank, reference)
    return text
