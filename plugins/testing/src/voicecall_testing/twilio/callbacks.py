"""The callbacks of one call."""

from __future__ import annotations

from collections.abc import Mapping

import anyio

from voicecall_mock.exchange.postbox import Postbox

from .delivery import Webhook, WebhookSender

__all__ = ["CallbackLane"]


class CallbackLane(Postbox[Webhook]):
    """The callbacks of one call, one after another, but for those that faults make late."""

    def __init__(self, sender: WebhookSender, call: str) -> None:
        super().__init__(sender.options.reorder_wait_ms / 1000)
        self._sender = sender
        self._call = call
        self._late = anyio.create_task_group()

    def post(self, type_: str, url: str, method: str, params: Mapping[str, str]) -> None:
        """Queue a callback. Never waits."""
        self.put(Webhook(self._call, type_, url, method, params))

    async def run(self) -> None:
        async with self._late:
            await super().run()

    def _is_swapped(self, letter: Webhook) -> bool:
        faults = self._sender.faults
        return faults.happens(faults.webhooks.of_type(letter.type).reorder)

    async def _deliver(self, letter: Webhook) -> None:
        faults = self._sender.faults
        fault = faults.webhooks.of_type(letter.type)
        if faults.happens(fault.late):
            self._late.start_soon(self._send_late, letter, faults.dice.random() * fault.late_s)
        else:
            await self._sender.notify(letter)

    async def _send_late(self, callback: Webhook, after_s: float) -> None:
        await anyio.sleep(after_s)
        await self._sender.notify(callback)
