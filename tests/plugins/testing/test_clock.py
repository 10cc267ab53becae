"""The virtual clock: it jumps to the next timer, unless threads or sockets are still at work."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from queue import Queue
from typing import Any
from uuid import UUID

import anyio
import anyio.to_thread
import pytest

from voicecall.seam import Seam
from voicecall_testing.clock import START, VirtualSeam, VirtualTimeLoop, hold, virtual_backend

pytestmark = [pytest.mark.unit, pytest.mark.anyio]


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return virtual_backend


def virtual_loop() -> VirtualTimeLoop:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop)
    return loop


async def test_a_day_takes_no_time() -> None:
    begun = virtual_loop().time()
    await anyio.sleep(86_400 * 3)
    assert virtual_loop().time() - begun == pytest.approx(86_400 * 3)


async def test_timers_fire_in_order_and_at_their_time() -> None:
    begun = anyio.current_time()
    order: list[tuple[str, float]] = []

    async def after(name: str, seconds: float) -> None:
        await anyio.sleep(seconds)
        order.append((name, round(anyio.current_time() - begun, 6)))

    async with anyio.create_task_group() as tasks:
        for name, seconds in (("c", 30.0), ("a", 0.02), ("b", 5.0), ("a2", 0.02)):
            tasks.start_soon(after, name, seconds)
    assert order == [("a", 0.02), ("a2", 0.02), ("b", 5.0), ("c", 30.0)]


async def test_timeouts_work() -> None:
    with anyio.move_on_after(10) as scope:
        await anyio.sleep_forever()
    assert scope.cancelled_caught
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(2):
            await asyncio.Event().wait()


Blocking = Callable[[Callable[[], Any]], Any]


async def in_anyio(work: Callable[[], Any]) -> Any:
    return await anyio.to_thread.run_sync(work)


async def in_anyio_with_a_limiter(work: Callable[[], Any]) -> Any:
    return await anyio.to_thread.run_sync(work, limiter=anyio.CapacityLimiter(1))


async def in_executor(work: Callable[[], Any]) -> Any:
    return await asyncio.get_running_loop().run_in_executor(None, work)


async def in_own_executor(work: Callable[[], Any]) -> Any:
    with ThreadPoolExecutor(1) as pool:
        return await asyncio.get_running_loop().run_in_executor(pool, work)


def report(future: asyncio.Future[None], work: Callable[[], Any]) -> None:
    work()
    future.get_loop().call_soon_threadsafe(future.set_result, None)


async def in_held_thread(work: Callable[[], Any]) -> None:
    future = asyncio.get_running_loop().create_future()
    thread = threading.Thread(target=report, args=(future, work))
    with hold():
        thread.start()
        await future
    thread.join()


async def in_counted_thread(work: Callable[[], Any]) -> None:
    loop = virtual_loop()
    future = loop.create_future()
    entered = loop.work_outstanding()
    entered.__enter__()

    def run() -> None:
        report(future, work)
        entered.__exit__(None, None, None)

    thread = threading.Thread(target=run)
    thread.start()
    await future
    thread.join()


async def in_checked_queue(work: Callable[[], Any]) -> None:
    jobs: Queue[asyncio.Future[None]] = Queue()
    undo = virtual_loop().add_busy_check(lambda: jobs.unfinished_tasks > 0)

    def serve() -> None:
        report(jobs.get(), work)
        jobs.task_done()

    thread = threading.Thread(target=serve)
    thread.start()
    future = asyncio.get_running_loop().create_future()
    jobs.put(future)
    await future
    thread.join()
    undo()


@pytest.mark.parametrize(
    "blocking",
    [
        in_anyio,
        in_anyio_with_a_limiter,
        in_executor,
        in_own_executor,
        in_held_thread,
        in_counted_thread,
        in_checked_queue,
    ],
)
async def test_the_clock_waits_for_threads(blocking: Blocking) -> None:
    """A timer of one hour next to some milliseconds of real work in a thread."""
    for _ in range(3):
        begun = virtual_loop().time()
        with anyio.move_on_after(3600) as scope:
            await blocking(lambda: time.sleep(0.01))
        assert not scope.cancelled_caught
        assert virtual_loop().time() == begun
        await anyio.sleep(5)
        assert virtual_loop().time() == pytest.approx(begun + 5)


async def test_the_clock_goes_on_beside_idle_worker_threads() -> None:
    await anyio.to_thread.run_sync(int)
    jumps = virtual_loop().jumps
    await anyio.sleep(1)
    assert virtual_loop().jumps > jumps
    assert not virtual_loop().busy


async def test_loopback_sockets() -> None:
    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener:
        port = listener.extra(anyio.abc.SocketAttribute.local_port)

        async def serve(stream: anyio.abc.SocketStream) -> None:
            async with stream:
                data = await stream.receive()
                await anyio.sleep(60)
                await stream.send(data[::-1])

        begun = anyio.current_time()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(listener.serve, serve)
            async with await anyio.connect_tcp("127.0.0.1", port) as client:
                await client.send(b"abc")
                assert await client.receive() == b"cba"
            tasks.cancel_scope.cancel()
    assert anyio.current_time() - begun == pytest.approx(60)


async def test_waiting_for_a_foreign_socket_is_a_matter_of_a_flag() -> None:
    loop = virtual_loop()
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    stop = threading.Event()

    def peer() -> None:
        stop.wait()
        theirs.send(b"x")

    thread = threading.Thread(target=peer)
    thread.start()
    loop.socket_wait = 20.0
    with ours, theirs, anyio.move_on_after(3600) as scope:
        loop.call_soon(stop.set)
        assert await loop.sock_recv(ours, 1) == b"x"
    thread.join()
    assert not scope.cancelled_caught


def test_a_deadlock_is_an_error() -> None:
    loop = VirtualTimeLoop(stall_seconds=0.05)
    try:
        waiting = loop.create_future()
        with pytest.raises(RuntimeError, match="no timer is set"):
            loop.run_until_complete(waiting)
        release = threading.Event()
        work = loop.run_in_executor(None, release.wait)
        timer = loop.call_later(1, release.set)
        with pytest.raises(RuntimeError, match="a thread is busy"):
            loop.run_until_complete(work)
        timer.cancel()
        release.set()
        loop.run_until_complete(work)
        loop.run_until_complete(loop.shutdown_default_executor())
    finally:
        loop.close()


def test_hold_does_nothing_on_another_loop() -> None:
    async def main() -> bool:
        with hold():
            return True

    assert asyncio.run(main())


async def test_the_seam_follows_the_loop() -> None:
    seam: Seam = VirtualSeam(7)
    wall, steady = seam.now_ms(), seam.monotonic()
    assert steady >= START
    await anyio.sleep(1.5)
    assert seam.now_ms() - wall == 1500
    assert seam.monotonic() - steady == pytest.approx(1.5)


async def test_the_seam_is_repeatable() -> None:
    def draw(seam: Seam) -> list[object]:
        return [seam.new_id(), seam.token(), seam.random(), seam.new_id()]

    first = draw(VirtualSeam(1))
    assert draw(VirtualSeam(1)) == first
    assert draw(VirtualSeam(2)) != first
    assert UUID(str(first[0])).version == 4
    assert len(str(first[1])) == 22
    assert first[0] != first[3]
