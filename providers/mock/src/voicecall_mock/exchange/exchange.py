"""The exchange: calls, phones and numbers behind one REST server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import anyio
import anyio.abc

from voicecall.model import Direction, EndReason
from voicecall.seam import Seam, SystemSeam
from voicecall.tts import SpeechProvider

from .calls import Call, CallPlan, CallStats, Switchboard
from .faults import Faults
from .ledger import Ledger
from .options import ExchangeOptions
from .rest import make_app
from .script import Behaviour, Script, default_script
from .server import serve_app
from .streams import MediaClock
from .voice import Voice
from .webhooks import WebhookSender

__all__ = ["Exchange", "NoWebhook"]


class NoWebhook(LookupError):
    """A phone calls in, but no gateway has said where inbound calls go."""


class Exchange:
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
        self.ledger = Ledger(self.seam)
        self.faults = Faults()
        self.calls: dict[str, Call] = {}
        self.base_url = ""
        """Of the REST side, while it is served."""
        self.inbound_webhook: str | None = None
        self._speech = speech
        self._phones: dict[str, Behaviour] = {}
        self._tasks: anyio.abc.TaskGroup | None = None
        self._board: Switchboard | None = None

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[Exchange]:
        """Listen until left; calls that are still up are cut off then."""
        async with AsyncExitStack() as stack:
            if self._speech is not None:
                await stack.enter_async_context(self._speech.lifespan())
            sender = WebhookSender(self.options, self.seam, self.faults, self.ledger)
            await stack.enter_async_context(sender)
            clock = MediaClock(self.seam)
            voice = Voice(self._speech, self.options.voice, self.ledger)
            self._board = Switchboard(self.options, self.seam, self.ledger, voice, clock, sender)
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

    def set_phone(self, number: str, behaviour: Behaviour | Script) -> None:
        """What the phone with this number does when it is called."""
        if not isinstance(behaviour, Behaviour):
            behaviour = Behaviour(tuple(behaviour))
        self._phones[number] = behaviour

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
        return self._begin(plan, self._phones.get(plan.to_number) or Behaviour(default_script()))

    def _begin(self, plan: CallPlan, behaviour: Behaviour) -> str:
        if self._tasks is None or self._board is None:
            raise RuntimeError("the exchange is not being served")
        call = Call(self._board, plan, behaviour)
        self._forget_oldest()
        self.calls[call.id] = call
        self.ledger.add(
            "dialled",
            call.id,
            direction=plan.direction,
            reference=plan.reference,
            **{"from": plan.from_number, "to": plan.to_number},
        )
        self._tasks.start_soon(call.run)
        return call.id

    def _forget_oldest(self) -> None:
        if len(self.calls) >= self.options.keep_calls:
            over = (call.id for call in self.calls.values() if call.over.is_set())
            if (oldest := next(over, None)) is not None:
                del self.calls[oldest]

    # --- looking on -------------------------------------------------------------------------

    async def ended(self, call_id: str) -> EndReason:
        """Wait for the end of a call. Raises ``KeyError`` for one that never was."""
        call = self.calls[call_id]
        await call.over.wait()
        if call.reason is None:
            raise RuntimeError("a call is over without a reason")
        return call.reason

    def stats(self, call_id: str) -> CallStats:
        """Figures of a call so far. Raises ``KeyError``."""
        return self.calls[call_id].stats

    def recording(self, call_id: str) -> bytes:
        """WAV, 8 kHz, 16 bit, stereo: left the phone, right what it heard. Raises ``KeyError``."""
        return self.calls[call_id].line.recording.wav()

    def report(self, call_id: str | None = None) -> Mapping[str, Any]:
        """The ledger as JSON: ``entries``, and ``calls`` with their ``stats``."""
        return {
            "entries": self.ledger.entries(call=call_id),
            "calls": [
                {**call.to_json(), "stats": call.stats.to_json()}
                for call in self.calls.values()
                if call_id in (None, call.id)
            ],
        }
