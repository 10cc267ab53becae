"""Outgoing webhooks: signed, in order for each call, redelivered, with faults on request."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import anyio
import httpx

from voicecall import telephony as tel
from voicecall.seam import Seam
from voicecall_mock.protocol import SIGNATURE_HEADER, TIMESTAMP_HEADER, sign

from .actions import ActionError, actions_from_reply
from .faults import Faults
from .ledger import Ledger
from .options import ExchangeOptions
from .postbox import Postbox

__all__ = ["WebhookLane", "WebhookSender"]

Perform = Callable[[Sequence[tel.Action]], None]


@dataclass(slots=True)
class _Event:
    """``replies``: bodies of replies that were carried out. The same reply to a redelivered event
    is not carried out again."""

    id: str
    type: str
    body: bytes
    replies: set[bytes] = field(default_factory=set)


class WebhookSender:
    """Delivers events; shared by all calls."""

    def __init__(
        self, options: ExchangeOptions, seam: Seam, faults: Faults, ledger: Ledger
    ) -> None:
        self.options = options
        self.seam = seam
        self.faults = faults
        self.ledger = ledger
        self._http = httpx.AsyncClient(
            timeout=options.webhook_timeout_s,
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=64),
            trust_env=False,
        )

    async def __aenter__(self) -> WebhookSender:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def deliver(self, call: str, url: str, event: _Event, perform: Perform) -> None:
        """Return when the gateway has accepted or refused it, or all redeliveries have failed."""
        fault = self.faults.webhooks.of_type(event.type)
        if self.faults.happens(fault.lose, self.seam):
            self.ledger.add("webhook-lost", call, id=event.id, type=event.type)
            return
        if fault.delay_ms:
            await anyio.sleep(fault.delay_ms / 1000)
        await self._with_redelivery(call, url, event, perform)
        if self.faults.happens(fault.duplicate, self.seam):
            await self._with_redelivery(call, url, event, perform)

    async def _with_redelivery(self, call: str, url: str, event: _Event, perform: Perform) -> None:
        for attempt, wait in enumerate((0.0, *self.options.redelivery_s), 1):
            if wait:
                await anyio.sleep(wait)
            reply, error = await self._attempt(url, event)
            self.ledger.add(
                "webhook",
                call,
                id=event.id,
                type=event.type,
                attempt=attempt,
                status=None if reply is None else reply.status_code,
                error=error,
            )
            if reply is None or _comes_again(reply.status_code):
                continue
            if reply.status_code == 200:
                self._carry_out(call, event, reply.content, perform)
            return
        self.ledger.add("webhook-given-up", call, id=event.id, type=event.type)

    async def _attempt(self, url: str, event: _Event) -> tuple[httpx.Response | None, str]:
        timestamp = str(self.seam.now_ms())
        headers = {
            "content-type": "application/json",
            TIMESTAMP_HEADER: timestamp,
            SIGNATURE_HEADER: sign(self.options.auth_token, timestamp, url, event.body),
        }
        try:
            with anyio.fail_after(self.options.webhook_timeout_s):
                return await self._http.post(url, content=event.body, headers=headers), ""
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as error:
            return None, repr(error)

    def _carry_out(self, call: str, event: _Event, body: bytes, perform: Perform) -> None:
        if body in event.replies:
            self.ledger.add("reply-repeated", call, id=event.id, type=event.type)
            return
        event.replies.add(body)
        try:
            actions = actions_from_reply(json.loads(body) if body.strip() else None)
        except (ActionError, ValueError, RecursionError) as error:
            self.ledger.add("reply-malformed", call, id=event.id, error=str(error))
            return
        perform(actions)


class WebhookLane(Postbox[_Event]):
    """The webhooks of one call, one after another."""

    def __init__(
        self,
        sender: WebhookSender,
        call_id: str,
        url: str,
        describe: Callable[[], dict[str, Any]],
        perform: Perform,
    ) -> None:
        super().__init__(sender.options.reorder_wait_ms / 1000)
        self._sender = sender
        self._call = call_id
        self._url = url
        self._describe = describe
        self._perform = perform

    def post(self, type_: str, **more: Any) -> None:
        """Queue an event. Never waits."""
        seam = self._sender.seam
        event_id = f"ev-{seam.new_id()}"
        data = {
            "id": event_id,
            "type": type_,
            "at": seam.now_ms(),
            "call": self._describe(),
            **more,
        }
        self.put(_Event(event_id, type_, json.dumps(data).encode()))

    def _is_swapped(self, letter: _Event) -> bool:
        faults = self._sender.faults
        fault = faults.webhooks.of_type(letter.type)
        return faults.happens(fault.reorder, self._sender.seam)

    async def _deliver(self, letter: _Event) -> None:
        await self._sender.deliver(self._call, self._url, letter, self._perform)


def _comes_again(status: int) -> bool:
    """Whether a webhook with this answer is redelivered: the gateway had a fault or was busy."""
    return status >= 500 or status in (408, 429)
