"""The mock carrier's exchange: calls, phones and numbers behind one REST server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.types import ASGIApp

from voicecall.model import Direction
from voicecall.seam import Seam
from voicecall.tts import SpeechProvider

from .calls import Call, CallPlan, ExchangeBoard
from .carrier import EmulatedCarrier
from .faults import Faults
from .options import ExchangeOptions
from .rest import make_app
from .script import Behaviour
from .sockets import MediaClock
from .voice import Voice
from .webhooks import WebhookSender

__all__ = ["Exchange", "NoWebhook"]


class NoWebhook(LookupError):
    """A phone calls in, but no gateway has registered a webhook for inbound calls."""


class Exchange(EmulatedCarrier[Call, CallPlan, ExchangeBoard]):
    """A telephone exchange on loopback. ::

        async with Exchange(ExchangeOptions(), speech=provider).serve() as exchange:
            call_id = exchange.dial_in("+15550001111", "+15550002222")
            reason = await exchange.ended(call_id)

    ``dial_in`` raises :exc:`NoWebhook` while ``inbound_webhook`` is not set.
    """

    options: ExchangeOptions

    def __init__(
        self,
        options: ExchangeOptions | None = None,
        *,
        seam: Seam | None = None,
        speech: SpeechProvider | None = None,
    ) -> None:
        super().__init__(seam, speech)
        self.options = options or ExchangeOptions()
        self.faults = Faults()
        self.inbound_webhook: str | None = None

    def _app(self) -> ASGIApp:
        return make_app(self)

    @asynccontextmanager
    async def _switchboard(self, voice: Voice, clock: MediaClock) -> AsyncIterator[ExchangeBoard]:
        async with WebhookSender(self.options, self.seam, self.faults, self.ledger) as sender:
            yield ExchangeBoard(
                options=self.options,
                seam=self.seam,
                ledger=self.ledger,
                voice=voice,
                clock=clock,
                sender=sender,
            )

    def _inbound(self, number: str, to: str) -> CallPlan:
        if self.inbound_webhook is None:
            raise NoWebhook("no webhook is registered for inbound calls")
        return CallPlan(
            direction=Direction.INBOUND,
            from_number=number,
            to_number=to,
            webhook_url=self.inbound_webhook,
            ring_timeout_s=self.options.answer_timeout_s,
            time_limit_s=self.options.inbound_time_limit_s,
        )

    def _call(self, board: ExchangeBoard, plan: CallPlan, behaviour: Behaviour) -> Call:
        return Call(board, plan, behaviour)
