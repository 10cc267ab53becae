"""Reading, substituting and checking the configuration."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voicecall.errors import ConfigError
from voicecall_gateway.config import config_from_tree, load_config
from voicecall_gateway.jsonfile import parse_tree, read_tree
from voicecall_gateway.substitute import Missing, substitute, substitute_text

pytestmark = pytest.mark.unit


def load(tree: dict[str, Any], environ: dict[str, str] | None = None) -> Any:
    return config_from_tree(tree, environ=environ or {}, source="conf.json5")


# --- the file ---------------------------------------------------------------------------------


def test_json5_with_comments_and_trailing_commas(tmp_path: Path) -> None:
    file = tmp_path / "c.json5"
    file.write_text("// a comment\n{gateway: {port: 0x10, bind: '127.0.0.1',},}")
    assert read_tree(file) == {"gateway": {"port": 16, "bind": "127.0.0.1"}}


def test_toml_with_the_same_tree(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text("[gateway]\nport = 5\n")
    assert read_tree(file) == {"gateway": {"port": 5}}


@pytest.mark.parametrize("suffix", ["yaml", "yml"])
def test_yaml_is_not_read(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"c.{suffix}"
    file.write_text("gateway:\n  port: 5\n")
    with pytest.raises(ConfigError, match="YAML is not read: write JSON5 or TOML"):
        read_tree(file)
    file.write_text('{"gateway": {"port": 5}}')
    assert read_tree(file) == {"gateway": {"port": 5}}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{a: 1,\n b: }", "c: is not valid JSON5: line 2, column 5: unexpected"),
        ("{", "line 1"),
        ("{\n", "line 2, column 1: unexpected end of input"),
        (
            "{\n  voice-call: {}}",
            'column 9: unexpected "c"; write this key in quotes: "voice-call"',
        ),
        ("{digits: {1: 'x'}}", 'unexpected ":"; write this key in quotes: "1"'),
        ("{+15550001234: {}}", 'unexpected "1"; write this key in quotes: "+15550001234"'),
        ("  \n", "is empty"),
        ("[1]", "must hold one object"),
        ("null", "not null"),
        ("5", "{ ... }, not 5"),
        ('"x"', "not a string"),
        ("[" * 3000, "c: is nested too deeply"),
        ('{"a": ' * 500 + "1" + "}" * 500, "c: is nested too deeply"),
        ("{a: " * 101 + "1" + "}" * 101, "c: is nested too deeply"),
    ],
)
def test_malformed_text_names_the_place(text: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_tree(text, "c")
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_key_that_is_not_at_fault_is_not_named() -> None:
    with pytest.raises(ConfigError, match=r'unexpected "b"$'):
        parse_tree('{"a-b": "x-y: z" b: 1}', "c")


@pytest.mark.parametrize("name", ["c.json5", "c.json", "c.toml"])
def test_a_key_that_is_written_twice_is_named(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    file.write_text(
        {
            "c.json5": "{plugins: {entries: {'voice-call': {a: 1}, \"voice-call\": {b: 1}}}, x: 1}",
            "c.json": '{"plugins": {"voice-call": {"a": 1}, "voice-call": {"b": 1}}}',
            "c.toml": "[voice-call]\na = 1\n[voice-call]\nb = 1\n",
        }[name]
    )
    with pytest.raises(ConfigError, match=r"c\.\w+: .*voice-call"):
        read_tree(file)
    # The same key in two objects is no such thing.
    assert parse_tree("{a: {x: 1}, b: {x: 2}}", "c") == {"a": {"x": 1}, "b": {"x": 2}}


def test_malformed_toml_names_the_place() -> None:
    with pytest.raises(ConfigError, match=r"c: is not valid TOML: .*line 1"):
        parse_tree("a = = 1", "c", toml=True)


@given(st.text(max_size=60))
def test_any_text_is_an_object_or_a_config_error(text: str) -> None:
    try:
        result: object = parse_tree(text, "c")
    except ConfigError as error:
        result = {} if str(error).startswith("c: ") else error
    assert isinstance(result, dict)


def test_text_that_is_not_utf8(tmp_path: Path) -> None:
    file = tmp_path / "c.json5"
    file.write_bytes(b'{"a": "\xff"}')
    with pytest.raises(ConfigError, match="is not UTF-8 text"):
        read_tree(file)


def test_default_file_may_be_missing_a_named_one_not(tmp_path: Path) -> None:
    home = {"HOME": str(tmp_path)}
    assert load_config(None, home).gateway.port == 18790
    assert load_config(None, home).state_dir == tmp_path / ".voicecall"
    assert load_config(None, {**home, "VOICECALL_STATE_DIR": " "}).state_dir.parent == tmp_path
    missing = tmp_path / "none.json5"
    with pytest.raises(ConfigError, match=r"none\.json5: there is no such file"):
        load_config(missing, home)
    with pytest.raises(ConfigError, match=r"none\.json5"):
        load_config(None, {**home, "VOICECALL_CONFIG": str(missing)})


@pytest.mark.parametrize("name", ["config.toml", "config.json"])
def test_a_file_beside_the_default_one_is_not_passed_over_in_silence(
    tmp_path: Path, name: str
) -> None:
    home = {"HOME": str(tmp_path)}
    other = tmp_path / ".voicecall" / name
    other.parent.mkdir()
    other.write_text("")
    unread = f"{other}: is not read; name it with --config or VOICECALL_CONFIG"
    assert load_config(None, home).warnings == (unread,)
    other.with_name("config.json5").write_text("{}")
    assert load_config(None, home).warnings == ()


def test_the_variable_and_the_argument_name_the_file(tmp_path: Path) -> None:
    one, two = tmp_path / "one.json5", tmp_path / "two.json5"
    one.write_text("{gateway: {port: 1}}")
    two.write_text("{gateway: {port: 2}}")
    environ = {"VOICECALL_CONFIG": str(one), "VOICECALL_STATE_DIR": str(tmp_path / "s")}
    assert load_config(None, environ).gateway.port == 1
    assert load_config(two, environ).gateway.port == 2
    assert load_config(two, environ).state_dir == tmp_path / "s"


# --- sections ---------------------------------------------------------------------------------


def test_defaults() -> None:
    loaded = load({})
    section = loaded.gateway
    assert (section.port, section.bind, section.drain_seconds) == (18790, "127.0.0.1", 10)
    assert (section.auth.mode, section.auth.token) == ("token", None)
    assert loaded.enabled("anything")
    assert loaded.section("tts") == {}


@pytest.mark.parametrize(
    ("tree", "expected"),
    [
        ({"gateway": {"prot": 1}}, "conf.json5: gateway.prot: unknown key; did you mean 'port'?"),
        ({"gateway": {"auth": {"tokn": "x"}}}, "gateway.auth.tokn: unknown key"),
        ({"gateway": {"port": 70000}}, "gateway.port: "),
        ({"gateway": {"bind": "example.com"}}, "gateway.bind: "),
        ({"gateway": {"auth": {"token": ""}}}, "gateway.auth.token: "),
        ({"gateway": {"auth": {"token": " "}}}, "gateway.auth.token: must not be blank"),
        ({"gateway": []}, "gateway: must be an object"),
        ({"tts": "espeak"}, "tts: must be an object"),
        ({"plugins": {"entries": {"x": {"enabeld": False}}}}, "did you mean 'enabled'?"),
        (
            {"plugins": {"entries": {"y": {}, "x": {"provider": "mock"}}}},
            "x.provider: unknown key; the keys of a plugin belong in plugins.entries.x.config",
        ),
        (
            {"plugins": {"x": {"config": {}}}},
            "plugins.x: unknown key; a plugin is configured in plugins.entries.x.config",
        ),
        ({"plugins": {"entries": {"x": 1}}}, "plugins.entries.x: must be an object"),
        ({"plugins": {"deny": "x"}}, "plugins.deny: "),
        (
            {"gateway": {"auth": {"token": "${NOT_SET}"}}},
            "gateway.auth.token: the environment variable NOT_SET is not set; correct this",
        ),
        (
            {"gateway": {"auth": {"token": "${my_token}"}}},
            "gateway.auth.token: the name in ${...} must consist of upper-case letters",
        ),
        ({"gateway": {"bind": "0.0.0.0", "auth": {"mode": "none"}}}, "gateway.auth.mode: "),
    ],
)
def test_errors_name_the_file_and_the_path(tree: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tree)
    assert str(caught.value).startswith("conf.json5: ")
    assert expected in str(caught.value)


def test_plugins_are_enabled_unless_denied_or_switched_off() -> None:
    loaded = load({"plugins": {"deny": ["a"], "entries": {"b": {"enabled": False}, "c": {}}}})
    assert [loaded.enabled(name) for name in "abcd"] == [False, False, True, True]
    allowing = load({"plugins": {"allow": ["c"]}})
    assert [allowing.enabled(name) for name in "cd"] == [True, False]


def test_a_foreign_file_is_usable_as_it_is() -> None:
    loaded = load(
        {
            "channels": {"x": "${NOT_OURS}"},
            "agnets": {},
            "gateway": {"mode": "local", "bind": "loopback", "controlUi": {"enabled": True}},
            "plugins": {"slots": {"memory": "none"}, "entries": {"x": {"hooks": {}}}},
        }
    )
    assert loaded.gateway.bind == "127.0.0.1"
    assert loaded.warnings == ()
    about_sections = [note for note in loaded.notes if "channels" in note]
    assert len(about_sections) == 1
    assert "agnets (did you mean 'agents'?)" in about_sections[0]


def test_keys_of_another_gateway_are_named_and_need_no_variable() -> None:
    remote = {"url": "wss://gateway.example", "token": "${NOT_SET_HERE}"}
    auth = {"token": "t", "password": "${NOT_SET_EITHER}", "allowTailscale": True, "rateLimit": {}}
    loaded = load({"gateway": {"remote": remote, "webchat": {}, "auth": auth}})
    assert loaded.gateway.auth.token == "t"
    assert loaded.warnings == ()
    ignored = "keys that have no effect here are ignored"
    assert loaded.notes == (
        f"conf.json5: gateway: {ignored}: remote, webchat",
        f"conf.json5: gateway.auth: {ignored}: allowTailscale, password, rateLimit",
    )
    with pytest.raises(ConfigError, match=r"gateway\.auth\.mode: must be 'token' or 'none'$"):
        load({"gateway": {"auth": {"mode": "password", "password": "p"}}})


@pytest.mark.parametrize(
    ("tree", "path"),
    [
        ({"$include": "./phone.json5"}, "$include"),
        ({"agents": {"list": [{"$include": ["a.json5"]}]}}, "agents.list[0].$include"),
        ({"plugins": {"entries": {"p": {"$include": "p.json5"}}}}, "plugins.entries.p.$include"),
    ],
)
def test_other_files_are_not_read(tree: dict[str, Any], path: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tree)
    assert str(caught.value).startswith(f"conf.json5: {path}: other files cannot be included")
    # What belongs to somebody else may be written in any way.
    assert load({"channels": {"$include": "./channels.json5"}}).notes


def test_the_token_is_not_in_the_repr() -> None:
    assert "hush-hush" not in repr(load({"gateway": {"auth": {"token": "hush-hush"}}}))


# --- substitution -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected", "count"),
    [
        ("${A}", "1", 0),
        ("${A}/v1/${B}", "1/v1/two", 0),
        ("$${A}", "${A}", 0),
        ("$$${A}", "$${A}", 0),
        ("${NO}", "${NO}", 1),
        ("${EMPTY}", "${EMPTY}", 1),
        ("${BLANK}", "${BLANK}", 1),
        ("${a}", "${a}", 1),
        ("${A:-x}", "${A:-x}", 1),
        ("${ A }", "${ A }", 1),
        ("${}", "${}", 1),
        ("$${a}", "${a}", 0),
        ("${{A}}", "${{A}}", 0),
        ("$A", "$A", 0),
        ("${A", "${A", 0),
        ("${NESTED}", "${A}", 0),
    ],
)
def test_references(text: str, expected: str, count: int) -> None:
    missing: Missing = []
    environ = {"A": "1", "B": "two", "EMPTY": "", "BLANK": " ", "NESTED": "${A}"}
    assert substitute_text(text, environ, missing, "p") == expected
    assert len(missing) == count


def test_references_anywhere_in_the_tree() -> None:
    missing: Missing = []
    tree = {
        "list": ["${A}", 1, None],
        "object": {"key": "x${A}"},
        "file": {"source": "file", "id": "${A}"},
        "gone": [{"x": "${NO}", "y": "${EMPTY}"}, "${hush}"],
    }
    assert substitute(tree, {"A": "1", "EMPTY": ""}, missing) == {
        "list": ["1", 1, None],
        "object": {"key": "x1"},
        "file": {"source": "file", "id": "${A}"},
        "gone": [{"x": "${NO}", "y": "${EMPTY}"}, "${hush}"],
    }
    assert missing == [
        ("gone[0].x", "the environment variable NO is not set"),
        ("gone[0].y", "the environment variable EMPTY is blank"),
        # A wrong name is not quoted: it may be a secret.
        (
            "gone[1]",
            (
                "the name in ${...} must consist of upper-case letters, digits and _, and begin"
                " with a letter; write $${...} for the text itself"
            ),
        ),
    ]


@given(st.text(st.sampled_from("${}AB_a1 "), max_size=30))
def test_an_escaped_text_comes_out_as_it_was(text: str) -> None:
    missing: Missing = []
    # The escape of a reference is one more dollar in front of it.
    escaped = re.sub(r"\$\{[^{}]*\}", lambda found: "$" + found.group(), text)
    assert substitute_text(escaped, {"A": "1", "AB": "2"}, missing) == text
    assert missing == []


@given(st.text(max_size=30))
def test_text_without_references_is_left_alone(text: str) -> None:
    plain = text.replace("{", "")
    assert substitute_text(plain, {}, []) == plain
