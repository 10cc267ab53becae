"""Calls: from ringing to the end, and the actions of a gateway."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import anyio

from voicecall import telephony as tel
from voicecall.model import Direction, EndReason

from .actions import ActionRefused
from .board import Switchboard
from .carrier import CallStats, EmulatedCall
from .line import PhoneLine
from .native import digits_s, speaking_s
from .options import ExchangeOptions
from .phone import run_phone
from .script import AnswerMode, Behaviour
from .streams import MediaStream
from .webhooks import WebhookLane, WebhookSender

__all__ = ["Call", "CallPlan", "ExchangeBoard"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CallPlan:
    """A call to make. ``digits`` are played first, when the phone has answered;
    ``ring_timeout_s`` is also how long an inbound call waits for an answer."""

    direction: Direction
    from_number: str
    to_number: str
    webhook_url: str
    ring_timeout_s: float
    time_limit_s: float
    reference: str | None = None
    digits: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExchangeBoard(Switchboard):
    """What all calls of an exchange share."""

    options: ExchangeOptions
    sender: WebhookSender


class Call(EmulatedCall):
    plan: CallPlan
    line: PhoneLine
    _board: ExchangeBoard
    _lane: WebhookLane

    def __init__(self, board: ExchangeBoard, plan: CallPlan, behaviour: Behaviour) -> None:
        super().__init__(f"mk-{board.seam.new_id()}", board, plan, behaviour, "ringing")
        self._answered = anyio.Event()
        self._answered_at = 0.0
        self._held: list[tel.Action] | None = None
        self._stream: MediaStream | None = None
        self._streams: list[MediaStream] = []
        self._lane = WebhookLane(
            board.sender, self.id, plan.webhook_url, self._describe, self._perform_reply
        )
        self.line = PhoneLine(self.id, board, self._post, lambda: self.end(EndReason.HANGUP_USER))

    def to_json(self) -> dict[str, Any]:
        return super().to_json() | {"reference": self.plan.reference}

    def _describe(self) -> dict[str, Any]:
        data = self.to_json()
        return {key: data[key] for key in ("id", "direction", "from", "to", "reference")}

    @property
    def stats(self) -> CallStats:
        return CallStats.of(self.line, self._streams)

    # --- life -------------------------------------------------------------------------------

    async def _proceed(self) -> None:
        await self._ring()
        await self._talk()

    def end(self, reason: EndReason) -> None:
        """End the call. Idempotent."""
        if self.reason is not None:
            return
        self._post("call.ended", reason=reason)
        self._lane.finish()
        self.status = "ended"
        self.reason = reason
        self._board.ledger.add("ended", self.id, reason=reason)
        if self._stream is not None:
            self._stream.stop("ended")
        self.over.set()
        self._live.cancel()

    def _post(self, type_: str, **more: Any) -> None:
        if self.reason is None:
            self._lane.post(type_, **more)

    async def _ring(self) -> None:
        """Return when answered; otherwise the call has ended."""
        inbound = self.plan.direction is Direction.INBOUND
        if not inbound:
            match self._behaviour.answer:
                case AnswerMode.UNREACHABLE:
                    self.end(EndReason.FAILED)
                case AnswerMode.BUSY:
                    self.end(EndReason.BUSY)
                case _:
                    self._post("call.ringing")
        # The phone's voice is synthesised before ringing is timed: no part of a call waits for it.
        await self._board.voice.prepare(self._behaviour.script)
        if inbound:
            self._post("call.initiated")
        with anyio.move_on_after(self.plan.ring_timeout_s):
            if inbound:
                await self._answered.wait()
            elif await self._decision():
                self._pick_up()
            else:
                self.end(EndReason.BUSY)
        if not self._answered.is_set():
            self.end(EndReason.NO_ANSWER)
            await anyio.sleep_forever()

    def _pick_up(self) -> None:
        self.status = "in-progress"
        self._answered_at = self.line.last_heard_at = self._board.seam.monotonic()
        self._board.ledger.add("answered", self.id)
        if self.plan.digits:
            self._held = []
        self._answered.set()
        self._post("call.answered")

    async def _talk(self) -> None:
        tasks = self._tasks
        tasks.start_soon(self._limit_time, self.plan.time_limit_s)
        tasks.start_soon(self.line.native.run)
        if self._behaviour.patience_s is not None:
            tasks.start_soon(self.line.be_patient, self._behaviour.patience_s)
        if self.plan.digits:
            await anyio.sleep(digits_s(self.plan.digits, self._board.options))
            self.line.hear_digits(self.plan.digits)
            held, self._held = self._held or [], None
            for action in held:
                self._do(action)
        await run_phone(self._behaviour.script, self.line)

    async def _limit_time(self, seconds: float) -> None:
        """End the call ``seconds`` after its answer; of several limits the shortest counts."""
        await anyio.sleep(self._answered_at + seconds - self._board.seam.monotonic())
        self.end(EndReason.COMPLETED)

    # --- actions ----------------------------------------------------------------------------

    def perform(self, action: tel.Action) -> None:
        """Carry out an action. Raises :exc:`ActionRefused`."""
        name = type(action).__name__
        try:
            self._check(action)
        except ActionRefused as error:
            self._board.ledger.add("action-refused", self.id, action=name, error=str(error))
            raise
        self._board.ledger.add("action", self.id, action=name)
        if self._held is not None and not isinstance(action, tel.Hangup):
            self._held.append(action)
        else:
            self._do(action)

    def _perform_reply(self, actions: Sequence[tel.Action]) -> None:
        for action in actions:
            try:
                self.perform(action)
            except ActionRefused:
                continue  # in the ledger; the rest of the reply is still carried out

    def _check(self, action: tel.Action) -> None:
        if self.reason is not None:
            raise ActionRefused("the call is over")
        inbound = self.plan.direction is Direction.INBOUND
        if isinstance(action, tel.Answer | tel.Reject):
            if not inbound:
                raise ActionRefused("the call is outbound")
        elif self.status == "ringing" and not isinstance(action, tel.Hangup):
            raise ActionRefused("the call is not answered")

    def _do(self, action: tel.Action) -> None:
        native = self.line.native
        match action:
            case tel.Answer(stream):
                if not self._answered.is_set():
                    self._pick_up()
                    if stream is not None:
                        self._attach(stream)
            case tel.Reject(text, busy):
                self._tasks.start_soon(self._refuse, text or "", busy)
            case tel.Speak():
                native.speak(action)
            case tel.Listen():
                native.listen(action)
            case tel.StopListening():
                native.listen(None)
            case tel.PlayDigits(digits):
                self.line.hear_digits(digits)
            case tel.AttachStream(stream):
                self._attach(stream)
            case tel.LimitDuration(seconds):
                self._tasks.start_soon(self._limit_time, seconds)
            case tel.Hangup():
                self.end(EndReason.COMPLETED)

    async def _refuse(self, text: str, busy: bool) -> None:
        if text:
            await anyio.sleep(speaking_s(text, self._board.options))
            self.line.hear_text(text)
        self.end(EndReason.BUSY if busy else EndReason.COMPLETED)

    # --- media stream -----------------------------------------------------------------------

    def _attach(self, request: tel.StreamRequest) -> None:
        if self._stream is not None:
            self._stream.stop("replaced")
        stream = MediaStream(request, self.id, self, self._board)
        self._stream = stream
        self._streams.append(stream)
        self._tasks.start_soon(stream.run)

    def stream_opened(self, stream: MediaStream) -> None:
        self._board.ledger.add("stream-opened", self.id, stream=stream.id, url=stream.url)
        if stream is self._stream:
            self.line.attach(stream)

    def stream_closed(self, stream: MediaStream) -> None:
        error = stream.error
        self._board.ledger.add("stream-closed", self.id, stream=stream.id, error=error)
        if stream is self._stream:
            self._stream = None
            self.line.attach(None)
            if error is not None:
                self._post("call.stream-failed", error=error, stream=stream.id)
