"""Faults on request: what the emulator does wrong until other faults are set."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import msgspec

from voicecall_mock.exchange.faults import Amount, Chance, RestFault, read_faults

__all__ = ["Faults", "RestFault", "SocketFault", "WebhookFault"]


class WebhookFault(
    msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True
):
    """Probabilities that a webhook is delivered twice (``duplicate``), late by up to ``late_s``
    seconds (``late``), swapped with the next one of its call (``reorder``), or lost (``lose``). A
    lost status callback is never sent; a lost request for a document counts as a failed connection.
    ``types`` limits these faults to webhooks of some types, as in the ledger (empty: all)."""

    duplicate: Chance = 0.0
    late: Chance = 0.0
    late_s: Amount = 10.0
    reorder: Chance = 0.0
    lose: Chance = 0.0
    types: frozenset[str] = frozenset()

    def of_type(self, type_: str) -> WebhookFault:
        """The faults that apply to webhooks of this type."""
        return self if not self.types or type_ in self.types else WebhookFault()


class SocketFault(
    msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True
):
    """Probabilities that a media socket, some time in its first ``within_s`` seconds, breaks
    (``drop``) or hangs (``stall``: nothing is sent or read any more)."""

    drop: Chance = 0.0
    stall: Chance = 0.0
    within_s: Amount = 5.0


class _Wanted(msgspec.Struct, forbid_unknown_fields=True):
    webhooks: WebhookFault = msgspec.field(default_factory=WebhookFault)
    rest: tuple[RestFault, ...] = ()
    sockets: SocketFault = msgspec.field(default_factory=SocketFault)


class Faults:
    """The faults in force. The first fault in ``rest`` that matches a request applies; paths such
    as ``POST /Calls.json`` are relative to the account."""

    webhooks: WebhookFault
    rest: Sequence[RestFault]
    sockets: SocketFault

    def __init__(self, seed: int = 0) -> None:
        self.dice = random.Random(seed)
        self.replace({})

    def happens(self, probability: float) -> bool:
        return probability > 0 and self.dice.random() < probability

    def rest_fault(self, method: str, path: str) -> RestFault | None:
        """The fault that applies to this request, which uses up one of its ``times``."""
        return next((fault for fault in self.rest if fault.take(method, path)), None)

    def replace(self, data: Any) -> None:
        """Set the faults from ``{"webhooks": {...}, "rest": [{...}], "sockets": {...}}``, with
        members in camel case; those that are missing are switched off. Raises
        :exc:`~voicecall_mock.exchange.faults.FaultError`."""
        wanted = read_faults(data, _Wanted)
        self.webhooks, self.rest, self.sockets = wanted.webhooks, wanted.rest, wanted.sockets
