"""The emulator: one account with its numbers, calls and phones behind one REST server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import anyio
import anyio.abc

from voicecall.seam import Seam, SystemSeam
from voicecall.tts import SpeechProvider
from voicecall_mock.exchange.ledger import Ledger
from voicecall_mock.exchange.phonebook import Phonebook
from voicecall_mock.exchange.script import Behaviour, Script, default_script
from voicecall_mock.exchange.server import serve_app
from voicecall_mock.exchange.sockets import MediaClock
from voicecall_mock.exchange.voice import Voice

from .board import Dialler, TwilioBoard, new_sid
from .calls import Call, CallPlan
from .delivery import Signer, WebhookSender
from .faults import Faults
from .numbers import PhoneNumber
from .options import TwilioOptions
from .rest import make_app

__all__ = ["NoVoiceUrl", "TwilioEmulator"]


class NoVoiceUrl(LookupError):
    """A phone calls a number that is not the account's, or that has no VoiceUrl."""


class TwilioEmulator(Phonebook[Call]):
    """Twilio on loopback, with phones that follow scripts.

    ``speech`` gives the phones a voice on media streams; without it they are silent there, unless
    a step of their script brings its own audio. ::

        async with TwilioEmulator(options, speech=provider).serve() as twilio:
            call_sid = twilio.dial_in("+15550100001", "+15550100000")
            reason = await twilio.ended(call_sid)

    The ledger's kinds: ``dialled``, ``document``, ``webhook``, ``webhook-lost``,
    ``webhook-given-up``, ``answered``, ``heard``, ``said``, ``speech-unheard``, ``digits-heard``,
    ``digits-pressed``, ``digits-unheard``, ``update``, ``stream-opened``, ``stream-closed``,
    ``stream-dropped``, ``stream-stalled``, ``warning``, ``error`` (both with Twilio's code),
    ``ended``, and, of no call, ``request`` and ``speech-failed``.
    """

    def __init__(
        self,
        options: TwilioOptions | None = None,
        *,
        seam: Seam | None = None,
        speech: SpeechProvider | None = None,
    ) -> None:
        self.options = options or TwilioOptions()
        self.seam: Seam = seam or SystemSeam()
        super().__init__(Ledger(self.seam), keep_calls=self.options.keep_calls)
        self.faults = Faults(self.options.seed)
        self.numbers: dict[str, PhoneNumber] = {
            number: PhoneNumber(
                sid=new_sid(self.seam, "PN"),
                number=number,
                created_ms=self.seam.now_ms(),
                voice_url=self.options.voice_url,
                status_callback=self.options.status_callback,
            )
            for number in self.options.numbers
        }
        self.caller_ids: dict[str, str] = {
            number: new_sid(self.seam, "PN") for number in self.options.caller_ids
        }
        """SIDs of verified numbers."""
        self.base_url = ""
        """Of the REST side, while it is served."""
        self._speech = speech
        self._tasks: anyio.abc.TaskGroup | None = None
        self._board: TwilioBoard | None = None

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[TwilioEmulator]:
        """Listen until left; calls that are still up are cut off then. Raises ``OSError`` (the
        port is taken) and :exc:`voicecall.errors.PluginError` (Twilio's SDK is not installed)."""
        options = self.options
        signer = Signer(options)
        async with AsyncExitStack() as stack:
            if self._speech is not None:
                await stack.enter_async_context(self._speech.lifespan())
            sender = WebhookSender(options, self.seam, self.faults, self.ledger, signer)
            await stack.enter_async_context(sender)
            clock = MediaClock(self.seam)
            self._board = TwilioBoard(
                options=options,
                seam=self.seam,
                ledger=self.ledger,
                voice=Voice(self._speech, options.voice, self.ledger),
                clock=clock,
                sender=sender,
                signer=signer,
                faults=self.faults,
                dialler=Dialler(self.seam, options.calls_per_second),
            )
            async with anyio.create_task_group() as tasks:
                self._tasks = tasks
                tasks.start_soon(clock.run)
                server = serve_app(make_app(self), options.host, options.port)
                try:
                    async with server as self.base_url:
                        yield self
                finally:
                    self._tasks = None
                    tasks.cancel_scope.cancel()

    # --- phones -------------------------------------------------------------------------------

    def set_voice_url(self, url: str, *, status_callback: str = "") -> None:
        """Set VoiceUrl and StatusCallback of every number, as an operator does in the console."""
        for number in self.numbers.values():
            number.update({"VoiceUrl": url, "StatusCallback": status_callback})

    def dial_in(
        self,
        number: str,
        to: str,
        script: Script | None = None,
        *,
        patience_s: float | None = None,
    ) -> str:
        """The phone ``number`` calls ``to``; the call's SID. Without a script it does what the
        default phone does. Raises :exc:`NoVoiceUrl`."""
        ours = self.numbers.get(to)
        if ours is None or not ours.voice_url:
            raise NoVoiceUrl(f"{to} has no VoiceUrl")
        plan = CallPlan(
            direction="inbound",
            from_number=number,
            to_number=to,
            source=ours.source,
            fallback=ours.fallback,
            status_callback=ours.status_callback,
            status_callback_method=ours.status_callback_method,
            time_limit=self.options.longest_call_s,
        )
        steps = default_script() if script is None else tuple(script)
        return self._begin(plan, Behaviour(steps, patience_s=patience_s)).sid

    def dial(self, plan: CallPlan) -> Call:
        """A customer calls a phone."""
        return self._begin(plan, self._called(plan.to_number))

    def _begin(self, plan: CallPlan, behaviour: Behaviour) -> Call:
        if self._tasks is None or self._board is None:
            raise RuntimeError("the emulator is not being served")
        ours = plan.to_number if plan.direction == "inbound" else plan.from_number
        number = self.numbers.get(ours)
        sid = self.caller_ids[ours] if number is None else number.sid
        call = Call(self._board, plan, behaviour, sid)
        self._remember(call)
        self.ledger.add(
            "dialled",
            call.sid,
            direction=plan.direction,
            **{"from": plan.from_number, "to": plan.to_number},
        )
        self._tasks.start_soon(call.run)
        return call
