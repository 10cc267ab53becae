"""Twilio's own voice and recogniser on a call: what ``<Say>`` and ``<Gather>`` do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import anyio

from voicecall_mock.exchange.line import CarrierLine
from voicecall_mock.exchange.native import digits_s, speaking_s

from .board import TwilioBoard
from .options import TwilioOptions
from .twiml import Gather, Pause, Play, Prompt, Say

__all__ = ["CarrierSpeech", "Ears", "Input", "TwilioLine"]

CONFIDENCE = "0.95"


@dataclass(frozen=True, slots=True)
class Input:
    """The result of a ``<Gather>``: either ``speech`` or ``digits``; the other is None. An empty
    one reports that there was no input. ``finished_on`` is the key that ended the digits."""

    speech: str | None = None
    digits: str | None = None
    finished_on: str = ""

    def params(self) -> dict[str, str]:
        if self.speech is not None:
            return {"SpeechResult": self.speech, "Confidence": CONFIDENCE}
        if self.digits is not None:
            return {"Digits": self.digits, "FinishedOnKey": self.finished_on}
        return {}


class Ears:
    """A ``<Gather>`` that is listening."""

    def __init__(self, verb: Gather) -> None:
        self.verb = verb
        self.began = anyio.Event()
        self._speaking = False
        self._said: list[str] = []
        self._keys = ""
        self._change = anyio.Event()

    def speech_began(self) -> None:
        self._speaking = True
        self._happened()

    def speech_ended(self, text: str) -> None:
        self._speaking = False
        self._said.append(text)
        self._happened()

    def key(self, key: str) -> bool:
        """Accept a key; returns whether it counts. The key that ends an input does not count as
        the first one."""
        taken = bool(self._keys) or key != self.verb.finish_on_key
        if taken:
            self._keys += key
            self._happened()
        return taken

    def _happened(self) -> None:
        self.began.set()
        self._change.set()
        self._change = anyio.Event()

    async def input(self, options: TwilioOptions) -> Input | None:
        """Wait for an input to be complete; returns None if there is none."""
        verb = self.verb
        second = options.second_s
        pause = options.speech_pause_s if verb.speech_timeout is None else verb.speech_timeout
        deadline = anyio.current_time() + verb.max_speech_time * second
        while True:
            if self._keys:
                if (done := self._digits()) is not None:
                    return done
                wait = verb.timeout * second
            elif self._speaking:
                wait = max(0.0, deadline - anyio.current_time())
            elif self._said:
                wait = pause * second
            else:
                wait = verb.timeout * second
            change = self._change
            with anyio.move_on_after(wait):
                await change.wait()
                continue
            if self._keys:
                return Input(digits=self._keys)
            return Input(speech=" ".join(self._said)) if self._said else None

    def _digits(self) -> Input | None:
        """The digits, if they are complete."""
        finish = self.verb.finish_on_key
        if finish and finish in self._keys:
            return Input(digits=self._keys.partition(finish)[0], finished_on=finish)
        wanted = self.verb.num_digits
        if wanted is not None and len(self._keys) >= wanted:
            return Input(digits=self._keys[:wanted])
        return None


class CarrierSpeech:
    """Twilio's voice and recogniser on one call.

    ``heard(text, complete)`` and ``keys_heard(digits)`` report what the phone hears,
    ``unheard(key)`` a key that no ``<Gather>`` accepts, ``partial(gather, text)`` an interim
    result. ``changed`` is called whenever speaking or listening begins or ends.
    """

    def __init__(
        self,
        options: TwilioOptions,
        *,
        heard: Callable[[str, bool], None],
        keys_heard: Callable[[str], None],
        unheard: Callable[[str], None],
        partial: Callable[[Gather, str], None],
        changed: Callable[[], None],
    ) -> None:
        self._options = options
        self._heard = heard
        self._keys_heard = keys_heard
        self._unheard = unheard
        self._partial = partial
        self._changed = changed
        self._ears: Ears | None = None
        self.playing: Say | None = None

    # --- what the phone does ------------------------------------------------------------------

    @property
    def speaks(self) -> bool:
        return self.playing is not None

    @property
    def listening(self) -> Ears | None:
        ears = self._ears
        return ears if ears is not None and ears.verb.speech else None

    def barge_in(self) -> None:
        if self.listening is not None:
            self.listening.speech_began()

    def recognised(self, text: str, *, final: bool) -> bool:
        ears = self.listening
        if ears is None:
            return False
        if final:
            ears.speech_ended(text)
        else:
            self._partial(ears.verb, text)
        return True

    def pressed(self, digits: str) -> None:
        for key in digits:
            ears = self._ears
            if ears is None or not ears.verb.dtmf or not ears.key(key):
                self._unheard(key)

    # --- what a document does -----------------------------------------------------------------

    async def play(self, prompt: Prompt) -> None:
        """Play to the end. If cancelled during a ``<Say>``, the phone has heard it incompletely."""
        match prompt:
            case Say(text, loop=loop):
                for _ in range(loop):
                    await self._say(prompt, text)
                self._changed()
            case Play(digits, loop):
                for _ in range(loop):
                    await anyio.sleep(digits_s(digits, self._options, self._options.second_s))
                    self._keys_heard(digits.replace("w", "").replace("W", ""))
            case Pause(length):
                await anyio.sleep(length * self._options.second_s)

    async def _say(self, verb: Say, text: str) -> None:
        self.playing = verb
        self._changed()
        complete = False
        try:
            await anyio.sleep(speaking_s(text, self._options))
            complete = True
        finally:
            self.playing = None
            self._heard(text, complete)
            if not complete:
                self._changed()

    async def gather(self, verb: Gather) -> Input | None:
        """Play the prompts and listen; returns None if there is no input to report."""
        ears = Ears(verb)
        try:
            if verb.barge_in:
                self._listen(ears)
            for prompt in verb.prompts:
                if not ears.began.is_set():
                    await self._play_until_input(prompt, ears)
            self._listen(ears)
            taken = await ears.input(self._options)
        finally:
            self._listen(None)
        if taken is None and verb.action_on_empty_result:
            return Input(speech="" if verb.speech else None, digits=None if verb.speech else "")
        return taken

    def _listen(self, ears: Ears | None) -> None:
        self._ears = ears
        self._changed()

    async def _play_until_input(self, prompt: Prompt, ears: Ears) -> None:
        async with anyio.create_task_group() as tasks:

            async def stop() -> None:
                await ears.began.wait()
                tasks.cancel_scope.cancel()

            tasks.start_soon(stop)
            await self.play(prompt)
            tasks.cancel_scope.cancel()


class TwilioLine(CarrierLine):
    """The line of a call; see :class:`CarrierSpeech` for ``partial``."""

    native: CarrierSpeech

    def __init__(
        self,
        call_sid: str,
        board: TwilioBoard,
        hang_up: Callable[[], None],
        partial: Callable[[Gather, str], None],
    ) -> None:
        super().__init__(call_sid, board, hang_up)
        self.native = CarrierSpeech(
            board.options,
            heard=self.hear_text,
            keys_heard=self.hear_digits,
            unheard=lambda key: board.ledger.add("digits-unheard", call_sid, digits=key),
            partial=partial,
            changed=self.notify,
        )
