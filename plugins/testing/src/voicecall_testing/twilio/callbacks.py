"""The callbacks of one call in their order, unless faults mix them up."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

import anyio
import anyio.abc

from .delivery import WebhookSender

__all__ = ["CallbackLane"]


@dataclass(frozen=True, slots=True)
class _Callback:
    type: str
    url: str
    method: str
    params: Mapping[str, str]


class CallbackLane:
    """One a call. ``run`` ends when the last callback was delivered or given up."""

    def __init__(self, sender: WebhookSender, call: str) -> None:
        self._sender = sender
        self._call = call
        self._queue: deque[_Callback] = deque()
        self._more = anyio.Event()
        self._finished = False

    def post(self, type_: str, url: str, method: str, params: Mapping[str, str]) -> None:
        """Queue a callback. Never waits."""
        self._queue.append(_Callback(type_, url, method, params))
        self._more.set()

    def finish(self) -> None:
        """The last callback was posted."""
        self._finished = True
        self._more.set()

    async def run(self) -> None:
        faults = self._sender.faults
        async with anyio.create_task_group() as late:
            while (callback := await self._next()) is not None:
                fault = faults.webhooks
                if fault.concerns(callback.type) and faults.happens(fault.reorder):
                    neighbour = await self._next(self._sender.options.reorder_wait_ms / 1000)
                    if neighbour is not None:
                        await self._deliver(neighbour, late)
                await self._deliver(callback, late)

    async def _deliver(self, callback: _Callback, late: anyio.abc.TaskGroup) -> None:
        faults = self._sender.faults
        fault = faults.webhooks
        if fault.concerns(callback.type) and faults.happens(fault.late):
            late.start_soon(self._deliver_late, callback, faults.dice.random() * fault.late_s)
        else:
            await self._send(callback)

    async def _deliver_late(self, callback: _Callback, after_s: float) -> None:
        await anyio.sleep(after_s)
        await self._send(callback)

    async def _send(self, callback: _Callback) -> None:
        await self._sender.notify(
            self._call, callback.type, callback.url, callback.method, callback.params
        )

    async def _next(self, within_s: float = math.inf) -> _Callback | None:
        """The next callback; None after the last, or when none comes in time."""
        with anyio.move_on_after(within_s):
            while not self._queue:
                if self._finished:
                    return None
                self._more = anyio.Event()
                await self._more.wait()
        return self._queue.popleft() if self._queue else None
