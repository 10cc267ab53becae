"""Configuration models: camel-case keys, errors that name the full path, merging."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import AfterValidator, Field, IPvAnyAddress, PositiveInt, model_validator

from voicecall.configuring import ConfigModel, deep_merge, is_loopback, validate, wrong_keys
from voicecall.errors import ConfigError
from voicecall.wording import did_you_mean

pytestmark = pytest.mark.unit


class Inner(ConfigModel):
    max_calls: int = Field(default=1, ge=1)
    auth_token: str = ""


class Outer(ConfigModel):
    from_number: str
    inner: Inner = Inner()
    maybe: Inner | None = None
    items: tuple[Inner, ...] = ()
    limit: PositiveInt | None = None
    pause: float = 0
    either: bool | int = 0
    anything: Any = None
    on: bool = False
    edge: str = Field(default="a", pattern="^[a-z]+$")
    several: list[int] | list[bool] | None = None
    since: date | None = None


def test_truth_is_no_number_and_numbers_may_be_texts() -> None:
    values = {"fromNumber": "+1", "limit": "2", "pause": "0.5", "either": True, "anything": True}
    config = validate(Outer, {**values, "on": True}, "a")
    assert (config.limit, config.pause) == (2, 0.5)
    assert (config.either, config.anything, config.on) == (True, True, True)


def test_keys_are_camel_case() -> None:
    config = validate(Outer, {"fromNumber": "+1", "inner": {"maxCalls": 3}}, "a")
    assert (config.from_number, config.inner.max_calls) == ("+1", 3)
    assert config.model_dump(by_alias=True)["inner"]["maxCalls"] == 3


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "a.b.fromNumber: is required (or set FROM)"),
        ({"fromNumber": "+1", "fromNumbr": "x"}, "a.b.fromNumbr: unknown key; did you mean"),
        ({"fromNumber": "+1", "zzz": 1}, "a.b.zzz: unknown key"),
        (
            {"fromNumber": "+1", "inner": {"maxCals": 1}},
            "a.b.inner.maxCals: unknown key; did you mean 'maxCalls'?",
        ),
        (
            {"fromNumber": "+1", "maybe": {"maxCals": 1}},
            "a.b.maybe.maxCals: unknown key; did you mean 'maxCalls'?",
        ),
        ({"fromNumber": "+1", "inner": {"maxCalls": 0}}, "a.b.inner.maxCalls: must be at least 1"),
        (
            {"fromNumber": "+1", "items": [{"maxCalls": "x"}]},
            "a.b.items.0.maxCalls: must be a whole number",
        ),
        ([], "a.b: must be an object, { ... }"),
        (
            {"fromNumber": "+1", "inner": {"maxCalls": True}},
            "a.b.inner.maxCalls: must be a whole number",
        ),
        ({"fromNumber": "+1", "limit": True, "pause": False}, "a.b.limit: must be a whole number"),
        ({"fromNumber": "+1", "limit": 1, "pause": False}, "a.b.pause: must be a number"),
        ({"fromNumber": "+1", "edge": "A"}, "a.b.edge: must match the pattern ^[a-z]+$"),
        (
            {"fromNumber": "+1", "several": [0, "x"]},
            "a.b.several.1: must be a whole number or true or false",
        ),
        ({"fromNumber": "+1", "since": []}, "a.b.since: must be a valid date"),
    ],
)
def test_errors_name_the_full_path(values: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        validate(Outer, values, "a.b", env={"fromNumber": "FROM"})
    assert message in str(caught.value)


def test_every_problem_is_told_and_no_value() -> None:
    values = {"one": 1, "inner": {"authToken": ["hush"], "maxCalls": "many"}}
    with pytest.raises(ConfigError) as caught:
        validate(Outer, values, "")
    text = str(caught.value)
    for part in ("fromNumber: is required", "one: unknown key", "inner.authToken", "maxCalls"):
        assert part in text
    assert "hush" not in text


def test_models_are_frozen() -> None:
    config = validate(Outer, {"fromNumber": "+1"}, "a")
    with pytest.raises(ValueError, match="frozen"):
        config.__setattr__("from_number", "+2")


def test_merging() -> None:
    base = {"a": {"x": 1, "y": [1, 2]}, "b": 2}
    over = {"a": {"y": [3], "z": None}, "b": {"c": 1}, "__proto__": {"evil": 1}}
    assert deep_merge(base, over) == {"a": {"x": 1, "y": [3]}, "b": {"c": 1}}
    assert base == {"a": {"x": 1, "y": [1, 2]}, "b": 2}


trees = st.recursive(
    st.integers() | st.text(max_size=3),
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)
objects = st.dictionaries(st.sampled_from("abc"), trees, max_size=3)


@settings(max_examples=80)
@given(objects, objects)
def test_merging_twice_changes_nothing_more(base: dict[str, Any], over: dict[str, Any]) -> None:
    merged = deep_merge(base, over)
    assert deep_merge(merged, over) == merged
    assert deep_merge(base, {}) == base
    assert deep_merge({}, over) == over


class Cat(ConfigModel):
    kind: Literal["cat"]
    lives: int = 9


class Dog(ConfigModel):
    kind: Literal["dog"]


class Zoo(ConfigModel):
    cages: dict[str, Annotated[Cat | Dog, Field(discriminator="kind")]]


@pytest.mark.parametrize(
    ("cage", "message"),
    [
        ({"kind": "cat", "lives": "x"}, "zoo.cages.a.lives: must be a whole number"),
        ({"kind": "cat", "live": 1}, "zoo.cages.a.live: unknown key"),
        ({"kind": "x" * 10_000}, "zoo.cages.a.kind: must be one of 'cat', 'dog'"),
        ({"lives": 3}, "zoo.cages.a.kind: is required"),
    ],
)
def test_members_of_a_union_are_not_in_the_path(cage: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        validate(Zoo, {"cages": {"a": cage}}, "zoo")
    assert str(caught.value).startswith(message)
    assert len(str(caught.value)) < 200


def _number(text: str) -> str:
    if not text.startswith("+"):
        raise ValueError("must be a phone number")
    return text


Number = Annotated[str, AfterValidator(_number)]


class Everything(ConfigModel):
    whole: int = Field(default=1, ge=1, le=9)
    more: float = Field(default=1.0, gt=0, lt=2)
    flag: bool = True
    text: str = Field(default="x", min_length=1, max_length=3)
    long: str = Field(default="xxxx", min_length=2)
    way: Literal["up", "down"] = "up"
    both: list[int] = Field(default=[1], min_length=1, max_length=2)
    pair: tuple[str, ...] = ()
    some: tuple[int, ...] = Field(default=(1,), min_length=1)
    texts: str | tuple[str, ...] = ()
    below: Inner = Inner()
    free: dict[str, int] = Field(default_factory=dict)
    number: Number = "+1"
    routes: dict[Number, Inner] = Field(default_factory=dict)
    address: IPvAnyAddress | None = None
    file: Path | None = None


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("whole", "ten", "whole: must be a whole number"),
        ("whole", "9" * 5000, "whole: must be a whole number"),
        ("whole", 1.5, "whole: must be a whole number"),
        ("whole", None, "whole: must be a whole number"),
        ("whole", 0, "whole: must be at least 1"),
        ("whole", 10, "whole: must be at most 9"),
        ("more", "x", "more: must be a number"),
        ("more", 0, "more: must be more than 0.0"),
        ("more", 2, "more: must be less than 2.0"),
        ("flag", "perhaps", "flag: must be true or false"),
        ("flag", [], "flag: must be true or false"),
        ("text", 7, "text: must be a string"),
        ("text", "", "text: must not be empty"),
        ("text", "xxxx", "text: must have at most 3 characters"),
        ("long", "x", "long: must have at least 2 characters"),
        ("way", "left", "way: must be 'up' or 'down'"),
        ("both", "1", "both: must be a list, [ ... ]"),
        ("both", [], "both: must have at least 1 entries"),
        ("both", [1, 2, 3], "both: must have at most 2 entries"),
        ("pair", "a", "pair: must be a list, [ ... ]"),
        ("some", [], "some: must have at least 1 entries"),
        ("some", ["x"], "some.0: must be a whole number"),
        ("texts", 3, "texts: must be a string or a list, [ ... ]"),
        ("texts", None, "texts: must be a string or a list, [ ... ]"),
        ("texts", {"a": "b"}, "texts: must be a string or a list, [ ... ]"),
        ("below", 3, "below: must be an object, { ... }"),
        ("free", [], "free: must be an object, { ... }"),
        ("number", "7", "number: must be a phone number"),
        ("file", 7, "file: must be a string"),
        ("routes", {"7": {}}, "routes.7: must be a phone number"),
        ("routes", {"+7": {"maxCalls": 0}}, "routes.+7.maxCalls: must be at least 1"),
    ],
)
def test_words_for_what_is_wrong(key: str, value: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        validate(Everything, {key: value}, "")
    assert str(caught.value) == message


def test_what_has_no_words_of_ours_has_those_of_pydantic() -> None:
    with pytest.raises(ConfigError) as caught:
        validate(Everything, {"address": "nowhere"}, "")
    assert str(caught.value).startswith("address: ")
    assert "nowhere" not in str(caught.value)


@pytest.mark.parametrize(
    ("host", "here"),
    [
        ("127.0.0.1", True),
        ("127.8.9.10", True),
        ("::1", True),
        ("localhost", True),
        ("LOCALHOST.", True),
        ("twilio.localhost", True),
        ("", False),
        ("0.0.0.0", False),
        ("192.0.2.1", False),
        ("localhost.example", False),
        ("mylocalhost", False),
    ],
)
def test_what_is_this_machine(host: str, here: bool) -> None:
    assert is_loopback(host) is here


def test_what_is_wrong_beside_what_is_missing() -> None:
    assert wrong_keys(Outer, {}, "a", ["fromNumber"]) == ""
    assert wrong_keys(Outer, {"fromNumber": 5, "limit": 2}, "a", ["fromNumber"]) == ""
    block = {"limit": 0, "inner": {"maxCals": 1}}
    assert wrong_keys(Outer, block, "a", ["fromNumber"], env={"limit": "LIMIT"}) == (
        "a.inner.maxCals: unknown key; did you mean 'maxCalls'?;"
        " a.limit (or LIMIT): must be more than 0"
    )


def test_a_secret_that_the_model_does_not_declare_is_told_from_a_misspelt_key() -> None:
    values = {"fromNumber": "+1", "fromNumbr": "from the environment"}
    with pytest.raises(ConfigError) as error:
        validate(Outer, values, "a", env={"fromNumbr": "FROM"})
    message = "a.fromNumbr: unknown key: FROM supplies it, so the provider's model must declare it"
    assert str(error.value) == message


def test_what_keys_have_to_do_with_each_other_waits_for_those_that_are_missing() -> None:
    class Pair(ConfigModel):
        one: str = ""
        two: str = ""

        @model_validator(mode="after")
        def _both(self) -> Pair:
            if bool(self.one) is not bool(self.two):
                raise ValueError("one and two go together")
            return self

    assert wrong_keys(Pair, {"one": "${GONE}", "two": "x"}, "a", ["one"]) == ""


@pytest.mark.parametrize(
    ("name", "known", "meant"),
    [
        ("greeting", ("retention", "inboundGreeting"), "inboundGreeting"),
        ("policy", ("inboundPolicy", "publicUrl"), "inboundPolicy"),
        # Two keys are similar enough: the nearer one is named.
        ("number", ("toNumber", "fromNumber", "numbers"), "numbers"),
        ("fromNumbr", ("toNumber", "fromNumber"), "fromNumber"),
    ],
)
def test_the_key_that_was_meant_is_named(name: str, known: tuple[str, ...], meant: str) -> None:
    assert did_you_mean(name, known) == f"; did you mean {meant!r}?"


def test_no_key_is_named_where_none_is_like_it() -> None:
    assert did_you_mean("voice", ("inboundPolicy", "serve")) == ""
    assert did_you_mean("", ("serve",)) == ""
