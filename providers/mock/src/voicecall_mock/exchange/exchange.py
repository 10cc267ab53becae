"""The exchange: calls, phones and numbers behind one REST server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import anyio
import anyio.abc

from voicecall.model import Direction
from voicecall.seam import Seam, SystemSeam
from voicecall.tts import SpeechProvider

from .calls import Call, CallPlan, ExchangeBoard
from .faults import Faults
from .ledger import Ledger
from .options import ExchangeOptions
from .phonebook import Phonebook
from .rest import make_app
from .script import Behaviour, Script, default_script
from .server import serve_app
from .sockets import MediaClock
from .voice import Voice
from .webhooks import WebhookSender

__all__ = ["Exchange", "NoWebhook"]


class NoWebhook(LookupError):
    """A phone calls in, but no gateway has said where inbound calls go."""


class Exchange(Phonebook[Call]):
    """A telephone exchange on loopback.

    ``speech`` gives the phones a voice on media streams; without it they are silent there, unless
    a step of their script brings its own audio. ::

        async with Exchange(ExchangeOptions(), speech=provider).serve() as exchange:
            call_id = exchange.dial_in("+15550001111", "+15550002222")
            reason = await exchange.ended(call_id)
    """

    def __init__(
        self,
        options: ExchangeOptions | None = None,
        *,
        seam: Seam | None = None,
        speech: SpeechProvider | None = None,
    ) -> None:
        self.options = options or ExchangeOptions()
        self.seam: Seam = seam or SystemSeam()
        super().__init__(Ledger(self.seam), keep_calls=self.options.keep_calls)
        self.faults = Faults()
        self.base_url = ""
        """Of the REST side, while it is served."""
        self.inbound_webhook: str | None = None
        self._speech = speech
        self._tasks: anyio.abc.TaskGroup | None = None
        self._board: ExchangeBoard | None = None

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[Exchange]:
        """Listen until left; calls that are still up are cut off then."""
        async with AsyncExitStack() as stack:
            if self._speech is not None:
                await stack.enter_async_context(self._speech.lifespan())
            sender = WebhookSender(self.options, self.seam, self.faults, self.ledger)
            await stack.enter_async_context(sender)
            clock = MediaClock(self.seam)
            self._board = ExchangeBoard(
                options=self.options,
                seam=self.seam,
                ledger=self.ledger,
                voice=Voice(self._speech, self.options.voice, self.ledger),
                clock=clock,
                sender=sender,
            )
            async with anyio.create_task_group() as tasks:
                self._tasks = tasks
                tasks.start_soon(clock.run)
                server = serve_app(make_app(self), self.options.host, self.options.port)
                try:
                    async with server as self.base_url:
                        yield self
                finally:
                    self._tasks = None
                    tasks.cancel_scope.cancel()

    # --- phones -----------------------------------------------------------------------------

    def dial_in(
        self,
        number: str,
        to: str,
        script: Script | None = None,
        *,
        patience_s: float | None = None,
    ) -> str:
        """The phone ``number`` calls ``to``; the id of the call. Without a script it does what
        the default phone does. Raises :exc:`NoWebhook`."""
        if self.inbound_webhook is None:
            raise NoWebhook("no webhook is registered for inbound calls")
        plan = CallPlan(
            direction=Direction.INBOUND,
            from_number=number,
            to_number=to,
            webhook_url=self.inbound_webhook,
            ring_timeout_s=self.options.answer_timeout_s,
            time_limit_s=self.options.inbound_time_limit_s,
        )
        steps = default_script() if script is None else tuple(script)
        return self._begin(plan, Behaviour(steps, patience_s=patience_s))

    def dial(self, plan: CallPlan) -> str:
        """A gateway calls a phone; the id of the call."""
        return self._begin(plan, self._called(plan.to_number))

    def _begin(self, plan: CallPlan, behaviour: Behaviour) -> str:
        if self._tasks is None or self._board is None:
            raise RuntimeError("the exchange is not being served")
        call = Call(self._board, plan, behaviour)
        self._remember(call)
        self.ledger.add(
            "dialled",
            call.id,
            direction=plan.direction,
            reference=plan.reference,
            **{"from": plan.from_number, "to": plan.to_number},
        )
        self._tasks.start_soon(call.run)
        return call.id
