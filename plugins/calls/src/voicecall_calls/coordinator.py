"""The coordinator of a single gateway: leases, rates and one-use tokens in memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any, Generic, TypeVar

from voicecall.coordinator import Coordinator, Lease
from voicecall.seam import Seam

__all__ = ["MemoryCoordinator"]

V = TypeVar("V")

_MINUTE_MS = 60_000
_SWEEP_FROM = 256


class MemoryCoordinator(Coordinator):
    """Everything is lost with the process, but so is what it protected: the sockets, and the
    places of calls under the caps, which recovery takes again. Expiry uses the monotonic clock: a
    step of the wall clock must not end or prolong anything."""

    def __init__(self, seam: Seam) -> None:
        self._seam = seam
        self._leases: _Expiring[_Places] = _Expiring()
        self._rates: _Expiring[deque[int]] = _Expiring()
        self._tokens: _Expiring[Mapping[str, Any]] = _Expiring()

    async def acquire(self, name: str, holder: str, *, limit: int, ttl_ms: int) -> Lease | None:
        now = self._now()
        places = self._held(name, now)
        if holder not in places.leases and len(places.leases) >= limit:
            return None
        places.put(holder, now + ttl_ms)
        self._leases.put(name, places, places.latest, now)
        return Lease(name, holder, self._seam.now_ms() + ttl_ms)

    async def release(self, name: str, holder: str) -> None:
        places = self._held(name, self._now())
        places.leases.pop(holder, None)
        if not places.leases:
            self._leases.drop(name)

    async def holders(self, name: str) -> int:
        return len(self._held(name, self._now()).leases)

    async def allow(self, name: str, *, per_minute: int) -> bool:
        now = self._now()
        times = self._rates.get(name, now) or deque()
        while times and times[0] <= now - _MINUTE_MS:
            times.popleft()
        if len(times) >= per_minute:
            return False
        times.append(now)
        self._rates.put(name, times, now + _MINUTE_MS, now)
        return True

    async def put_token(self, token: str, value: Mapping[str, Any], *, ttl_ms: int) -> None:
        now = self._now()
        self._tokens.put(token, dict(value), now + ttl_ms, now)

    async def take_token(self, token: str) -> Mapping[str, Any] | None:
        # No constant-time comparison is needed: a lookup compares hashes seeded per process, so its
        # duration does not reveal how much of a guessed token (128 random bits) is right.
        value = self._tokens.get(token, self._now())
        self._tokens.drop(token)
        return value

    def _now(self) -> int:
        return int(self._seam.monotonic() * 1000)

    def _held(self, name: str, now: int) -> _Places:
        places = self._leases.get(name, now) or _Places()
        places.expire(now)
        return places


class _Places:
    """When the holders' leases of one name expire. Scanned only if one may have expired: there may
    be hundreds, and they are needed for every call."""

    def __init__(self) -> None:
        self.leases: dict[str, int] = {}
        self._none_before = 0
        self.latest = 0

    def put(self, holder: str, until: int) -> None:
        self._none_before = min(self._none_before, until)
        self.latest = max(self.latest, until)
        self.leases[holder] = until

    def expire(self, now: int) -> None:
        if now < self._none_before:
            return
        self.leases = {holder: until for holder, until in self.leases.items() if until > now}
        self._none_before = min(self.leases.values(), default=now)


class _Expiring(Generic[V]):
    """Values by key, each with an expiry time (milliseconds of the caller's clock).

    Expired entries are swept out when the size has doubled since the last sweep, so memory stays
    within twice what is valid, at an amortised constant cost per addition.
    """

    def __init__(self) -> None:
        self._entries: dict[str, tuple[int, V]] = {}
        self._sweep_at = _SWEEP_FROM

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: str, now: int) -> V | None:
        entry = self._entries.get(key)
        if entry is None:
            return None
        expires_at, value = entry
        if expires_at <= now:
            del self._entries[key]
            return None
        return value

    def put(self, key: str, value: V, expires_at: int, now: int) -> None:
        self._entries[key] = (expires_at, value)
        if len(self._entries) >= self._sweep_at:
            self._entries = {k: e for k, e in self._entries.items() if e[0] > now}
            self._sweep_at = max(_SWEEP_FROM, 2 * len(self._entries))

    def drop(self, key: str) -> None:
        self._entries.pop(key, None)
