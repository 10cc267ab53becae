"""Configuration models: keys, errors that name the path, merging."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field

from voicecall.configuring import ConfigModel, deep_merge, validate
from voicecall.errors import ConfigError

pytestmark = pytest.mark.unit


class Inner(ConfigModel):
    max_calls: int = Field(default=1, ge=1)
    auth_token: str = ""


class Outer(ConfigModel):
    from_number: str
    inner: Inner = Inner()
    maybe: Inner | None = None
    items: tuple[Inner, ...] = ()


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
        ({"fromNumber": "+1", "inner": {"maxCalls": 0}}, "a.b.inner.maxCalls: Input should be"),
        ({"fromNumber": "+1", "items": [{"maxCalls": "x"}]}, "a.b.items.0.maxCalls: Input"),
        ([], "a.b: Input should be"),
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


@settings(max_examples=80, deadline=None)
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
        ({"kind": "cat", "lives": "x"}, "zoo.cages.a.lives: Input should be"),
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
