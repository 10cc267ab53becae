"""Guards around third-party code: requests to the carrier's adapter, with a time limit, and faults
of stores. The carrier is asked whether a call is over before a failure is held against it."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

import anyio

from voicecall import events as ev
from voicecall import telephony as tel
from voicecall.errors import OutcomeUnknown, ProviderError, StoreError
from voicecall_calls.apart import apart

if TYPE_CHECKING:
    from .lane import CallLane

__all__ = ["DIAL_S", "asked", "reported_end", "reported_status", "store_fault"]

_log = logging.getLogger("voicecall.calls")

LONGEST_S = 60.0
"""Limit for a request, including everything its adapter does for it: no call waits forever."""
DIAL_S = 25.0
"""Limit for a dial request, which is looked up before the call's deadline closes the call."""

T = TypeVar("T")


async def asked(request: Callable[[], Awaitable[T]], longest_s: float = LONGEST_S) -> T:
    """What the carrier's adapter returns. Raises ``ProviderError``: ``OutcomeUnknown`` if the
    adapter has a fault or does not return in time."""
    try:
        with anyio.move_on_after(longest_s):
            return await apart(request, "a request to the carrier")
    except ProviderError:
        raise
    except Exception as error:  # (a third-party adapter)
        _log.exception("the carrier's adapter failed")
        message = f"the adapter failed: {type(error).__name__}"
        raise OutcomeUnknown(message, provider="carrier") from error
    message = f"the adapter did not return within {longest_s:.0f} s"
    raise OutcomeUnknown(message, provider="carrier")


def store_fault(error: Exception) -> StoreError:
    """Log ``error`` and return what the store should have raised instead."""
    _log.error("the store failed", exc_info=error)
    return StoreError(f"the store failed: {type(error).__name__}")


async def reported_status(lane: CallLane, provider: tel.TelephonyProvider) -> ev.StatusReported:
    """What the carrier reports about the call; ``unknown`` if it cannot be asked."""

    async def ask() -> tel.CallStatus:
        status = await provider.status(lane.ref)
        if not isinstance(getattr(status, "status", None), ev.CarrierStatus):
            raise TypeError(f"status returns {status!r}, not a CallStatus")
        return status

    try:
        status = await asked(ask)
    except ProviderError as error:
        _log.warning("call %s: status request failed: %s", lane.record.call_id, error)
        status = tel.CallStatus(ev.CarrierStatus.UNKNOWN)
    return ev.StatusReported(at=lane.host.seam.now_ms(), status=status.status, reason=status.reason)


async def reported_end(lane: CallLane, provider: tel.TelephonyProvider) -> ev.StatusReported | None:
    """The carrier's report that the call is over; None if it continues, as far as is known. The
    webhook that reports an end may be late or lost, and until it arrives, everything that the end
    broke looks like a failure."""
    if lane.record.terminal:
        return None
    said = await reported_status(lane, provider)
    over = said.status in (ev.CarrierStatus.ENDED, ev.CarrierStatus.NOT_FOUND)
    return said if over else None
