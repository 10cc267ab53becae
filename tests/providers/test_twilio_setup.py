"""Asking Twilio whether an account is set up for us."""

from __future__ import annotations

from typing import Any

import pytest

from .twilio_desk import HERE, open_desk, patient_backend

pytestmark = [pytest.mark.integration, pytest.mark.anyio]


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return patient_backend


def named(probes: Any) -> list[tuple[str, bool]]:
    return [(probe.name, probe.ok) for probe in probes]


async def test_a_probe_of_a_number_that_is_set_up() -> None:
    async with open_desk() as desk:
        probes = await desk.provider.probe(desk.url, [HERE])
        wanted = [("credentials", True), ("number-owned", True), ("number-webhook", True)]
        assert named(probes) == wanted
        assert "#rc=3" not in probes[2].message
        desk.twilio.set_voice_url(desk.url)
        probes = await desk.provider.probe(desk.url, [HERE])
        assert named(probes) == wanted
        assert "#rc=3&rp=all" in probes[2].message


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
