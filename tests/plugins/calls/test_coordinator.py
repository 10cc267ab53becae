"""The memory coordinator: its contract, expiry, the rate window, clocks, and bounded memory."""

from __future__ import annotations

import pytest

from voicecall.seam import SystemSeam
from voicecall_calls.coordinator import MemoryCoordinator
from voicecall_testing.contracts.coordinator import Advance, CoordinatorContract

pytestmark = [pytest.mark.contract, pytest.mark.anyio]


class HandSeam(SystemSeam):
    """Clocks that a test moves; the wall clock can be stepped on its own."""

    def __init__(self) -> None:
        self.elapsed = 0
        self.step = 0

    def now_ms(self) -> int:
        return 1_700_000_000_000 + self.elapsed + self.step

    def monotonic(self) -> float:
        return self.elapsed / 1000


@pytest.fixture
def seam() -> HandSeam:
    return HandSeam()


class TestMemoryCoordinator(CoordinatorContract):
    @pytest.fixture
    def coordinator(self, seam: HandSeam) -> MemoryCoordinator:
        return MemoryCoordinator(seam)

    @pytest.fixture
    def advance(self, seam: HandSeam) -> Advance:
        async def pass_time(ms: int) -> None:
            seam.elapsed += ms

        return pass_time


async def test_a_lease_is_void_at_its_very_time(seam: HandSeam) -> None:
    coordinator = MemoryCoordinator(seam)
    lease = await coordinator.acquire("cap", "a", limit=1, ttl_ms=100)
    assert lease is not None
    assert lease.expires_at == seam.now_ms() + 100
    seam.elapsed += 99
    assert await coordinator.holders("cap") == 1
    seam.elapsed += 1
    assert await coordinator.holders("cap") == 0


async def test_leases_of_one_name_end_each_in_its_own_time(seam: HandSeam) -> None:
    coordinator = MemoryCoordinator(seam)
    for holder, ttl_ms in (("long", 300), ("short", 100), ("middle", 200)):
        assert await coordinator.acquire("cap", holder, limit=3, ttl_ms=ttl_ms)
    for left in (2, 1, 0):
        seam.elapsed += 100
        assert await coordinator.holders("cap") == left


async def test_a_token_is_void_at_its_very_time(seam: HandSeam) -> None:
    coordinator = MemoryCoordinator(seam)
    for age_ms, taken in ((99, {"call_id": "c"}), (100, None)):
        await coordinator.put_token("t", {"call_id": "c"}, ttl_ms=100)
        seam.elapsed += age_ms
        assert await coordinator.take_token("t") == taken


async def test_the_window_of_a_rate_slides(seam: HandSeam) -> None:
    coordinator = MemoryCoordinator(seam)
    assert await coordinator.allow("n", per_minute=2)
    seam.elapsed += 40_000
    assert await coordinator.allow("n", per_minute=2)
    seam.elapsed += 19_999
    assert not await coordinator.allow("n", per_minute=2)
    seam.elapsed += 1
    assert await coordinator.allow("n", per_minute=2)
    assert not await coordinator.allow("n", per_minute=2)


@pytest.mark.parametrize("step", [-100_000, 100_000])
async def test_a_step_of_the_wall_clock_leaves_leases_and_tokens_alone(
    seam: HandSeam, step: int
) -> None:
    coordinator = MemoryCoordinator(seam)
    for name in ("short", "long"):
        ttl_ms = 1000 if name == "short" else 3000
        await coordinator.acquire(name, "a", limit=1, ttl_ms=ttl_ms)
        await coordinator.put_token(name, {}, ttl_ms=ttl_ms)
    seam.step = step
    seam.elapsed += 2000
    assert [await coordinator.holders(name) for name in ("short", "long")] == [0, 1]
    assert await coordinator.take_token("short") is None
    assert await coordinator.take_token("long") == {}


async def test_a_step_of_the_wall_clock_leaves_rates_alone(seam: HandSeam) -> None:
    coordinator = MemoryCoordinator(seam)
    assert await coordinator.allow("n", per_minute=1)
    seam.step = 3_600_000
    assert not await coordinator.allow("n", per_minute=1)


async def test_what_expired_is_dropped(seam: HandSeam) -> None:
    coordinator = MemoryCoordinator(seam)
    for number in range(5000):
        await coordinator.put_token(f"t{number}", {}, ttl_ms=10)
        await coordinator.acquire(f"lease{number}", "me", limit=1, ttl_ms=10)
        await coordinator.allow(f"caller{number}", per_minute=5)
        seam.elapsed += 1000
    sizes = [len(coordinator._tokens), len(coordinator._leases), len(coordinator._rates)]
    assert max(sizes) <= 256


async def test_released_names_are_forgotten(seam: HandSeam) -> None:
    coordinator = MemoryCoordinator(seam)
    await coordinator.acquire("call:1", "me", limit=1, ttl_ms=10_000)
    await coordinator.release("call:1", "me")
    assert len(coordinator._leases) == 0


async def test_a_changed_dictionary_does_not_change_the_token(seam: HandSeam) -> None:
    coordinator = MemoryCoordinator(seam)
    value = {"callId": "c"}
    await coordinator.put_token("t", value, ttl_ms=10)
    value["callId"] = "other"
    assert await coordinator.take_token("t") == {"callId": "c"}
