"""Messages about wrong values and unknown names, for people who write configuration files."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["did_you_mean", "wording"]

_WHOLE = "must be a whole number"
_NUMBER = "must be a number"
_BOOL = "must be true or false"
_STRING = "must be a string"
_OBJECT = "must be an object, {{ ... }}"
_LIST = "must be a list, [ ... ]"

# Formats by pydantic's type of error: https://docs.pydantic.dev/latest/errors/validation_errors/
_WORDS: Mapping[str, str] = {
    "int_type": _WHOLE,
    "int_parsing": _WHOLE,
    "int_parsing_size": _WHOLE,
    "int_from_float": _WHOLE,
    "float_type": _NUMBER,
    "float_parsing": _NUMBER,
    "finite_number": _NUMBER,
    "bool_type": _BOOL,
    "bool_parsing": _BOOL,
    "string_type": _STRING,
    "path_type": _STRING,
    "dict_type": _OBJECT,
    "mapping_type": _OBJECT,
    "model_type": _OBJECT,
    "model_attributes_type": _OBJECT,
    "list_type": _LIST,
    "tuple_type": _LIST,
    "missing": "is required",
    "extra_forbidden": "unknown key",
    "literal_error": "must be {expected}",
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "string_too_short": "must have at least {min_length} characters",
    "string_too_long": "must have at most {max_length} characters",
    "string_pattern_mismatch": "must match the pattern {pattern}",
    "too_short": "must have at least {min_length} entries",
    "too_long": "must have at most {max_length} entries",
}
_OWN = "Value error, "
_THEIRS = "Input should be "


def wording(item: Mapping[str, Any]) -> str:
    """A message for one of ``ValidationError.errors()``; it never contains the value."""
    kind, context, message = item["type"], item.get("ctx", {}), str(item["msg"])
    if kind == "string_too_short" and context.get("min_length") == 1:
        return "must not be empty"
    if (words := _WORDS.get(kind)) is not None:
        return words.format_map(context)
    if kind == "value_error":
        return message.removeprefix(_OWN)
    if message.startswith(_THEIRS):
        return "must be " + message.removeprefix(_THEIRS)
    return message


def did_you_mean(name: str, known: Iterable[str], likeness: float = 0.6) -> str:
    """``; did you mean 'toNumber'?`` with the only name of ``known`` that ends in ``name``, else
    with the most similar one; empty if none has this ``likeness`` (0 to 1)."""
    names = list(known)
    word = name[:1].upper() + name[1:]
    longer = [one for one in names if word and one.endswith(word)]
    close = difflib.get_close_matches(name, names, 1, likeness)
    if len(longer) == 1:
        close = longer
    return f"; did you mean {close[0]!r}?" if close else ""
