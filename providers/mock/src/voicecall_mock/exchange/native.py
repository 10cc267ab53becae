"""Speech without a media stream: the exchange itself speaks text and recognises the phone.

Speaking takes ``word_ms`` per word. A listen action ends with one final result; a listen inside a
speak action begins when the text has been spoken.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import anyio

from voicecall import telephony as tel

from .options import PhoneOptions

__all__ = ["NativeLine", "digits_s", "speaking_s"]

_WAITS = {"w": 0.5, ",": 0.5, "p": 1.0, "P": 1.0, "W": 1.0}


def speaking_s(text: str, options: PhoneOptions) -> float:
    """How long ``text`` takes to speak, in seconds."""
    return max(options.least_speech_ms, len(text.split()) * options.word_ms) / 1000


def digits_s(digits: str, options: PhoneOptions, second_s: float = 1.0) -> float:
    """How long keypad tones take: ``w`` and ``,`` wait half a second, ``p`` and ``W`` a second."""
    tone_s = options.digit_ms / 1000
    return sum(_WAITS[key] * second_s if key in _WAITS else tone_s for key in digits)


class NativeLine:
    """``post`` sends a webhook, ``heard(text, complete)`` is called with what the phone hears,
    ``changed`` whenever something begins or ends."""

    def __init__(
        self,
        options: PhoneOptions,
        post: Callable[..., None],
        heard: Callable[[str, bool], None],
        changed: Callable[[], None],
    ) -> None:
        self._options = options
        self._post = post
        self._heard = heard
        self._changed = changed
        self._queue: deque[tel.Speak] = deque()
        self._more = anyio.Event()
        self._stop = anyio.Event()
        self.playing: tel.Speak | None = None
        self.listening: tel.Listen | None = None

    @property
    def speaks(self) -> bool:
        """Whether something is being spoken or about to be."""
        return self.playing is not None or bool(self._queue)

    def speak(self, action: tel.Speak) -> None:
        self._queue.append(action)
        self._more.set()
        self._changed()

    def listen(self, action: tel.Listen | None) -> None:
        """Listen, or stop listening if ``action`` is None."""
        self.listening = action
        self._changed()

    def barge_in(self) -> None:
        """The phone talks over the speech, which stops."""
        self._stop.set()

    def recognised(self, text: str, *, final: bool) -> bool:
        """The phone said ``text``; returns False if there is no listen action."""
        listen = self.listening
        if listen is None:
            return False
        if final:
            self.listening = None
        self._post("call.speech", text=text, final=final, confidence=0.95, token=listen.token)
        return True

    def pressed(self, digits: str) -> None:
        self._post("call.digits", digits=digits)

    async def run(self) -> None:
        """Speak what is queued, one after another."""
        while True:
            if not self._queue:
                self._more = anyio.Event()
                await self._more.wait()
            action = self._queue.popleft()
            self.playing = action
            self._stop = anyio.Event()
            self._changed()
            with anyio.move_on_after(speaking_s(action.text, self._options)) as limit:
                await self._stop.wait()
            self._heard(action.text, limit.cancelled_caught)
            self.playing = None
            if action.listen is not None:
                self.listening = action.listen
            self._post("call.playback", utterance=action.utterance_id, ok=True)
            self._changed()
