"""The eSpeak NG library, called through ctypes.

Source: ``speak_lib.h`` of eSpeak NG 1.52. The library has one voice, one set of parameters and one
synthesiser for the whole process and is not thread-safe, so there is one engine per process and a
lock around every call.
"""

from __future__ import annotations

import ctypes
import threading
from dataclasses import dataclass
from typing import Any

__all__ = ["Engine", "EspeakError", "Manner", "UnknownVoice", "shared_engine"]

_SYNCHRONOUS = 2
_DONT_EXIT = 0x8000
_POSITION_CHARACTER = 1
_UTF8 = 1
_RATE, _VOLUME, _PITCH = 1, 2, 3
_OK = 0

_Callback = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p
)


class _Voice(ctypes.Structure):
    """The beginning of ``espeak_VOICE``."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("languages", ctypes.c_char_p),
        ("identifier", ctypes.c_char_p),
    )


class EspeakError(Exception):
    """The library could not be loaded or refused a request."""


class UnknownVoice(EspeakError):
    """There is no voice of this name, or none with this variant."""


@dataclass(frozen=True, slots=True)
class Manner:
    """How to speak: ``rate`` in words per minute, ``pitch`` from 0 to 100, ``volume`` in percent of
    the library's default (0 to 200)."""

    voice: str
    rate: int
    pitch: int
    volume: int


class Engine:
    """The loaded library. Raises :exc:`EspeakError`.

    ``sample_rate`` is the rate that the library reports, in hertz.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pieces: list[bytes] = []
        try:
            import espeakng_loader

            self._library: Any = ctypes.CDLL(espeakng_loader.get_library_path())
        except (ImportError, OSError) as error:
            raise EspeakError(f"the library cannot be loaded: {error}") from error
        data_path = str(espeakng_loader.get_data_path())
        rate = self._library.espeak_Initialize(_SYNCHRONOUS, 0, data_path.encode(), _DONT_EXIT)
        if rate <= 0:
            raise EspeakError(f"the library does not start with the data in {data_path}")
        self.sample_rate = int(rate)
        self._library.espeak_GetCurrentVoice.restype = ctypes.POINTER(_Voice)
        # The library only stores the pointer, so the callback object must outlive it.
        self._callback = _Callback(self._collect)
        self._library.espeak_SetSynthCallback(self._callback)

    def _collect(self, samples: Any, count: int, _events: Any) -> int:
        if samples and count > 0:
            self._pieces.append(ctypes.string_at(samples, count * 2))
        return 0

    def speak(self, text: str, manner: Manner) -> bytes:
        """Speak all of ``text``: pcm16 at ``sample_rate``. Blocks for a few milliseconds.

        Raises :exc:`UnknownVoice` or :exc:`EspeakError`. May be called from any thread.
        """
        encoded = text.replace("\x00", " ").encode("utf-8", "replace")
        with self._lock:
            self._apply(manner)
            self._pieces.clear()
            result = self._library.espeak_Synth(
                encoded, len(encoded) + 1, 0, _POSITION_CHARACTER, 0, _UTF8, None, None
            )
            audio = b"".join(self._pieces)
            self._pieces.clear()
        if result != _OK:
            raise EspeakError(f"the library refuses the text (error {result})")
        return audio

    def check(self, manner: Manner) -> None:
        """Raise :exc:`UnknownVoice` if :meth:`speak` would."""
        with self._lock:
            self._apply(manner)

    def _apply(self, manner: Manner) -> None:
        # The voice first, because setting it resets the parameters.
        found = self._library.espeak_SetVoiceByName(manner.voice.encode()) == _OK
        if not (found and self._is_whole(manner.voice)):
            raise UnknownVoice(manner.voice)
        for parameter, value in (
            (_RATE, manner.rate),
            (_VOLUME, manner.volume),
            (_PITCH, manner.pitch),
        ):
            if self._library.espeak_SetParameter(parameter, value, 0) != _OK:
                raise EspeakError(f"the library refuses parameter {parameter} = {value}")

    def _is_whole(self, voice: str) -> bool:
        """Whether the library has all of ``voice``. It also accepts a voice whose variant it does
        not know, and a variant alone, which makes no sound."""
        identifier: bytes = self._library.espeak_GetCurrentVoice().contents.identifier
        return (b"+" in identifier) is ("+" in voice) and not identifier.startswith(b"!v/")


_engine: Engine | None = None
_engine_lock = threading.Lock()


def shared_engine() -> Engine:
    """The process's engine, started on first use. Raises :exc:`EspeakError`."""
    global _engine
    with _engine_lock:
        if _engine is None:
            _engine = Engine()
        return _engine
