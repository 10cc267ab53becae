"""The life of a call, from the queue (outbound) or the ringing (inbound) to the end."""

from __future__ import annotations

from dataclasses import dataclass

import anyio
import anyio.lowlevel

from voicecall.model import EndReason
from voicecall_mock.exchange.carrier import CallStats, EmulatedCall
from voicecall_mock.exchange.phone import run_phone
from voicecall_mock.exchange.script import AnswerMode, Behaviour

from .board import TwilioBoard, new_sid
from .connections import CallStreams
from .delivery import CallbackLane, Webhook, is_http_url
from .documents import ERROR_MESSAGE, Reply, Source, run_document
from .parameters import call_params, status_params
from .speech import TwilioLine
from .twiml import Gather, Play, Say, Stream, TwimlError

__all__ = ["Call", "CallPlan"]


@dataclass(slots=True, kw_only=True)
class CallPlan:
    """A call to make; updates may change it. ``direction`` is as in the REST resource, ``source``
    is the first document, ``timeout`` and ``time_limit`` are in protocol seconds."""

    direction: str
    from_number: str
    to_number: str
    source: Source
    fallback: Source | None = None
    status_callback: str = ""
    status_callback_method: str = "POST"
    status_callback_events: frozenset[str] = frozenset({"completed"})
    timeout: float = 60
    time_limit: float = 14_400
    send_digits: str = ""


