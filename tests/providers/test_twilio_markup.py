"""Our writer of XML against the standard library's."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voicecall_twilio.markup import written

pytestmark = pytest.mark.unit

NAMES = st.text("abcXYZ", min_size=1, max_size=5)
TEXTS = st.one_of(st.text(max_size=20), st.text("&<>\"';#\t\n\r a", max_size=12))


def _element(
    name: str, attributes: dict[str, str], text: str | None, children: list[ElementTree.Element]
) -> ElementTree.Element:
    made = ElementTree.Element(name, attributes)
    made.text = text
    made.extend(children)
    return made


ATTRIBUTES = st.dictionaries(NAMES, TEXTS, max_size=4)
LEAVES = st.builds(_element, NAMES, ATTRIBUTES, st.none() | TEXTS, st.just([]))
ELEMENTS = st.recursive(
    LEAVES,
    lambda below: st.builds(
        _element, NAMES, ATTRIBUTES, st.none() | TEXTS, st.lists(below, max_size=3)
    ),
    max_leaves=8,
)


@given(ELEMENTS)
def test_elements_are_written_as_the_standard_library_writes_them(
    element: ElementTree.Element,
) -> None:
    assert written(element) == ElementTree.tostring(element, encoding="unicode")
