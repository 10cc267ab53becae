"""Edits of JSON5 text change only what was asked for."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voicecall_gateway.json5edit import CannotEdit, remove_key, set_key
from voicecall_gateway.json5text import Unfamiliar, locate
from voicecall_gateway.jsonfile import parse_tree

pytestmark = pytest.mark.unit

FILE = """\
// my phone
{
    gateway: { port: 1 }, // keep
    "plugins": {
        entries: {
            'voice-call': {
                enabled: true, /* on */
                config: {
                    provider: 'mock', // the mock
                    list: [1, {a: 2},],
                    text: "a // b } \\" \\u0041"
                },
            },
        }, // last
    },
}
// the end
"""


@pytest.mark.parametrize(
    ("path", "value", "before", "after"),
    [
        ("plugins.entries.voice-call.enabled", False, "enabled: true,", "enabled: false,"),
        ("gateway.port", 2, "{ port: 1 }", "{ port: 2 }"),
        ("gateway.bind", "::1", "{ port: 1 }", '{ port: 1, bind: "::1" }'),
        (
            "plugins.entries.x.enabled",
            True,
            "            },\n        }, // last\n",
            (
                "            },\n            x: {\n                enabled: true\n"
                "            },\n        }, // last\n"
            ),
        ),
        (
            "plugins.entries.voice-call.config.fromNumber",
            "+15550001111",
            '\\u0041"\n',
            '\\u0041",\n                    fromNumber: "+15550001111"\n',
        ),
        (
            "tts",
            {"provider": "x"},
            "    },\n}\n",
            '    },\n    tts: {\n        provider: "x"\n    },\n}\n',
        ),
    ],
)
def test_setting_a_key(path: str, value: Any, before: str, after: str) -> None:
    assert FILE.count(before) == 1
    assert set_key(FILE, path.split("."), value) == FILE.replace(before, after)


@pytest.mark.parametrize(
    ("path", "before", "after"),
    [
        ("gateway", "    gateway: { port: 1 }, // keep\n", ""),
        ("gateway.port", "{ port: 1 }", "{  }"),
        ("plugins.entries.voice-call.enabled", "                enabled: true, /* on */\n", None),
        (
            "plugins.entries.voice-call.config.text",
            '                    text: "a // b } \\" \\u0041"\n',
            "",
        ),
        ("plugins.entries.nobody", "", ""),
    ],
)
def test_removing_a_key(path: str, before: str, after: str | None) -> None:
    result = remove_key(FILE, path.split("."))
    if after is None:
        assert "enabled" not in result
        assert "/* on */" in result
    elif path.endswith("text"):
        # The comma before it goes too; plain JSON would not allow it.
        assert result == FILE.replace(before, after).replace("{a: 2},],", "{a: 2},]")
    else:
        assert result == FILE.replace(before, after, 1)


@pytest.mark.parametrize("text", ["{}", "{\n}", "{ // nothing\n}", "{/* none */}", "\ufeff{}"])
def test_the_first_key(text: str) -> None:
    result = set_key(text, ["a", "b"], 1)
    assert parse_tree(result.lstrip("\ufeff"), "c") == {"a": {"b": 1}}
    for comment in ("// nothing", "/* none */"):
        assert (comment in result) == (comment in text)


EDITS: list[tuple[str, Any]] = [
    ("gateway.bind", "::1"),
    ("plugins.entries.x.enabled", True),
    ("plugins.entries.voice-call.config.fromNumber", "+15550001111"),
    ("plugins.entries.voice-call.config.mock.port", 1),
    ("tts", {"provider": "x", "providers": {"x": {"a": 1}}}),
]


@pytest.mark.parametrize("end", ["\r\n", "\r"])
def test_the_ends_of_lines_stay(end: str) -> None:
    file = FILE.replace("\n", end)
    for path, value in EDITS:
        written = set_key(FILE, path.split("."), value).replace("\n", end)
        assert set_key(file, path.split("."), value) == written
    for path in ("gateway", "plugins.entries.voice-call.enabled"):
        left = remove_key(FILE, path.split(".")).replace("\n", end)
        assert remove_key(file, path.split(".")) == left
    first = '{\n  "a": {\n    "b": 1\n  }\n}\n'.replace("\n", end)
    assert set_key(f"{{}}{end}", ["a"], {"b": 1}) == first
    assert set_key(f"{{{end}}}{end}", ["a"], {"b": 1}) == first


@pytest.mark.parametrize(("most", "few"), [("\n", "\r\n"), ("\r\n", "\n")])
def test_mixed_ends_of_lines_stay_and_new_lines_end_like_most(most: str, few: str) -> None:
    lines = enumerate(FILE.splitlines())
    file = "".join(line + (few if number % 3 == 2 else most) for number, line in lines)
    for path, value in EDITS:
        result = set_key(file, path.split("."), value)
        size = len(result) - len(file)
        # All of the old text is there, with one insertion.
        inserted = [
            result[at : at + size]
            for at in range(len(file) + 1)
            if result[:at] + result[at + size :] == file
        ]
        assert any(re.findall("\r?\n", text) == [most] * text.count("\n") for text in inserted)


def test_a_comma_behind_the_last_key_of_a_line_stays_the_last() -> None:
    assert set_key("{a: {b: 1,}}", ["a", "c"], 2) == "{a: {b: 1, c: 2,}}"


def test_plain_json_stays_plain_json() -> None:
    text = json.dumps({"a": {"b": 1, "c": 2}, "d": 3}, indent=2)
    assert json.loads(set_key(text, ["a", "e"], [1])) == {"a": {"b": 1, "c": 2, "e": [1]}, "d": 3}
    assert json.loads(remove_key(text, ["a", "c"])) == {"a": {"b": 1}, "d": 3}
    assert json.loads(remove_key(text, ["d"])) == {"a": {"b": 1, "c": 2}}


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("{a: 1, a: 2}", "a"),
        ("{a: 1}", "a.b"),
        ("{'\\x61': 1}", "b"),
        ("{a: }", "a"),
        ("[1]", "a"),
    ],
)
def test_what_cannot_be_edited_safely(text: str, path: str) -> None:
    with pytest.raises(CannotEdit):
        set_key(text, path.split("."), 3)


@given(st.text(st.sampled_from("{}[]:,'\"/*ab1 \n\\"), max_size=20))
def test_any_text_is_located_or_unfamiliar(text: str) -> None:
    try:
        node = locate(text)
    except Unfamiliar:
        return
    assert 0 <= node.start < node.end <= len(text)


KEYS = st.sampled_from(["a", "b", "c-d", "e"])
TREES = st.dictionaries(
    KEYS,
    st.recursive(
        st.none() | st.booleans() | st.integers(-9, 9) | st.text("x /*'\"{},:", max_size=4),
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(KEYS, inner, max_size=3),
        max_leaves=6,
    ),
    max_size=3,
)


@settings(max_examples=60)
@given(TREES, st.lists(KEYS, min_size=1, max_size=3), st.sampled_from([None, 2]), st.booleans())
def test_json_can_always_be_edited(
    tree: dict[str, Any], path: list[str], indent: int | None, compact: bool
) -> None:
    text = json.dumps(tree, indent=indent, separators=(",", ":") if compact else None)
    place: Any = tree
    for part in path[:-1]:
        place = place.get(part, {}) if isinstance(place, dict) else None
    if isinstance(place, dict):
        assert remove_key(set_key(text, path, [1]), path)
        assert path[-1] not in _at(json.loads(remove_key(set_key(text, path, 1), path)), path[:-1])
    else:
        with pytest.raises(CannotEdit):
            set_key(text, path, 1)


def _at(tree: Any, path: list[str]) -> Any:
    for part in path:
        tree = tree[part]
    return tree
