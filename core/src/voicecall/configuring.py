"""Configuration models: camelCase keys, closed objects, errors that name the path."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from ipaddress import ip_address
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    ValidationError,
    model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic.fields import FieldInfo

from .errors import ConfigError
from .wording import did_you_mean, wording

__all__ = [
    "ConfigModel",
    "HttpUrl",
    "UrlPath",
    "deep_merge",
    "is_http_url",
    "is_loopback",
    "validate",
    "wrong_keys",
]

_HOST = re.compile(r"[a-z0-9_]([a-z0-9_.-]*[a-z0-9_.])?|[0-9a-f:]*:[0-9a-f:.]*")
_BLANK = re.compile(r"[\x00-\x20\x7f]")
_PATH = re.compile(r"/?(?!/)[^\x00-\x20\x7f?#:]*")
_BLOCKED = frozenset({"__proto__", "prototype", "constructor"})


class ConfigModel(BaseModel):
    """Base of configuration objects: keys are camelCase, unknown ones are errors."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
    )

    @model_validator(mode="before")
    @classmethod
    def _no_truth_for_a_number(cls, values: Any) -> Any:
        """Turn true and false for a number into texts, which are refused: pydantic would accept
        true as 1, which is never meant."""
        if not isinstance(values, Mapping) or not any(type(v) is bool for v in values.values()):
            return values
        numbers = set()
        for name, field in cls.model_fields.items():
            types = set(_types(field.annotation))
            if types & {int, float} and not types & {bool, Any}:
                numbers |= {name, field.alias}
        return {k: str(v) if type(v) is bool and k in numbers else v for k, v in values.items()}


def _types(annotation: Any) -> Iterator[Any]:
    """The types that a value may have: the members of a union."""
    if isinstance(annotation, UnionType) or get_origin(annotation) in (Union, Annotated):
        for part in get_args(annotation):
            yield from _types(part)
    else:
        yield annotation


def is_http_url(text: str) -> bool:
    """Whether ``text`` is an absolute http(s) URL with a valid host and port and no whitespace."""
    if _BLANK.search(text):
        return False
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(_HOST.fullmatch(host)) and port != 0


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine's loopback."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        name = host.removesuffix(".").lower()
        return name == "localhost" or name.endswith(".localhost")


def _http_url(text: str) -> str:
    if not is_http_url(text):
        raise ValueError("must be an absolute http(s) URL")
    return text


HttpUrl = Annotated[str, AfterValidator(_http_url)]
"""A field for an absolute http(s) URL."""


def _url_path(text: str) -> str:
    if not text or not _PATH.fullmatch(text):
        raise ValueError("must be the path of a URL, such as /voice/webhook")
    return text


UrlPath = Annotated[str, AfterValidator(_url_path)]
"""A field for the path of a URL, without a query."""

Model = TypeVar("Model", bound=BaseModel)