class Call(EmulatedCall):
    plan: CallPlan
    line: TwilioLine
    _board: TwilioBoard
    _lane: CallbackLane

    def __init__(
        self, board: TwilioBoard, plan: CallPlan, behaviour: Behaviour, number_sid: str | None
    ) -> None:
        status = "queued" if plan.direction == "outbound-api" else "ringing"
        super().__init__(new_sid(board.seam, "CA"), board, plan, behaviour, status)
        self.account_sid = board.options.account_sid
        self.number_sid = number_sid
        self.call_token = board.seam.token()
        self.started_ms: int | None = None
        self.answered_ms: int | None = None
        self.ended_ms: int | None = None
        self.queue_ms = 0
        self._created_ms = board.seam.now_ms()
        self._sequence = 0
        self._document: anyio.CancelScope | None = None
        self._redirected: Source | None = None
        self._limit = anyio.CancelScope()
        self._lane = CallbackLane(board.sender, self.sid)
        self.line = TwilioLine(
            self.sid,
            board,
            lambda: self.end("completed", EndReason.HANGUP_USER),
            self._partial,
        )
        self.streams = CallStreams(board, self.sid, self.line, self._lane, self._tasks)

    @property
    def sid(self) -> str:
        return self.id

    @property
    def answered(self) -> bool:
        return self.answered_ms is not None

    @property
    def duration_s(self) -> int:
        """Protocol seconds from the answer to the end."""
        if self.answered_ms is None or self.ended_ms is None:
            return 0
        return round((self.ended_ms - self.answered_ms) / 1000 / self._board.options.second_s)

    @property
    def stats(self) -> CallStats:
        return CallStats.of(self.line, self.streams.all)

    # --- life ---------------------------------------------------------------------------------

    async def _proceed(self) -> None:
        await self._board.voice.prepare(self._behaviour.script)
        if self.plan.direction == "outbound-api":
            await self._dial()
        else:
            self.started_ms = self._board.seam.now_ms()
            self._tasks.start_soon(self._give_up_calling)
        await self._follow(self.plan.source)

    def end(self, status: str, reason: EndReason) -> None:
        """End the call; idempotent."""
        if self.over.is_set():
            return
        self.streams.end()
        self.status = status
        self.reason = reason
        self.ended_ms = self._board.seam.now_ms()
        self.over.set()
        self._progress("completed", status)
        self._lane.finish()
        self._board.ledger.add(
            "ended", self.sid, status=status, reason=reason, duration=self.duration_s
        )
        self._live.cancel()

    def _progress(self, event: str, status: str) -> None:
        """Send a status callback, if the plan asks for it."""
        sequence, self._sequence = self._sequence, self._sequence + 1
        plan = self.plan
        if plan.status_callback and event in plan.status_callback_events:
            params = status_params(self, status, sequence, self._board.seam.now_ms())
            self._lane.post("status", plan.status_callback, plan.status_callback_method, params)

    async def _dial(self) -> None:
        """Dial, and return once the call is answered; otherwise the call ends."""
        board = self._board
        await board.dialler.turn()
        # A request may have ended the call in the same iteration of the event loop.
        await anyio.lowlevel.checkpoint_if_cancelled()
        self.started_ms = board.seam.now_ms()
        self.queue_ms = self.started_ms - self._created_ms
        self._progress("initiated", "initiated")
        match self._behaviour.answer:
            case AnswerMode.UNREACHABLE:
                self.end("failed", EndReason.FAILED)
            case AnswerMode.BUSY:
                self.end("busy", EndReason.BUSY)
            case _:
                self.status = "ringing"
                self._progress("ringing", "ringing")
        with anyio.move_on_after(self.plan.timeout * board.options.second_s):
            if await self._decision():
                self.answer()
            else:
                self.end("busy", EndReason.BUSY)
        if not self.answered:
            self.end("no-answer", EndReason.NO_ANSWER)
            await anyio.sleep_forever()

    async def _give_up_calling(self) -> None:
        """Hang up if the call is not answered: ``canceled`` according to Twilio's help on call
        statuses."""
        await anyio.sleep(self._board.options.answer_timeout_s)
        if not self.answered:
            self.end("canceled", EndReason.HANGUP_USER)

    def answer(self) -> None:
        if self.answered or self.over.is_set():
            return
        self.status = "in-progress"
        self.answered_ms = self._board.seam.now_ms()
        self.line.last_heard_at = self._board.seam.monotonic()
        self._board.ledger.add("answered", self.sid)
        self._progress("answered", "in-progress")
        self._tasks.start_soon(self._limit_time)
        self._tasks.start_soon(run_phone, self._behaviour.script, self.line)
        if self._behaviour.patience_s is not None:
            self._tasks.start_soon(self.line.be_patient, self._behaviour.patience_s)

    async def _limit_time(self) -> None:
        """End the call at its limit, which counts from the answer and may change meanwhile."""
        began = anyio.current_time()
        while True:
            with anyio.CancelScope() as self._limit:
                limit_s = self.plan.time_limit * self._board.options.second_s
                await anyio.sleep_until(began + limit_s)
                self.end("completed", EndReason.COMPLETED)

    # --- updates ------------------------------------------------------------------------------

    def limit(self, seconds: float) -> None:
        """Set the time limit, in protocol seconds from the answer."""
        self.plan.time_limit = seconds
        self._limit.cancel()

    def cancel(self) -> None:
        """End the call for the customer: as ``canceled`` if it was not answered."""
        self.end("completed" if self.answered else "canceled", EndReason.COMPLETED)

    def redirect(self, source: Source) -> None:
        """Break off the running document and go on with another."""
        self._redirected = source
        if self._document is not None:
            self._document.cancel()

    # --- documents ----------------------------------------------------------------------------

    async def _follow(self, first: Source) -> None:
        source: Source | None = first
        digits = self.plan.send_digits
        while source is not None:
            following = None
            with anyio.CancelScope() as self._document:
                if digits:
                    played, digits = digits, ""
                    await self.line.native.play(Play(played))
                following = await self._run_document(source)
            if self._redirected is not None:
                following, self._redirected = self._redirected, None
            source = following
        self.answer()
        self.end("completed", EndReason.COMPLETED)

    async def _run_document(self, source: Source) -> Source | None:
        try:
            return await run_document(source, self, self.line.native)
        except TwimlError as error:
            self._error(error.code, str(error))
            fallback = self.plan.fallback
            if fallback is not None and source.type != "fallback":
                params = {"ErrorCode": str(error.code), "ErrorUrl": source.url}
                hops = source.hops + 1
                return Source("fallback", fallback.url, fallback.method, params, hops=hops)
        self.answer()
        await self.line.native.play(Say(ERROR_MESSAGE))
        self.end("completed", EndReason.ERROR)
        return None

    async def fetch(self, source: Source) -> Reply:
        params = call_params(self) | dict(source.params)
        self._board.ledger.add("document", self.sid, type=source.type, url=source.url)
        webhook = Webhook(self.sid, source.type, source.url, source.method, params)
        reply = await self._board.sender.fetch(webhook)
        return Reply(reply.content, reply.headers.get("content-type", ""))

    def reject(self, reason: str) -> None:
        busy = reason == "busy"
        self.end("busy" if busy else "no-answer", EndReason.BUSY if busy else EndReason.NO_ANSWER)

    def hang_up(self) -> None:
        self.end("completed", EndReason.COMPLETED)

    def _error(self, code: int, message: str) -> None:
        self._board.ledger.add("error", self.sid, code=code, message=message)

    def _partial(self, verb: Gather, text: str) -> None:
        """Post an interim result, if the ``<Gather>`` asks for it."""
        if verb.partial_result_callback and is_http_url(verb.partial_result_callback):
            params = call_params(self) | {"UnstableSpeechResult": text, "Stability": "0.5"}
            self._lane.post(
                "partial",
                verb.partial_result_callback,
                verb.partial_result_callback_method,
                params,
            )

    async def connect_stream(self, verb: Stream) -> None:
        await self.streams.connect(verb)
