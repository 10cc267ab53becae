"""Generated audio of a caller's line: interruptions, back-channels and noises.

Speech comes from eSpeak NG, noises from seeded generators. Everything passes through the telephone
band (300 to 3400 Hz) and mu-law, over a background, at the levels of real lines. The two halves
share no voice, sentence or seed: the detector's constants were chosen with ``TUNING``, and
``HELD_OUT`` was not used before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import product

import numpy as np
from numpy.typing import NDArray

from voicecall.audio import PCM16_8K, AudioFormat, Converter, pcm16_to_mulaw
from voicecall_tts_espeak.engine import Manner, shared_engine

__all__ = [
    "HELD_OUT",
    "TUNING",
    "Clip",
    "Half",
    "backchannels",
    "background",
    "interruptions",
    "long_noises",
    "short_noises",
]

Samples = NDArray[np.float64]

_RATE = 8000
_LOW, _HIGH = 300, 3400
_BLOCK = 80  # 10 ms
_AUDIBLE = 0.056  # 25 dB below the loudest block
_LEVELS = (600.0, 1600.0, 4000.0)  # RMS of speech: 35, 26 and 18 dB below full scale
_BACKGROUNDS = (4.0, 15.0, 40.0)  # RMS: 78, 67 and 58 dB below full scale


@dataclass(frozen=True, slots=True)
class Half:
    """One half of the corpus. ``manners``: words a minute and pitch."""

    name: str
    seed: int
    voices: tuple[str, ...]
    manners: tuple[tuple[int, int], ...]
    sentences: tuple[str, ...]
    acknowledgements: tuple[str, ...]


TUNING = Half(
    "tuning",
    1,
    ("en-us", "en-us+f2", "en+m3", "en+f4"),
    ((140, 40), (165, 50), (190, 60)),
    (
        "Wait a moment please",
        "Stop",
        "No, that is wrong",
        "Excuse me",
        "Hold on",
        "I have a question",
        "Sorry, can you repeat that",
        "Actually, I need something else",
        "Could I speak to a person",
    ),
    ("mm-hm", "uh-huh", "hmm", "aha"),
)
HELD_OUT = Half(
    "held out",
    2,
    ("en-us+f1", "en-us+m1", "en-gb-scotland", "en+f3"),
    ((135, 55), (160, 45), (185, 35)),
    (
        "Just a second",
        "Hang on",
        "But I did not order this",
        "Let me stop you there",
        "That is not my name",
        "What did you say",
        "Yes yes, I know",
        "Please slow down",
        "Can we talk about the bill",
    ),
    ("mm-hmm", "mhm", "huh", "oh"),
)


@dataclass(frozen=True, slots=True)
class Clip:
    """``audio`` is mu-law at 8 kHz, audible from ``begins_ms`` to ``ends_ms``.
    ``text`` is what is said, blank in noises."""

    name: str
    text: str
    audio: bytes
    begins_ms: float
    ends_ms: float


# --- speech ----------------------------------------------------------------------------------


def interruptions(half: Half) -> list[Clip]:
    """One for each voice, manner and sentence: 108."""
    return _spoken(half, half.sentences)


def backchannels(half: Half) -> list[Clip]:
    """One for each voice, manner and acknowledgement: 48."""
    return _spoken(half, half.acknowledgements)


def _spoken(half: Half, texts: tuple[str, ...]) -> list[Clip]:
    random = np.random.default_rng([half.seed, len(texts)])
    clips = []
    for text, voice, (rate, pitch) in product(texts, half.voices, half.manners):
        sound = _band(_speech(text, Manner(voice, rate, pitch, 100)))
        level, background = random.choice(_LEVELS), random.choice(_BACKGROUNDS)
        blocks = _block_levels(sound)
        spoken = blocks[blocks > np.max(blocks) * _AUDIBLE]
        sound = sound * level / np.sqrt(np.mean(spoken**2))
        name = f"{text!r} by {voice} at {rate}, level {level:.0f}, background {background:.0f}"
        clips.append(_clip(name, text, sound, background, random))
    return clips


@cache
def _speech(text: str, manner: Manner) -> Samples:
    engine = shared_engine()
    converter = Converter(AudioFormat("pcm16", engine.sample_rate), PCM16_8K)
    pcm = converter.process(engine.speak(text, manner)) + converter.flush()
    return np.frombuffer(pcm, np.int16).astype(np.float64)


# --- noises ----------------------------------------------------------------------------------


def short_noises(half: Half, count: int = 200) -> list[Clip]:
    """Noises of 5 to 199 ms from bang to silence, from soft to clipping."""
    random = np.random.default_rng([half.seed, 1000])
    makers = list(_NOISES.items())
    clips = []
    for number in range(count):
        name, make = makers[number % len(makers)]
        # Half of them at the upper end, where it is decided.
        milliseconds = random.uniform(170, 199) if number % 2 else random.uniform(5, 199)
        peak = 10 ** random.uniform(2.5, 4.4)
        clips.append(_noise(name, make, milliseconds, peak, random))
    return clips


def long_noises(half: Half) -> list[Clip]:
    """Background noises of three seconds each."""
    random = np.random.default_rng([half.seed, 2000])
    return [
        _noise(name, make, 3000, peak, random)
        for (name, make), peak in product(_NOISES.items(), (500.0, 3000.0, 12000.0))
        if name not in ("click", "slam")
    ]


def _noise(
    name: str,
    make: Callable[[int, np.random.Generator], Samples],
    milliseconds: float,
    peak: float,
    random: np.random.Generator,
) -> Clip:
    sound = make(int(milliseconds * _RATE / 1000), random)
    sound = sound * peak / max(float(np.abs(sound).max()), 1e-9)
    background = random.choice(_BACKGROUNDS)
    label = f"{name} of {milliseconds:.0f} ms, peak {peak:.0f}, background {background:.0f}"
    # The band filter rings past the end; cut there, so that a noise has its stated length.
    return _clip(label, "", sound, background, random)


def _click(size: int, random: np.random.Generator) -> Samples:
    return random.normal(0, 1, size) * np.exp(-np.arange(size) / 16)


def _slam(size: int, random: np.random.Generator) -> Samples:
    return _band(random.normal(0, 1, size)) * np.exp(-3 * np.arange(size) / size)


def _white(size: int, random: np.random.Generator) -> Samples:
    return random.normal(0, 1, size)


def _pink(size: int, random: np.random.Generator) -> Samples:
    return _shaped(random.normal(0, 1, size), lambda f: 1 / np.sqrt(np.maximum(f, 50)))


def _breath(size: int, random: np.random.Generator) -> Samples:
    air = _shaped(random.normal(0, 1, size), lambda f: np.exp(-(((f - 900) / 900) ** 2)))
    return air * np.hanning(size + 2)[1:-1]


def _tone(size: int, random: np.random.Generator) -> Samples:
    return np.sin(2 * np.pi * random.uniform(350, 2000) * np.arange(size) / _RATE)


def _horn(size: int, random: np.random.Generator) -> Samples:
    """Harmonics of one pitch: the noise most like a vowel."""
    pitch = random.uniform(90, 300)
    time = np.arange(size) / _RATE
    partials = [np.sin(2 * np.pi * pitch * n * time) / n for n in range(1, int(_HIGH / pitch))]
    return np.asarray(np.sum(partials, axis=0), np.float64)


_NOISES: dict[str, Callable[[int, np.random.Generator], Samples]] = {
    "click": _click,
    "slam": _slam,
    "white noise": _white,
    "pink noise": _pink,
    "breath": _breath,
    "tone": _tone,
    "horn": _horn,
}


# --- the line --------------------------------------------------------------------------------


def _shaped(sound: Samples, gain: Callable[[Samples], Samples]) -> Samples:
    frequencies = np.asarray(np.fft.rfftfreq(len(sound), 1 / _RATE), np.float64)
    spectrum = np.fft.rfft(sound) * gain(frequencies)
    return np.asarray(np.fft.irfft(spectrum, len(sound)), np.float64)


def _band(sound: Samples) -> Samples:
    return _shaped(sound, lambda f: ((f >= _LOW) & (f <= _HIGH)).astype(np.float64))


def _block_levels(sound: Samples) -> Samples:
    """RMS of each 10 ms."""
    whole = len(sound) - len(sound) % _BLOCK
    return np.asarray(np.sqrt(np.mean(sound[:whole].reshape(-1, _BLOCK) ** 2, axis=1)), np.float64)


def _clip(
    name: str, text: str, sound: Samples, background: float, random: np.random.Generator
) -> Clip:
    """``sound`` over the background, at a random place of the frame grid."""
    lead = int(random.integers(0, 160))
    line = np.concatenate([np.zeros(lead), sound, np.zeros(160)])
    line += random.normal(0, background, len(line))
    pcm = np.clip(np.round(line), -32768, 32767).astype(np.int16).tobytes()
    levels = np.append(_block_levels(sound), 0.0)
    audible = np.flatnonzero(levels > max(levels.max() * _AUDIBLE, background * 2))
    first, last = (audible[0], audible[-1] + 1) if len(audible) else (0, len(sound) / _BLOCK)
    per_ms = _RATE / 1000
    return Clip(
        name,
        text,
        pcm16_to_mulaw(pcm),
        (lead + first * _BLOCK) / per_ms,
        (lead + last * _BLOCK) / per_ms,
    )


def background(milliseconds: int, level: float, seed: int) -> Iterator[bytes]:
    """Frames of 20 ms of what the line carries while nobody speaks."""
    random = np.random.default_rng(seed)
    for _ in range(milliseconds // 20):
        yield pcm16_to_mulaw(random.normal(0, level, 160).astype(np.int16).tobytes())