def validate(
    model: type[Model], values: Any, path: str, *, env: Mapping[str, str] | None = None
) -> Model:
    """``values`` as ``model``. Raises :exc:`ConfigError` with every problem and its full path.

    ``path`` is where the configuration has ``values``; ``env`` maps fields of ``model`` to the
    environment variables that can supply them.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise ConfigError(_problems(error, model, values, path, env or {})) from None


def wrong_keys(
    model: type[BaseModel],
    values: Mapping[str, Any],
    path: str,
    missing: Collection[str],
    *,
    env: Mapping[str, str] | None = None,
) -> str:
    """What else is wrong in an object whose top-level keys ``missing`` have no value; empty if
    nothing is. Rules between several keys are not checked."""
    there = {key: value for key, value in values.items() if key not in missing}
    try:
        model.model_validate(there)
    except ValidationError as error:
        return _problems(error, model, there, path, env or {}, missing)
    return ""


def _problems(
    error: ValidationError,
    model: type[BaseModel],
    values: Any,
    path: str,
    env: Mapping[str, str],
    missing: Collection[str] = (),
) -> str:
    found: dict[str, list[str]] = {}
    items = error.errors()
    above = {item["loc"][:depth] for item in items for depth in range(len(item["loc"]))}
    for item in items:
        if missing and (not item["loc"] or item["loc"][0] in missing):
            continue
        if item["type"] == "too_short" and item["loc"] in above:
            # pydantic does not count the wrong entries of a tuple.
            continue
        full, text = _problem(model, item, values, path, env)
        found.setdefault(full, []).append(text)
    return "; ".join(f"{full}: {_either(texts)}" for full, texts in found.items())


def _either(texts: list[str]) -> str:
    """Join what is wrong with one value for each of the types that it may have."""
    first, *others = dict.fromkeys(texts)
    return " or ".join([first, *(text.removeprefix("must be ") for text in others)])


def _problem(
    model: type[BaseModel], item: Any, values: Any, path: str, env: Mapping[str, str]
) -> tuple[str, str]:
    """The path of a wrong value, and what is wrong with it."""
    location = _location(item["loc"], values, missing=item["type"] == "missing")
    full = ".".join([path, *location]) if path else ".".join(location)
    message = wording(item)
    if item["type"] == "extra_forbidden":
        message += did_you_mean(location[-1], _keys_at(model, location[:-1]))
    elif item["type"] in ("union_tag_invalid", "union_tag_not_found"):
        # pydantic names the object; the wrong part is one of its keys.
        full += "." + item["ctx"]["discriminator"].strip("'")
        known = [tag for tag in item["ctx"].get("expected_tags", "").split(", ") if tag]
        message = "must be one of " + ", ".join(known) if known else "is required"
    variable = env.get(location[0]) if len(location) == 1 else None
    if variable is None:
        return full or "configuration", message
    if item["type"] == "missing":
        return full, f"{message} (or set {variable})"
    if item["type"] == "extra_forbidden":
        return full, f"unknown key: {variable} supplies it, so the provider's model must declare it"
    # The value may come from either.
    return f"{full} (or {variable})", message


def _location(parts: Sequence[str | int], values: Any, *, missing: bool) -> list[str]:
    """pydantic's location without the parts that are not in the file: the tags and types of unions,
    and the marker for a wrong key. If the value is ``missing``, the last part stays."""
    found: list[str] = []
    for number, part in enumerate(parts, 1):
        if isinstance(values, Mapping):
            if part not in values and not (missing and number == len(parts)):
                continue
            values = values.get(part)
        elif isinstance(values, list | tuple):
            if not isinstance(part, int):
                continue
            values = values[part] if part < len(values) else None
        else:
            break
        found.append(str(part))
    return found


def _keys_at(model: type[BaseModel], location: list[str]) -> list[str]:
    """The keys of the object at ``location`` below ``model``."""
    fields = model.model_fields
    for part in location:
        for name, field in fields.items():
            if part in (name, field.alias):
                fields = _fields_in(field.annotation)
                break
    return [field.alias or name for name, field in fields.items()]


def _fields_in(annotation: Any) -> dict[str, FieldInfo]:
    """The fields of the model in an annotation such as ``Model | None``, if there is one."""
    if isinstance(annotation, type):
        return annotation.model_fields if issubclass(annotation, BaseModel) else {}
    found = (_fields_in(part) for part in getattr(annotation, "__args__", ()))
    return next((fields for fields in found if fields), {})


def deep_merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` updated by ``over``: objects are merged, other values replaced; None in ``over``
    changes nothing."""
    merged = dict(base)
    for key, value in over.items():
        if value is None or key in _BLOCKED:
            continue
        below = merged.get(key)
        if isinstance(value, Mapping) and isinstance(below, Mapping):
            merged[key] = deep_merge(below, value)
        else:
            merged[key] = deep_merge({}, value) if isinstance(value, Mapping) else value
    return merged
