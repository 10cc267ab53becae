"""The emulator: a REST server for one account with its numbers, calls and phones."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.types import ASGIApp

from voicecall.seam import Seam
from voicecall.tts import SpeechProvider
from voicecall_mock.exchange.carrier import EmulatedCarrier
from voicecall_mock.exchange.script import Behaviour
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
    """A phone calls a number that does not belong to the account or has no VoiceUrl."""


class TwilioEmulator(EmulatedCarrier[Call, CallPlan, TwilioBoard]):
    """Twilio on loopback, with phones that follow scripts. ::

        async with TwilioEmulator(options, speech=provider).serve() as twilio:
            call_sid = twilio.dial_in("+15550100001", "+15550100000")
            reason = await twilio.ended(call_sid)

    ``serve`` raises :exc:`voicecall.errors.PluginError` if Twilio's SDK is not installed.
    ``dial_in`` raises :exc:`NoVoiceUrl`.

    Kinds of ledger entries: ``dialled``, ``document``, ``webhook``, ``webhook-lost``,
    ``webhook-given-up``, ``answered``, ``heard``, ``said``, ``speech-unheard``, ``digits-heard``,
    ``digits-pressed``, ``digits-unheard``, ``update``, ``stream-opened``, ``stream-closed``,
    ``stream-dropped``, ``stream-stalled``, ``parameters-ignored``, ``warning``, ``error`` (both
    with Twilio's code), ``ended``, and, without a call, ``request`` and ``speech-failed``.
    """

    options: TwilioOptions

    def __init__(
        self,
        options: TwilioOptions | None = None,
        *,
        seam: Seam | None = None,
        speech: SpeechProvider | None = None,
    ) -> None:
        super().__init__(seam, speech)
        self.options = options or TwilioOptions()
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
        """SIDs of the verified numbers."""

    def _app(self) -> ASGIApp:
        return make_app(self)

    @asynccontextmanager
    async def _switchboard(self, voice: Voice, clock: MediaClock) -> AsyncIterator[TwilioBoard]:
        options = self.options
        signer = Signer(options)
        async with WebhookSender(options, self.seam, self.faults, self.ledger, signer) as sender:
            yield TwilioBoard(
                options=options,
                seam=self.seam,
                ledger=self.ledger,
                voice=voice,
                clock=clock,
                sender=sender,
                signer=signer,
                faults=self.faults,
                dialler=Dialler(self.seam, options.calls_per_second),
            )

    # --- phones -------------------------------------------------------------------------------

    def set_voice_url(self, url: str, *, status_callback: str = "") -> None:
        """Set VoiceUrl and StatusCallback of every number, as an operator would in the console."""
        for number in self.numbers.values():
            number.update({"VoiceUrl": url, "StatusCallback": status_callback})

    def _inbound(self, number: str, to: str) -> CallPlan:
        ours = self.numbers.get(to)
        if ours is None or not ours.voice_url:
            raise NoVoiceUrl(f"{to} has no VoiceUrl")
        return CallPlan(
            direction="inbound",
            from_number=number,
            to_number=to,
            source=ours.source,
            fallback=ours.fallback,
            status_callback=ours.status_callback,
            status_callback_method=ours.status_callback_method,
            time_limit=self.options.longest_call_s,
        )

    def _call(self, board: TwilioBoard, plan: CallPlan, behaviour: Behaviour) -> Call:
        ours = plan.to_number if plan.direction == "inbound" else plan.from_number
        number = self.numbers.get(ours)
        sid = self.caller_ids[ours] if number is None else number.sid
        return Call(board, plan, behaviour, sid)
