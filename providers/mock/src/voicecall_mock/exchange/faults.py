"""Faults on request: what the exchange does wrong until they are replaced."""

from __future__ import annotations

import sys
from typing import Annotated, Any, TypeVar

import msgspec

from voicecall.seam import Seam

__all__ = ["Amount", "Chance", "FaultError", "Faults", "RestFault", "WebhookFault", "read_faults"]

Amount = Annotated[float, msgspec.Meta(ge=0, le=sys.float_info.max)]
"""A number of any unit, such as milliseconds."""
Chance = Amount | bool
"""A probability; true is 1."""
T = TypeVar("T")


class FaultError(ValueError):
    """Faults that cannot be read."""


class WebhookFault(
    msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True
):
    """``duplicate``, ``reorder`` (swapped with the next one of the call) and ``lose`` (never sent)
    are probabilities. Only webhooks of ``types`` (empty: all) are affected."""

    duplicate: Chance = 0.0
    reorder: Chance = 0.0
    lose: Chance = 0.0
    delay_ms: Amount = 0.0
    types: frozenset[str] = frozenset()

    def of_type(self, type_: str) -> WebhookFault:
        """The faults of webhooks of this type."""
        return self if not self.types or type_ in self.types else WebhookFault()


class RestFault(msgspec.Struct, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """The next ``times`` requests (None: all) to ``paths`` (prefixes such as ``POST /v1/calls``;
    empty: all requests of a gateway) wait ``delay_ms``. Then they fail with ``status``, or are
    carried out without a reply (``ambiguous``)."""

    delay_ms: Amount = 0.0
    status: Annotated[int, msgspec.Meta(ge=400, le=599)] | None = None
    ambiguous: bool = False
    paths: tuple[str, ...] = ()
    times: Annotated[int, msgspec.Meta(ge=0)] | None = None

    def take(self, method: str, path: str) -> bool:
        """Whether this request is affected; counts it if so."""
        if self.times == 0 or not (self.delay_ms or self.status or self.ambiguous):
            return False
        if self.paths and not f"{method} {path}".startswith(self.paths):
            return False
        if self.times is not None:
            self.times -= 1
        return True


class Faults(msgspec.Struct, forbid_unknown_fields=True):
    """The faults in force."""

    webhooks: WebhookFault = msgspec.field(default_factory=WebhookFault)
    rest: RestFault = msgspec.field(default_factory=RestFault)

    def happens(self, probability: float, seam: Seam) -> bool:
        return probability > 0 and seam.random() < probability

    def replace(self, data: Any) -> None:
        """Read ``{"webhooks": {...}, "rest": {...}}``; what is missing has no faults any more.
        Raises :exc:`FaultError`."""
        wanted = read_faults(data, Faults)
        self.webhooks, self.rest = wanted.webhooks, wanted.rest


def read_faults(data: Any, kind: type[T]) -> T:
    """JSON data, with members in camel case, as ``kind``. Raises :exc:`FaultError`."""
    try:
        return msgspec.convert(data, kind)
    except (msgspec.ValidationError, UnicodeError) as error:
        raise FaultError(str(error)) from None
