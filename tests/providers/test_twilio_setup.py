"""Asking Twilio whether an account is set up for us."""

from __future__ import annotations

from typing import Any

import pytest

from .twilio_desk import HERE, open_desk, patient_backend

SOON = "&rt=4500"

pytestmark = [pytest.mark.integration, pytest.mark.anyio]


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return patient_backend


def named(probes: Any) -> list[tuple[str, bool]]:
    return [(probe.name, probe.ok) for probe in probes]


async def test_a_probe_of_a_number_that_is_set_up() -> None:
    async with open_desk() as desk:
        probes = await desk.provider.probe(desk.url, [HERE])
        names = ("credentials", "number-owned", "number-webhook", "number-status")
        wanted = [(name, True) for name in names]
        assert named(probes) == wanted
        assert "#rc=3" not in probes[2].message
        assert "as far as us1 takes them" in probes[2].message
        status = f"{desk.url}?type=status"
        desk.twilio.set_voice_url(desk.url, status_callback=status)
        probes = await desk.provider.probe(desk.url, [HERE])
        assert named(probes) == wanted
        assert f"#rc=3&rp=all{SOON}" in probes[2].message


@pytest.mark.parametrize(
    ("attribute", "value", "said"),
    [
        ("status_callback", "https://other.example/voice", "is https://other.example/voice;"),
        ("status_callback", "", "is empty; set it to"),
        ("status_callback_method", "GET", "HTTP GET"),
    ],
)
async def test_a_probe_of_a_number_that_does_not_tell_of_ends(
    attribute: str, value: str, said: str
) -> None:
    async with open_desk() as desk:
        setattr(desk.twilio.numbers[HERE], attribute, value)
        probes = await desk.provider.probe(desk.url, [HERE])
        assert named(probes)[2:] == [("number-webhook", True), ("number-status", False)]
        assert HERE in probes[3].message
        assert said in probes[3].message
        if not value:
            assert f"{desk.url}?type=status#rc=3" in probes[3].message


@pytest.mark.parametrize(
    ("attribute", "value", "said"),
    [
        ("voice_url", "https://other.example/voice", "https://other.example/voice"),
        ("voice_url", "", "is empty"),
        ("voice_method", "GET", "HTTP GET"),
    ],
)
async def test_a_probe_of_a_number_that_goes_elsewhere(
    attribute: str, value: str, said: str
) -> None:
    async with open_desk() as desk:
        setattr(desk.twilio.numbers[HERE], attribute, value)
        probes = await desk.provider.probe(desk.url, [HERE])
        assert named(probes)[1:] == [("number-owned", True), ("number-webhook", False)]
        assert said in probes[2].message


async def test_a_probe_of_somebody_elses_number() -> None:
    async with open_desk() as desk:
        # Twilio finds a number by its part, too.
        for number in ("+15550999999", HERE[:-1]):
            probes = await desk.provider.probe(desk.url, [number])
            assert named(probes) == [("credentials", True), ("number-owned", False)]


async def test_a_probe_with_wrong_credentials() -> None:
    async with open_desk({"authToken": "wrong"}) as desk:
        [probe] = await desk.provider.probe(desk.url, [HERE])
        assert (probe.name, probe.ok) == ("credentials", False)
        assert "twilio.authToken" in probe.message
