"""Trouble on request: what the exchange does wrong until it is told otherwise."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from voicecall.seam import Seam

__all__ = ["FaultError", "Faults", "RestFault", "WebhookFault", "members", "number", "texts"]


class FaultError(ValueError):
    """Faults that cannot be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookFault:
    """``duplicate``, ``reorder`` (swapped with the next of the call) and ``lose`` (never sent) are
    probabilities; only webhooks of ``types`` (empty: all) are concerned."""

    duplicate: float = 0.0
    reorder: float = 0.0
    lose: float = 0.0
    delay_ms: float = 0.0
    types: frozenset[str] = frozenset()

    def of_type(self, type_: str) -> WebhookFault:
        """What befalls webhooks of this type."""
        return self if not self.types or type_ in self.types else WebhookFault()


@dataclass(slots=True, kw_only=True)
class RestFault:
    """The next ``times`` requests (None: all) to ``paths`` (beginnings such as ``POST /v1/calls``;
    empty: all of a gateway's) wait ``delay_ms``, then fail with ``status``, or are carried out
    without any reply (``ambiguous``)."""

    delay_ms: float = 0.0
    status: int | None = None
    ambiguous: bool = False
    paths: tuple[str, ...] = ()
    times: int | None = None

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> RestFault:
        """Read the object under ``rest``. Raises :exc:`FaultError`."""
        rest = members(data, "rest", {"delayMs", "status", "ambiguous", "paths", "times"})
        status = number(rest, "status")
        if status and not 400 <= status <= 599:
            raise FaultError("status is no error status")
        return cls(
            delay_ms=number(rest, "delayMs"),
            status=int(status) or None,
            ambiguous=rest.get("ambiguous") is True,
            paths=texts(rest, "paths"),
            times=None if rest.get("times") is None else int(number(rest, "times")),
        )

    def take(self, method: str, path: str) -> bool:
        """Whether this request is concerned; counts it."""
        if self.times == 0 or not (self.delay_ms or self.status or self.ambiguous):
            return False
        if self.paths and not f"{method} {path}".startswith(self.paths):
            return False
        if self.times is not None:
            self.times -= 1
        return True


@dataclass(slots=True)
class Faults:
    """The faults in force."""

    webhooks: WebhookFault = field(default_factory=WebhookFault)
    rest: RestFault = field(default_factory=RestFault)

    def happens(self, probability: float, seam: Seam) -> bool:
        return probability > 0 and seam.random() < probability

    def replace(self, data: Any) -> None:
        """Read ``{"webhooks": {...}, "rest": {...}}``; what is not named is in order again.
        Raises :exc:`FaultError`."""
        if not isinstance(data, Mapping) or set(data) - {"webhooks", "rest"}:
            raise FaultError("faults are an object with webhooks and rest")
        hooks = members(data, "webhooks", {"duplicate", "reorder", "lose", "delayMs", "types"})
        webhooks = WebhookFault(
            duplicate=number(hooks, "duplicate"),
            reorder=number(hooks, "reorder"),
            lose=number(hooks, "lose"),
            delay_ms=number(hooks, "delayMs"),
            types=frozenset(texts(hooks, "types")),
        )
        self.rest = RestFault.of(data)
        self.webhooks = webhooks


def members(data: Mapping[str, Any], key: str, known: set[str]) -> Mapping[str, Any]:
    """The object under ``key``, empty when absent. Raises :exc:`FaultError`, also for members
    that are not ``known``."""
    value = data.get(key) or {}
    if not isinstance(value, Mapping):
        raise FaultError(f"{key} is no object")
    unknown = set(value) - known
    if unknown:
        raise FaultError(f"{key}.{min(unknown)} is unknown")
    return value


def number(data: Mapping[str, Any], key: str) -> float:
    """A number that is not negative; true is 1, absent is 0. Raises :exc:`FaultError`."""
    value = data.get(key) or 0
    if not isinstance(value, int | float) or not 0 <= value <= sys.float_info.max:
        raise FaultError(f"{key} must be a number of at least 0")
    return float(value)


def texts(data: Mapping[str, Any], key: str) -> tuple[str, ...]:
    """A list of texts; empty when absent. Raises :exc:`FaultError`."""
    value = data.get(key) or []
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise FaultError(f"{key} must be a list of texts")
    return tuple(value)
