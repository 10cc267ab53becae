"""Conformance of a coordinator (:mod:`voicecall.coordinator`)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable

import pytest

from voicecall.coordinator import Coordinator

__all__ = ["CoordinatorContract"]

Advance = Callable[[int], Awaitable[None]]


class CoordinatorContract(ABC):
    """Inherit, and override the fixtures ``coordinator`` and ``advance``. The test module marks
    itself with ``pytest.mark.contract`` and ``pytest.mark.anyio``."""

    @pytest.fixture
    def anyio_backend(self) -> str:
        return "asyncio"

    @pytest.fixture
    @abstractmethod
    def coordinator(self) -> Coordinator:
        """The coordinator under test, ready for use."""

    @pytest.fixture
    @abstractmethod
    def advance(self) -> Advance:
        """A function that lets a number of milliseconds pass for the coordinator."""

    async def test_leases_are_limited(self, coordinator: Coordinator) -> None:
        taken = [await coordinator.acquire("cap", h, limit=2, ttl_ms=1000) for h in "abc"]
        assert [lease.holder if lease else None for lease in taken] == ["a", "b", None]
        assert await coordinator.holders("cap") == 2

    async def test_names_do_not_share_a_limit(self, coordinator: Coordinator) -> None:
        assert await coordinator.acquire("one", "a", limit=1, ttl_ms=1000)
        assert await coordinator.acquire("two", "b", limit=1, ttl_ms=1000)
        assert await coordinator.holders("one") == 1

    async def test_no_lease_under_a_limit_of_zero(self, coordinator: Coordinator) -> None:
        assert await coordinator.acquire("cap", "a", limit=0, ttl_ms=1000) is None
        assert await coordinator.holders("cap") == 0

    async def test_release_makes_room(self, coordinator: Coordinator) -> None:
        assert await coordinator.acquire("cap", "a", limit=1, ttl_ms=1000)
        await coordinator.release("cap", "a")
        assert await coordinator.holders("cap") == 0
        assert await coordinator.acquire("cap", "b", limit=1, ttl_ms=1000)

    async def test_release_of_the_unknown_is_fine(self, coordinator: Coordinator) -> None:
        await coordinator.release("never", "nobody")
        assert await coordinator.acquire("cap", "a", limit=1, ttl_ms=1000)
        await coordinator.release("cap", "somebody else")
        assert await coordinator.holders("cap") == 1

    async def test_leases_expire(self, coordinator: Coordinator, advance: Advance) -> None:
        assert await coordinator.acquire("cap", "a", limit=1, ttl_ms=200)
        await advance(300)
        assert await coordinator.holders("cap") == 0
        assert await coordinator.acquire("cap", "b", limit=1, ttl_ms=200)

    async def test_a_holder_prolongs(self, coordinator: Coordinator, advance: Advance) -> None:
        first = await coordinator.acquire("cap", "a", limit=1, ttl_ms=400)
        await advance(200)
        again = await coordinator.acquire("cap", "a", limit=1, ttl_ms=400)
        assert first is not None
        assert again is not None
        assert again.expires_at > first.expires_at
        await advance(300)
        assert await coordinator.holders("cap") == 1
        assert await coordinator.acquire("cap", "b", limit=1, ttl_ms=400) is None

    async def test_leases_expire_one_by_one(
        self, coordinator: Coordinator, advance: Advance
    ) -> None:
        await coordinator.acquire("cap", "short", limit=2, ttl_ms=200)
        await coordinator.acquire("cap", "long", limit=2, ttl_ms=5000)
        await advance(300)
        assert await coordinator.holders("cap") == 1
        assert await coordinator.acquire("cap", "next", limit=2, ttl_ms=5000)
        assert await coordinator.acquire("cap", "more", limit=2, ttl_ms=5000) is None

    async def test_rates(self, coordinator: Coordinator) -> None:
        allowed = [await coordinator.allow("caller", per_minute=3) for _ in range(5)]
        assert allowed == [True, True, True, False, False]
        assert await coordinator.allow("another", per_minute=3)

    async def test_a_rate_of_zero_allows_nothing(self, coordinator: Coordinator) -> None:
        assert not await coordinator.allow("caller", per_minute=0)

    async def test_a_token_works_once(self, coordinator: Coordinator) -> None:
        await coordinator.put_token("t", {"callId": "c", "n": 1}, ttl_ms=1000)
        assert await coordinator.take_token("t") == {"callId": "c", "n": 1}
        assert await coordinator.take_token("t") is None

    async def test_an_empty_token_is_one(self, coordinator: Coordinator) -> None:
        await coordinator.put_token("t", {}, ttl_ms=1000)
        assert await coordinator.take_token("t") == {}

    async def test_an_unknown_token(self, coordinator: Coordinator) -> None:
        assert await coordinator.take_token("never made") is None

    async def test_tokens_expire(self, coordinator: Coordinator, advance: Advance) -> None:
        await coordinator.put_token("t", {"callId": "c"}, ttl_ms=200)
        await advance(300)
        assert await coordinator.take_token("t") is None
