"""What every emulated carrier has: a REST server on loopback, phones, and calls to inspect."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from typing import Any, Generic, Protocol, Self, TypeVar

import anyio
import anyio.abc
import anyio.lowlevel
from starlette.types import ASGIApp

from voicecall.model import EndReason
from voicecall.seam import Seam, SystemSeam
from voicecall.tts import SpeechProvider

from .board import Switchboard
from .ledger import Ledger
from .line import CarrierLine
from .options import PhoneOptions
from .postbox import Postbox
from .script import AnswerMode, Behaviour, Script, default_script
from .server import serve_app
from .sockets import MediaClock, SocketStream
from .voice import Voice

__all__ = ["CallStats", "EmulatedCall", "EmulatedCarrier", "EmulatedPlan"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CallStats:
    """One call as its phone experienced it. ``log``: ("said" | "heard", text) in order, without
    the far side's audio of a stream, which has no text. ``barge_in_stop_ms``, ``response_ms``: see
    ``meter``; ``underruns``: see ``playback``; ``dropped_bytes``: audio that did not fit into the
    playback buffer."""

    log: tuple[tuple[str, str], ...]
    digits_heard: str
    digits_pressed: str
    streams: int
    barge_in_stop_ms: tuple[float, ...]
    response_ms: tuple[float, ...]
    underruns: int
    dropped_bytes: int
    recorded_ms: int

    @classmethod
    def of(cls, line: CarrierLine, streams: Sequence[SocketStream]) -> CallStats:
        """The figures of a line and of all its media streams."""
        return cls(
            log=tuple(line.log),
            digits_heard=line.digits_heard,
            digits_pressed=line.digits_pressed,
            streams=len(streams),
            barge_in_stop_ms=tuple(line.meter.barge_in_stop_ms),
            response_ms=tuple(line.meter.response_ms),
            underruns=sum(stream.playback.underruns for stream in streams),
            dropped_bytes=sum(stream.playback.dropped for stream in streams),
            recorded_ms=line.recording.duration_ms,
        )

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


class EmulatedPlan(Protocol):
    """A call to make: what all carriers have in common."""

    @property
    def direction(self) -> str: ...

    @property
    def from_number(self) -> str: ...

    @property
    def to_number(self) -> str: ...


class EmulatedCall(ABC):
    """One call. ``run`` runs it to its end; all other methods are synchronous. A carrier provides
    the ``line``, and ``_lane`` for the webhooks to its customer; ``status`` is in its terms."""

    plan: EmulatedPlan
    line: CarrierLine
    _board: Switchboard
    _lane: Postbox[Any]

    def __init__(
        self, id_: str, board: Switchboard, plan: EmulatedPlan, behaviour: Behaviour, status: str
    ) -> None:
        self.id = id_
        self.plan = plan
        self.status = status
        self.reason: EndReason | None = None
        self.over = anyio.Event()
        self._board = board
        self._behaviour = behaviour
        self._live = anyio.CancelScope()
        self._tasks = anyio.create_task_group()

    @property
    @abstractmethod
    def stats(self) -> CallStats: ...

    def to_json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "status": self.status,
            "reason": self.reason,
            "from": self.plan.from_number,
            "to": self.plan.to_number,
            "direction": self.plan.direction,
        }

    async def run(self) -> None:
        """Return when the call is over and its last webhook was delivered or given up."""
        async with anyio.create_task_group() as group:
            group.start_soon(self._lane.run)
            with self._live:
                async with self._tasks:
                    await self._proceed()

    @abstractmethod
    async def _proceed(self) -> None:
        """The whole call; cancelled when it ends."""

    async def _decision(self) -> bool:
        """Ring until the called phone decides; returns whether it answers."""
        after_ms = self._behaviour.after_ms
        if self._behaviour.answer is AnswerMode.NO_ANSWER:
            await anyio.sleep_forever()
        await anyio.sleep(
            (self._board.options.answer_after_ms if after_ms is None else after_ms) / 1000
        )
        # The call may have ended in the same iteration of the event loop.
        await anyio.lowlevel.checkpoint_if_cancelled()
        return self._behaviour.answer is not AnswerMode.REJECT


_DIALLED = ("direction", "reference", "from", "to")

CallT = TypeVar("CallT", bound=EmulatedCall)
PlanT = TypeVar("PlanT", bound=EmulatedPlan)
BoardT = TypeVar("BoardT", bound=Switchboard)


class EmulatedCarrier(ABC, Generic[CallT, PlanT, BoardT]):
    """A carrier on loopback, with phones that follow scripts. ``calls`` maps the carrier's ids to
    calls; when there are ``keep_calls`` of them, a new call replaces the oldest that is over.

    ``speech`` gives the phones a voice on media streams; without it they are silent there, except
    in steps of their script with ``audio``.
    """

    options: PhoneOptions

    def __init__(self, seam: Seam | None, speech: SpeechProvider | None) -> None:
        self.seam: Seam = seam or SystemSeam()
        self.ledger = Ledger(self.seam)
        self.calls: dict[str, CallT] = {}
        self.base_url = ""
        """URL of the REST side, while it is served."""
        self._speech = speech
        self._phones: dict[str, Behaviour] = {}
        self._tasks: anyio.abc.TaskGroup | None = None
        self._board: BoardT | None = None

    # --- what a carrier provides ------------------------------------------------------------

    @abstractmethod
    def _app(self) -> ASGIApp:
        """The REST side."""

    @abstractmethod
    def _switchboard(self, voice: Voice, clock: MediaClock) -> AbstractAsyncContextManager[BoardT]:
        """What the calls share while the carrier is served."""

    @abstractmethod
    def _inbound(self, number: str, to: str) -> PlanT:
        """A phone's call to ``to``. Raises ``LookupError`` if that number leads nowhere."""

    @abstractmethod
    def _call(self, board: BoardT, plan: PlanT, behaviour: Behaviour) -> CallT:
        """A call that has not been started yet."""

    # --- life -------------------------------------------------------------------------------

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[Self]:
        """Listen until the context is left, which cuts off calls that are still up. Raises
        ``OSError`` (the port is taken)."""
        async with AsyncExitStack() as stack:
            clock = MediaClock(self.seam)
            voice = Voice(self._speech, self.options.voice, self.ledger)
            self._board = await stack.enter_async_context(self._switchboard(voice, clock))
            if self._speech is not None:
                await stack.enter_async_context(self._speech.lifespan())
            async with anyio.create_task_group() as tasks:
                self._tasks = tasks
                tasks.start_soon(clock.run)
                server = serve_app(self._app(), self.options.host, self.options.port)
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
        """Let the phone ``number`` call ``to``; returns the carrier's id of the call. Without a
        script it follows the default one. Raises ``LookupError`` if ``to`` leads nowhere."""
        steps = default_script() if script is None else tuple(script)
        return self._begin(self._inbound(number, to), Behaviour(steps, patience_s=patience_s)).id

    def dial(self, plan: PlanT) -> CallT:
        """Let a customer call a phone."""
        phone = self._phones.get(plan.to_number)
        return self._begin(plan, phone or Behaviour(default_script()))

    def set_phone(self, number: str, behaviour: Behaviour | Script) -> None:
        """Set what the phone with this number does when it is called."""
        if not isinstance(behaviour, Behaviour):
            behaviour = Behaviour(tuple(behaviour))
        self._phones[number] = behaviour

    def _begin(self, plan: PlanT, behaviour: Behaviour) -> CallT:
        if self._tasks is None or self._board is None:
            raise RuntimeError("the emulator is not being served")
        call = self._call(self._board, plan, behaviour)
        if len(self.calls) >= self.options.keep_calls:
            over = (key for key, call in self.calls.items() if call.over.is_set())
            if (oldest := next(over, None)) is not None:
                del self.calls[oldest]
        self.calls[call.id] = call
        told = call.to_json()
        members = {key: told[key] for key in _DIALLED if key in told}
        self.ledger.add("dialled", call.id, **members)
        self._tasks.start_soon(call.run)
        return call

    # --- inspection -------------------------------------------------------------------------

    async def ended(self, call_id: str) -> EndReason:
        """Wait for the end of a call; returns why it really ended. Raises ``KeyError`` for an
        unknown call."""
        call = self.calls[call_id]
        await call.over.wait()
        if call.reason is None:
            raise RuntimeError("a call is over without a reason")
        return call.reason

    def stats(self, call_id: str) -> CallStats:
        """Figures of a call so far. Raises ``KeyError``."""
        return self.calls[call_id].stats

    def recording(self, call_id: str) -> bytes:
        """A WAV file, 8 kHz, 16 bit, stereo: what the phone said on the left, what it heard on the
        right. Raises ``KeyError``."""
        return self.calls[call_id].line.recording.wav()

    def report(self, call_id: str | None = None) -> Mapping[str, Any]:
        """The ledger as JSON: ``entries``, and ``calls`` with their ``stats``."""
        return {
            "entries": self.ledger.entries(call=call_id),
            "calls": [
                {**call.to_json(), "stats": call.stats.to_json()}
                for key, call in self.calls.items()
                if call_id in (None, key)
            ],
        }
