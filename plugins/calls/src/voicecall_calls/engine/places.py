"""Places for calls: leases under the caps, so that the place of a call that is gone is freed."""

from __future__ import annotations

from collections.abc import Callable

import anyio

from voicecall.coordinator import Coordinator
from voicecall.machine import CallPolicy
from voicecall.model import CallRecord, Direction
from voicecall_calls.config import VoiceCallConfig

__all__ = ["INBOUND_CAP", "OUTBOUND_CAP", "Places"]

OUTBOUND_CAP = "calls:outbound"
INBOUND_CAP = "calls:inbound"
_NO_LIMIT = 2**31
_SLACK_MS = 300_000
"""Allowance for keypad tones before the call, and for a hang-up that is repeated."""


class Places:
    """``config`` returns the configuration in force, which has the caps."""

    def __init__(
        self, coordinator: Coordinator, config: Callable[[], VoiceCallConfig], policy: CallPolicy
    ) -> None:
        self._coordinator = coordinator
        self._config = config
        # Longer than any call can last: a lease expires only if its call is gone for good.
        self._lease_ms = (
            policy.dial_ms + policy.ring_timeout_ms + policy.max_duration_ms + _SLACK_MS
        )

    async def take(self, direction: Direction, call_id: str, *, unlimited: bool = False) -> bool:
        """Take a place for a call; False if all are taken. ``unlimited``: ignore the cap, since
        the call is up already."""
        config = self._config()
        outbound = direction is Direction.OUTBOUND
        limit = config.max_concurrent_calls if outbound else config.max_concurrent_inbound_calls
        lease = await self._coordinator.acquire(
            _cap(direction),
            call_id,
            limit=_NO_LIMIT if unlimited else limit,
            ttl_ms=self._lease_ms,
        )
        return lease is not None

    async def give_back(self, record: CallRecord) -> None:
        """Free the place of a call that is over, or was never opened; also if cancelled."""
        with anyio.CancelScope(shield=True):
            await self._coordinator.release(_cap(record.direction), record.call_id)


def _cap(direction: Direction) -> str:
    return OUTBOUND_CAP if direction is Direction.OUTBOUND else INBOUND_CAP
