"""The line between one phone and the exchange: its mouth, ears and keys.

A phone speaks into the media stream if there is one, otherwise to the exchange's own recogniser.
The audio state is kept here so that it outlasts a socket.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import anyio

from .board import Switchboard
from .meter import Meter
from .native import NativeLine, speaking_s
from .playback import FRAME
from .recording import Recording
from .script import HangUpMidWord, Interrupt, Spoken
from .sockets import SocketStream

__all__ = ["CarrierLine", "Native", "PhoneLine"]


class Native(Protocol):
    """The carrier's own speech and recogniser, as the line sees them."""

    @property
    def playing(self) -> object | None:
        """What is being spoken, or None."""
        ...

    @property
    def speaks(self) -> bool:
        """Whether something is being spoken or about to be."""
        ...

    @property
    def listening(self) -> object | None:
        """What listens to the phone, or None."""
        ...

    def barge_in(self) -> None:
        """The phone begins to speak."""
        ...

    def recognised(self, text: str, *, final: bool) -> bool:
        """The phone said ``text``; returns False if nothing listens."""
        ...

    def pressed(self, digits: str) -> None:
        """The phone pressed keys."""
        ...


class CarrierLine:
    """The line of one call; ``hang_up`` ends the call. A subclass provides ``native``."""

    native: Native

    def __init__(self, call_id: str, board: Switchboard, hang_up: Callable[[], None]) -> None:
        options = board.options
        self.hang_up = hang_up
        self.meter = Meter(settle_ms=options.settle_ms)
        self.recording = Recording(options.recording_limit_s)
        self.stream: SocketStream | None = None
        self.log: list[tuple[str, str]] = []
        self.digits_heard = ""
        self.digits_pressed = ""
        self.last_heard_at = board.seam.monotonic()
        self._call_id = call_id
        self._options = options
        self._seam = board.seam
        self._ledger = board.ledger
        self._voice = board.voice
        self._mouth = bytearray()
        self._far_spoke = False
        self._change = anyio.Event()

    # --- from the exchange ------------------------------------------------------------------

    def attach(self, stream: SocketStream | None) -> None:
        """Use this open media stream; None if the call has none any more."""
        self.stream = stream
        if stream is None:
            self._mouth.clear()
        else:
            self.recording.resume(self._seam.monotonic())
        self.notify()

    def exchange_frames(self, heard: bytes | None) -> bytes | None:
        """20 ms of a stream pass: ``heard`` was played; returns the frame that the phone says. None
        is silence."""
        said = None
        if self._mouth:
            said = bytes(self._mouth[:FRAME])
            del self._mouth[:FRAME]
            if not self._mouth:
                self.notify()
        if self.meter.frame(said, heard):
            self._far_spoke = True
            self.notify()
        if heard is not None:
            self.last_heard_at = self._seam.monotonic()
        self.recording.add(said, heard)
        return said

    def hear_digits(self, digits: str) -> None:
        self.digits_heard += digits
        self._ledger.add("digits-heard", self._call_id, digits=digits)

    def hear_text(self, text: str, complete: bool = True) -> None:
        """The exchange spoke ``text``; not ``complete`` if the phone interrupted it."""
        self._far_spoke = True
        self.last_heard_at = self._seam.monotonic()
        self._note("heard", text, complete=complete)

    def _note(self, kind: str, text: str, **more: object) -> None:
        self.log.append((kind, text))
        self._ledger.add(kind, self._call_id, text=text, **more)

    # --- from the phone ---------------------------------------------------------------------

    async def begin_to_say(self, step: HangUpMidWord) -> None:
        """Speak for ``after_ms`` and stop in the middle."""
        with anyio.move_on_after(step.after_ms / 1000):
            if self.stream is not None:
                await self.say(step)
            await anyio.sleep_forever()

    async def say(self, step: Spoken) -> None:
        """Speak to the end."""
        self.forget_heard()
        if isinstance(step, Interrupt) and self.stream is None:
            self.native.barge_in()
        with anyio.move_on_after(self._options.listen_patience_ms / 1000):
            await self._until(lambda: self.stream is not None or self.native.listening is not None)
        if self.stream is not None:
            await self._speak_into_stream(step)
        else:
            await self._speak_to_recogniser(step.text, getattr(step, "partial", ""))

    async def _speak_into_stream(self, step: Spoken) -> None:
        clip = self._voice.clip(step)
        if clip:
            self._note("said", step.text)
            self.meter.phone_begins()
            self._mouth += clip
            await self._until(lambda: not self._mouth)

    async def _speak_to_recogniser(self, text: str, partial: str) -> None:
        if self.native.listening is not None:
            self.native.barge_in()
        self._note("said", text)
        duration = speaking_s(text, self._options)
        if partial:
            await anyio.sleep(duration / 2)
            self.native.recognised(partial, final=False)
            duration /= 2
        await anyio.sleep(duration)
        if not self.native.recognised(text, final=True):
            self._ledger.add("speech-unheard", self._call_id, text=text)

    async def far_silence(self, after_ms: int) -> None:
        """Wait until the far side has spoken since the phone last did, and has then been silent
        for ``after_ms``."""
        while True:
            left_ms = self._silence_left(after_ms)
            if left_ms == 0:
                break
            change = self._change
            with anyio.move_on_after(None if left_ms is None else left_ms / 1000):
                await change.wait()
        self.forget_heard()

    def _silence_left(self, after_ms: int) -> float | None:
        """Milliseconds of silence still missing; None while speech is awaited."""
        if not self._far_spoke:
            return None
        if self.stream is None:
            return None if self.native.speaks else 0
        if self.meter.far_speaks:
            return max(20, after_ms)
        quiet = self.meter.far_quiet_ms
        return 0 if quiet is None else max(0, after_ms - quiet)

    async def far_speech(self) -> None:
        """Wait until the far side speaks."""
        await self._until(
            lambda: (
                self.native.playing is not None
                if self.stream is None
                else self.meter.far_speaks or self.native.playing is not None
            )
        )

    def forget_heard(self) -> None:
        self._far_spoke = False

    def press(self, digits: str) -> None:
        self.digits_pressed += digits
        self._ledger.add("digits-pressed", self._call_id, digits=digits)
        if self.stream is not None:
            self.stream.send_digits(digits)
        else:
            self.native.pressed(digits)

    def drop_socket(self) -> None:
        if self.stream is not None:
            stream = self.stream
            self.attach(None)
            stream.drop("the connection broke")

    async def be_patient(self, patience_s: float) -> None:
        """Hang up when nothing was heard for ``patience_s``."""
        while (left := self.last_heard_at + patience_s - self._seam.monotonic()) > 0:
            await anyio.sleep(left)
            if self.native.playing is not None:
                self.last_heard_at = self._seam.monotonic()
        self.hang_up()

    # --- waiting ----------------------------------------------------------------------------

    def notify(self) -> None:
        """Wake the phone: something that it may wait for began or ended."""
        self._change.set()
        self._change = anyio.Event()

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            await self._change.wait()


class PhoneLine(CarrierLine):
    """A line of the mock exchange. ``post`` sends a webhook."""

    native: NativeLine

    def __init__(
        self,
        call_id: str,
        board: Switchboard,
        post: Callable[..., None],
        hang_up: Callable[[], None],
    ) -> None:
        super().__init__(call_id, board, hang_up)
        self.native = NativeLine(board.options, post, self.hear_text, self.notify)
