"""Resampling: regular output, low delay, and bounds on the measured quality."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from voicecall import MULAW_8K, PCM16_8K, PCM16_16K, PCM16_24K
from voicecall.audio import AudioFormat, Converter, Resampler, pcm16_to_mulaw, resample

pytestmark = pytest.mark.unit

PAIRS = [(8000, 16000), (8000, 24000), (16000, 8000), (24000, 8000), (16000, 24000), (24000, 16000)]
UP = [(8000, 16000), (8000, 24000)]
DOWN = [(16000, 8000), (24000, 8000)]

Samples = NDArray[np.float64]


def tone(rate: int, hertz: float, seconds: float = 1.0, peak: float = 10_000) -> bytes:
    time = np.arange(int(rate * seconds)) / rate
    return np.rint(peak * np.sin(2 * np.pi * hertz * time)).astype(np.int16).tobytes()


def samples(audio: bytes) -> Samples:
    return np.frombuffer(audio, np.int16).astype(np.float64)


def steady(audio: bytes) -> Samples:
    """The signal without the filter's start-up."""
    return samples(audio)[1000:]


def fit(signal: Samples, rate: int, hertz: float) -> tuple[float, float]:
    """Amplitude of a tone in ``signal``, and its ratio to everything else in dB."""
    phase = 2 * np.pi * hertz * np.arange(signal.size) / rate
    basis = np.stack([np.sin(phase), np.cos(phase), np.ones_like(phase)], axis=1)
    weights, *_ = np.linalg.lstsq(basis, signal, rcond=None)
    rest = signal - basis @ weights
    amplitude = float(np.hypot(weights[0], weights[1]))
    return amplitude, float(10 * np.log10((amplitude**2 / 2) / np.mean(rest**2)))


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_20_ms_in_give_20_ms_out_every_time(source: int, target: int) -> None:
    resampler = Resampler(source, target)
    frame = bytes(2 * source // 50)
    assert {len(resampler.process(frame)) for _ in range(50)} == {2 * target // 50}


def test_odd_rates_keep_their_ratio_over_time() -> None:
    resampler = Resampler(22050, 8000)
    total = sum(len(resampler.process(bytes(2 * 441))) // 2 for _ in range(50))
    assert total == pytest.approx(8000, abs=1)


@pytest.mark.parametrize(("source", "target"), UP + DOWN)
def test_the_delay_is_about_a_millisecond(source: int, target: int) -> None:
    resampler = Resampler(source, target)
    assert 0 < resampler.delay_ms <= 1.1
    impulse = np.zeros(source // 50, np.int16)
    impulse[source // 200] = 20_000
    response = samples(resampler.process(impulse.tobytes()))
    centre = float((response * np.arange(response.size)).sum() / response.sum())
    assert centre * 1000 / target - 5 == pytest.approx(resampler.delay_ms, abs=0.1)


@pytest.mark.parametrize(("source", "target"), UP)
@pytest.mark.parametrize(("hertz", "least_db"), [(1000, 74), (3000, 67)])
def test_tones_come_out_clean(source: int, target: int, hertz: int, least_db: float) -> None:
    output = steady(Resampler(source, target).process(tone(source, hertz)))
    amplitude, ratio = fit(output, target, hertz)
    assert ratio >= least_db
    assert abs(20 * np.log10(amplitude / 10_000)) <= 0.4


@pytest.mark.parametrize(("source", "target"), DOWN)
@pytest.mark.parametrize("hertz", [5000, 6000])
def test_what_the_telephone_cannot_carry_does_not_fold_back(
    source: int, target: int, hertz: int
) -> None:
    output = steady(Resampler(source, target).process(tone(source, hertz)))
    level = 20 * np.log10(max(float(np.sqrt(2 * np.mean(output**2))), 1e-9) / 10_000)
    assert level <= -65


@pytest.mark.parametrize(("source", "target"), DOWN)
def test_speech_frequencies_survive_the_way_down(source: int, target: int) -> None:
    output = steady(Resampler(source, target).process(tone(source, 1000)))
    amplitude, ratio = fit(output, target, 1000)
    assert ratio >= 60
    assert amplitude == pytest.approx(10_000, rel=0.02)


@settings(max_examples=60)
@given(
    st.sampled_from([*PAIRS, (22050, 8000)]),
    st.lists(st.integers(-32768, 32767), max_size=300),
    st.lists(st.integers(0, 300), max_size=6),
)
def test_the_pieces_do_not_matter(
    pair: tuple[int, int], values: list[int], cuts: list[int]
) -> None:
    audio = np.array(values, np.int16).tobytes()
    one, other = Resampler(*pair), Resampler(*pair)
    places = [0, *sorted(2 * min(cut, len(values)) for cut in cuts), len(audio)]
    pieces = b"".join(other.process(audio[begin:end]) for begin, end in itertools.pairwise(places))
    whole = samples(one.process(audio) + one.flush())
    rest = samples(pieces + other.flush())
    assert whole.shape == rest.shape
    assert np.abs(whole - rest).max(initial=0) <= 1


def test_equal_rates_pass_through() -> None:
    resampler = Resampler(8000, 8000)
    audio = tone(8000, 440, 0.1)
    assert resampler.process(audio) is audio
    assert resampler.flush() == b""
    assert resampler.delay_ms == 0


def test_flush_and_reset_start_afresh() -> None:
    resampler = Resampler(8000, 16000)
    first = resampler.process(tone(8000, 440, 0.1))
    assert len(resampler.flush()) > 0
    assert resampler.process(tone(8000, 440, 0.1)) == first
    resampler.reset()
    assert resampler.process(tone(8000, 440, 0.1)) == first


def test_a_whole_piece_keeps_its_end() -> None:
    audio = tone(24000, 440, 0.5)
    output = samples(resample(audio, 24000, 8000))
    assert output.size >= 4000
    assert float(np.abs(output).max()) <= 10_400


def test_loud_input_is_clipped_and_does_not_wrap() -> None:
    square = np.tile(np.repeat(np.array([32767, -32768], np.int16), 8), 100).tobytes()
    output = samples(Resampler(8000, 16000).process(square))
    plateau = output[200:].reshape(-1, 8)[:, 4]
    assert np.abs(np.diff(np.sign(plateau))).sum() > 0
    assert np.abs(plateau).min() > 20_000


@pytest.mark.parametrize("rates", [(0, 8000), (8000, -1)])
def test_rates_are_positive(rates: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="positive"):
        Resampler(*rates)


FORMATS = [MULAW_8K, AudioFormat("alaw", 8000), PCM16_8K, PCM16_16K, PCM16_24K]


@pytest.mark.parametrize(("encoding", "rate"), [("linear16", 8000), ("opus", 48000), ("mulaw", 0)])
def test_formats_that_nobody_knows_are_refused(encoding: Any, rate: int) -> None:
    with pytest.raises(ValueError, match=r"encoding must be|sample_rate must be"):
        AudioFormat(encoding, rate)


@pytest.mark.parametrize("source", FORMATS, ids=str)
@pytest.mark.parametrize("target", FORMATS, ids=str)
def test_converters_keep_the_duration(source: AudioFormat, target: AudioFormat) -> None:
    converter = Converter(source, target)
    frame = source.silence * (source.sample_rate // 50)
    assert converter.identity is (source == target)
    for _ in range(5):
        output = converter.process(frame)
        assert target.duration_ms(len(output)) == 20
        if source.encoding != "alaw":
            # A-law has no zero: its silence decodes to 8.
            assert output == target.silence * (target.sample_rate // 50)


def test_a_converter_gives_its_tail_in_the_target_format() -> None:
    audio = tone(24000, 440, 0.1)
    plain, coded = Converter(PCM16_24K, PCM16_8K), Converter(PCM16_24K, MULAW_8K)
    whole = plain.process(audio) + plain.flush()
    assert whole == resample(audio, 24000, 8000)
    assert coded.process(audio) + coded.flush() == pcm16_to_mulaw(whole)


def test_a_converter_that_is_reset_forgets_what_it_heard() -> None:
    audio = tone(24000, 440, 0.1)
    converter = Converter(PCM16_24K, MULAW_8K)
    first = converter.process(audio)
    converter.reset()
    assert converter.process(audio) == first


def test_a_sample_cut_in_two_waits_for_its_other_half() -> None:
    audio = tone(16000, 440, 0.1)
    whole = Converter(PCM16_16K, MULAW_8K).process(audio)
    converter = Converter(PCM16_16K, MULAW_8K)
    pieces = [converter.process(audio[n : n + 321]) for n in range(0, len(audio), 321)]
    assert b"".join(pieces) == whole


def test_equal_formats_keep_samples_whole_too() -> None:
    audio = bytes(range(250))
    converter = Converter(PCM16_16K, PCM16_16K)
    pieces = [converter.process(audio[n : n + 7]) for n in range(0, len(audio), 7)]
    assert b"".join(pieces) == audio
    assert all(len(piece) % 2 == 0 for piece in pieces)
    # Half a sample at the end is dropped, and does not leak into what comes next.
    for end in (converter.flush, converter.reset):
        assert converter.process(b"\x01\x02\x03") == b"\x01\x02"
        end()
        assert converter.process(b"\x04\x05") == b"\x04\x05"
    # In the other encodings every byte is a sample.
    assert Converter(MULAW_8K, MULAW_8K).process(b"\x01\x02\x03") == b"\x01\x02\x03"
