"""G.711 against a scalar version of the rule in ITU-T G.191."""

from __future__ import annotations

import math
import struct

import pytest

from voicecall.audio import alaw_to_pcm16, mulaw_to_pcm16, pcm16_to_alaw, pcm16_to_mulaw

pytestmark = pytest.mark.unit

CODES = bytes(range(256))
SAMPLES = range(-32768, 32768)


def pack(*samples: int) -> bytes:
    return struct.pack(f"<{len(samples)}h", *samples)


def unpack(audio: bytes) -> list[int]:
    return list(struct.unpack(f"<{len(audio) // 2}h", audio))


def mulaw_code(sample: int) -> int:
    """14 significant bits, negatives by one's complement, bias 33, clipped at 0x1FFF."""
    value = min(((~sample if sample < 0 else sample) >> 2) + 33, 0x1FFF)
    segment = value.bit_length() - 6
    code = segment << 4 | (value >> segment + 1) & 0x0F
    return ~code & (0x7F if sample < 0 else 0xFF)


def mulaw_value(code: int) -> int:
    bits = ~code & 0xFF
    exponent, mantissa = bits >> 4 & 7, bits & 0x0F
    step = 4 << exponent + 1
    value = (0x80 << exponent) + step * mantissa + step // 2 - 132
    return -value if bits & 0x80 else value


def alaw_code(sample: int) -> int:
    """13 significant bits, negatives by one's complement, even bits inverted."""
    value = (~sample if sample < 0 else sample) >> 4
    exponent = max(value.bit_length() - 4, 0)
    code = value if exponent == 0 else exponent << 4 | (value >> exponent - 1) & 0x0F
    return (code if sample < 0 else code | 0x80) ^ 0x55


def alaw_value(code: int) -> int:
    bits = code ^ 0x55
    exponent, mantissa = bits >> 4 & 7, bits & 0x0F
    value = (mantissa << 4) + 8 if exponent == 0 else (mantissa << 4) + 264 << exponent - 1
    return value if bits & 0x80 else -value


def test_all_256_mulaw_codes_decode_by_the_rule() -> None:
    assert unpack(mulaw_to_pcm16(CODES)) == [mulaw_value(code) for code in CODES]


def test_all_65536_samples_encode_to_mulaw_by_the_rule() -> None:
    assert pcm16_to_mulaw(pack(*SAMPLES)) == bytes(mulaw_code(sample) for sample in SAMPLES)


def test_all_256_alaw_codes_decode_by_the_rule() -> None:
    assert unpack(alaw_to_pcm16(CODES)) == [alaw_value(code) for code in CODES]


def test_all_65536_samples_encode_to_alaw_by_the_rule() -> None:
    assert pcm16_to_alaw(pack(*SAMPLES)) == bytes(alaw_code(sample) for sample in SAMPLES)


@pytest.mark.parametrize(
    ("code", "value"), [(0xFF, 0), (0x7F, 0), (0x00, -32124), (0x80, 32124), (0xFE, 8)]
)
def test_known_mulaw_codes(code: int, value: int) -> None:
    assert unpack(mulaw_to_pcm16(bytes([code]))) == [value]


@pytest.mark.parametrize(("sample", "code"), [(0, 0xFF), (-1, 0x7F), (32767, 0x80), (-32768, 0x00)])
def test_known_mulaw_samples(sample: int, code: int) -> None:
    assert pcm16_to_mulaw(pack(sample)) == bytes([code])


@pytest.mark.parametrize(
    ("sample", "code"), [(0, 0xD5), (-1, 0x55), (32767, 0xAA), (-32768, 0x2A), (8, 0xD5)]
)
def test_known_alaw_samples(sample: int, code: int) -> None:
    assert pcm16_to_alaw(pack(sample)) == bytes([code])


def test_only_negative_zero_does_not_survive_a_round_trip() -> None:
    again = pcm16_to_mulaw(mulaw_to_pcm16(CODES))
    assert [code for code in CODES if again[code] != code] == [0x7F]
    assert again[0x7F] == 0xFF
    assert pcm16_to_alaw(alaw_to_pcm16(CODES)) == CODES


def test_silence() -> None:
    assert pcm16_to_mulaw(bytes(320)) == b"\xff" * 160
    assert pcm16_to_alaw(bytes(320)) == b"\xd5" * 160
    assert mulaw_to_pcm16(b"") == pcm16_to_mulaw(b"") == b""


def test_the_mean_error_over_all_samples() -> None:
    decoded = unpack(mulaw_to_pcm16(pcm16_to_mulaw(pack(*SAMPLES))))
    error = sum(abs(a - b) for a, b in zip(decoded, SAMPLES, strict=True)) / 65536
    assert error == pytest.approx(172.992, abs=0.001)


@pytest.mark.parametrize(
    ("level_db", "snr_db"),
    [(0, 38.9), (-10, 36.9), (-20, 38.1), (-30, 34.6), (-40, 35.2), (-50, 29.9)],
)
def test_signal_to_noise_of_a_tone(level_db: float, snr_db: float) -> None:
    peak = 32635 * 10 ** (level_db / 20)
    tone = [round(peak * math.sin(2 * math.pi * 1004 * n / 8000)) for n in range(8000)]
    decoded = unpack(mulaw_to_pcm16(pcm16_to_mulaw(pack(*tone))))
    noise = sum((a - b) ** 2 for a, b in zip(decoded, tone, strict=True))
    assert 10 * math.log10(sum(a * a for a in tone) / noise) == pytest.approx(snr_db, abs=0.6)
