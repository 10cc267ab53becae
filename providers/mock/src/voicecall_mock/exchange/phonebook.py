"""What every emulated carrier has: phones that are called, and calls to look at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Generic, Protocol, TypeVar

import anyio

from voicecall.model import EndReason

from .ledger import Ledger
from .line import CarrierLine
from .script import Behaviour, Script, default_script
from .sockets import SocketStream

__all__ = ["CallStats", "EmulatedCall", "Phonebook"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CallStats:
    """What one call was like for its phone. ``log``: ("said" | "heard", text) in order; far audio
    of a stream has no text. ``barge_in_stop_ms``, ``response_ms``: see ``meter``; ``underruns``:
    see ``playback``; ``dropped_bytes``: audio beyond the playback buffer."""

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
        """The figures of a line and of all media streams that it had."""
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


class EmulatedCall(Protocol):
    """A call, as far as a :class:`Phonebook` looks at it."""

    over: anyio.Event
    reason: EndReason | None

    @property
    def id(self) -> str: ...

    @property
    def line(self) -> CarrierLine: ...

    @property
    def stats(self) -> CallStats: ...

    def to_json(self) -> dict[str, Any]: ...


CallT = TypeVar("CallT", bound=EmulatedCall)


class Phonebook(Generic[CallT]):
    """Phones by their numbers, and ``calls`` by the carrier's ids: the last ``keep_calls``, as long
    as the older ones are over."""

    def __init__(self, ledger: Ledger, *, keep_calls: int) -> None:
        self.ledger = ledger
        self.calls: dict[str, CallT] = {}
        self._keep_calls = keep_calls
        self._phones: dict[str, Behaviour] = {}

    # --- phones -----------------------------------------------------------------------------

    def set_phone(self, number: str, behaviour: Behaviour | Script) -> None:
        """What the phone with this number does when it is called."""
        if not isinstance(behaviour, Behaviour):
            behaviour = Behaviour(tuple(behaviour))
        self._phones[number] = behaviour

    def _called(self, number: str) -> Behaviour:
        return self._phones.get(number) or Behaviour(default_script())

    def _remember(self, call: CallT) -> None:
        if len(self.calls) >= self._keep_calls:
            over = (key for key, call in self.calls.items() if call.over.is_set())
            if (oldest := next(over, None)) is not None:
                del self.calls[oldest]
        self.calls[call.id] = call

    # --- looking on -------------------------------------------------------------------------

    async def ended(self, call_id: str) -> EndReason:
        """Wait for the end of a call: why it really ended. Raises ``KeyError`` for one that never
        was."""
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
                for key, call in self.calls.items()
                if call_id in (None, key)
            ],
        }
