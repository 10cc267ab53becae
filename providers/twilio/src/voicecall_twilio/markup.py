"""XML elements as text."""

from __future__ import annotations

from xml.etree.ElementTree import Element

__all__ = ["written"]


def written(element: Element) -> str:
    """``element`` as ``ElementTree.tostring`` writes it, provided that no name has a namespace and
    no element a tail. Checking for both, ``tostring`` takes several times as long."""
    tag, text = element.tag, element.text
    start = tag
    for name, value in element.items():
        start += f' {name}="{_quoted(value)}"'
    content = _escaped(text) if text else ""
    for child in element:
        content += written(child)
    return f"<{start}>{content}</{tag}>" if content else f"<{start} />"


def _escaped(text: str) -> str:
    if "&" in text:
        text = text.replace("&", "&amp;")
    if "<" in text or ">" in text:
        text = text.replace("<", "&lt;").replace(">", "&gt;")
    return text


def _quoted(text: str) -> str:
    if text.isalnum():
        return text
    text = _escaped(text)
    if '"' in text:
        text = text.replace('"', "&quot;")
    # Unescaped, a parser would read them as blanks.
    if "\r" in text or "\n" in text or "\t" in text:
        text = text.replace("\r", "&#13;").replace("\n", "&#10;").replace("\t", "&#09;")
    return text
