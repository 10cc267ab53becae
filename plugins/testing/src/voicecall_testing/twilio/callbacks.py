"""The callbacks of one call in their order, unless faults mix them up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import anyio
import anyio.abc

from voicecall_mock.exchange.postbox import Postbox

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
        self._box: Postbox[_Callback] = Postbox()

    def post(self, type_: str, url: str, method: str, params: Mapping[str, str]) -> None:
        """Queue a callback. Never waits."""
        self._box.put(_Callback(type_, url, method, params))

    def finish(self) -> None:
        """The last callback was posted."""
        self._box.finish()

    async def run(self) -> None:
        faults = self._sender.faults
        async with anyio.create_task_group() as late:
            while (callback := await self._box.take()) is not None:
                fault = faults.webhooks
                if fault.concerns(callback.type) and faults.happens(fault.reorder):
                    neighbour = await self._box.take(self._sender.options.reorder_wait_ms / 1000)
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
