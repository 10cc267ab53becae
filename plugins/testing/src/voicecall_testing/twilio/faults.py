"""Trouble on request: what the emulator does wrong until it is told otherwise."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from voicecall_mock.exchange.faults import FaultError, RestFault, members, number, texts

__all__ = ["Faults", "RestFault", "SocketFault", "WebhookFault"]

_LATE_S = 10.0
_WITHIN_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookFault:
    """Probabilities: ``duplicate`` (delivered twice), ``late`` (by up to ``late_s`` seconds),
    ``reorder`` (swapped with the call's next), ``lose``. A lost status callback is never sent; a
    lost request for a document counts as a failed connection. ``types`` (empty: all): which
    webhooks are concerned, by the ``type`` of their ledger entries."""

    duplicate: float = 0.0
    late: float = 0.0
    late_s: float = _LATE_S
    reorder: float = 0.0
    lose: float = 0.0
    types: frozenset[str] = frozenset()

    def of_type(self, type_: str) -> WebhookFault:
        """What befalls webhooks of this type."""
        return self if not self.types or type_ in self.types else WebhookFault()


@dataclass(frozen=True, slots=True, kw_only=True)
class SocketFault:
    """Probabilities that a media socket breaks (``drop``) or hangs (``stall``: nothing is sent or
    read any more) at some time in the first ``within_s`` seconds."""

    drop: float = 0.0
    stall: float = 0.0
    within_s: float = _WITHIN_S


@dataclass(slots=True)
class Faults:
    """The faults in force. ``rest``: the first that concerns a request applies; paths such as
    ``POST /Calls.json`` are relative to the account."""

    seed: int = 0
    webhooks: WebhookFault = field(default_factory=WebhookFault)
    rest: Sequence[RestFault] = ()
    sockets: SocketFault = field(default_factory=SocketFault)
    dice: random.Random = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.dice = random.Random(self.seed)

    def happens(self, probability: float) -> bool:
        return probability > 0 and self.dice.random() < probability

    def rest_fault(self, method: str, path: str) -> RestFault | None:
        """What befalls this request; counts it."""
        return next((fault for fault in self.rest if fault.take(method, path)), None)

    def replace(self, data: Any) -> None:
        """Read ``{"webhooks": {...}, "rest": [{...}], "sockets": {...}}`` with members in camel
        case; what is not named is in order again. Raises :exc:`FaultError`."""
        if not isinstance(data, Mapping) or set(data) - {"webhooks", "rest", "sockets"}:
            raise FaultError("faults are an object with webhooks, rest and sockets")
        hooks = members(
            data, "webhooks", {"duplicate", "late", "lateS", "reorder", "lose", "types"}
        )
        sockets = members(data, "sockets", {"drop", "stall", "withinS"})
        rest = data.get("rest", [])
        if not isinstance(rest, list):
            raise FaultError("rest must be a list")
        faults = [RestFault.of({"rest": item}) for item in rest]
        webhooks = WebhookFault(
            duplicate=number(hooks, "duplicate"),
            late=number(hooks, "late"),
            late_s=number(hooks, "lateS") or _LATE_S,
            reorder=number(hooks, "reorder"),
            lose=number(hooks, "lose"),
            types=frozenset(texts(hooks, "types")),
        )
        self.sockets = SocketFault(
            drop=number(sockets, "drop"),
            stall=number(sockets, "stall"),
            within_s=number(sockets, "withinS") or _WITHIN_S,
        )
        self.webhooks, self.rest = webhooks, faults
