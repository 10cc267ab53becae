"""Probing Twilio: whether an account and its number are set up for the gateway."""

from __future__ import annotations

import json
from typing import Any

import pytest

from voicecall_testing.twilio import RestFault

from .twilio_desk import HERE, answering, open_desk, patient_backend

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
        assert "if they are routed to region us1" in probes[2].message
        status = f"{desk.url}?type=status"
        desk.twilio.set_voice_url(desk.url, status_callback=status)
        probes = await desk.provider.probe(desk.url, [HERE])
        assert named(probes) == wanted
        assert f"#rc=3&rp=all{SOON}" in probes[2].message


ELSEWHERE = "https://other.example/voice"


@pytest.mark.parametrize(
    ("attribute", "value", "wrong", "said"),
    [
        ("voice_url", ELSEWHERE, "number-webhook", ELSEWHERE),
        ("voice_url", "", "number-webhook", "is empty; set it to {url}#rc=3"),
        ("voice_method", "GET", "number-webhook", "HTTP GET"),
        ("status_callback", ELSEWHERE, "number-status", f"is {ELSEWHERE};"),
        ("status_callback", "", "number-status", "is empty; set it to {url}?type=status#rc=3"),
        ("status_callback_method", "GET", "number-status", "HTTP GET"),
    ],
)
async def test_a_probe_ends_with_the_setting_of_a_number_that_is_wrong(
    attribute: str, value: str, wrong: str, said: str
) -> None:
    async with open_desk() as desk:
        setattr(desk.twilio.numbers[HERE], attribute, value)
        probes = await desk.provider.probe(desk.url, [HERE])
        before = ["number-owned", "number-webhook", "number-status"]
        right = [(name, True) for name in before[: before.index(wrong)]]
        assert named(probes)[1:] == [*right, (wrong, False)]
        assert HERE in probes[-1].message
        assert said.format(url=desk.url) in probes[-1].message


HOOK = "https://gateway.example/voice/webhook"


@pytest.mark.parametrize(("url", "wrong"), [(None, "webhook"), (HOOK, "status")])
async def test_a_setting_that_twilio_does_not_name_is_empty(url: str | None, wrong: str) -> None:
    number = {"phone_number": HERE, "voice_url": url, "voice_method": "POST"}
    page = json.dumps({"incoming_phone_numbers": [{**number, "status_callback": None}]})
    async with answering(page) as config, open_desk(config) as desk:
        probes = await desk.provider.probe(HOOK, [HERE])
        assert named(probes)[-1] == (f"number-{wrong}", False)
        assert "is empty; set it to" in probes[-1].message


async def test_a_probe_of_a_host_that_twilio_takes_no_callbacks_to() -> None:
    async with open_desk() as desk:
        probes = await desk.provider.probe("https://my_phone.example/voice/webhook", [])
        assert named(probes) == [("credentials", True), ("webhook-host", False)]
        assert "my_phone.example" in probes[-1].message


async def test_a_probe_of_somebody_elses_number() -> None:
    async with open_desk() as desk:
        # Twilio finds a number by its part, too.
        for number in ("+15550999999", HERE[:-1]):
            probes = await desk.provider.probe(desk.url, [number])
            assert named(probes) == [("credentials", True), ("number-owned", False)]


async def test_a_probe_of_a_number_that_is_only_verified() -> None:
    number = "+15550777777"
    async with open_desk(caller_ids=(number,)) as desk:
        probes = await desk.provider.probe(desk.url, [number])
        assert named(probes) == [("credentials", True), ("number-owned", True)]
        assert "none come here" in probes[1].message
        call = await desk.dial(from_number=number)
        assert call.provider_call_id in desk.twilio.calls


async def test_a_probe_with_wrong_credentials() -> None:
    async with open_desk({"authToken": "wrong"}) as desk:
        [probe] = await desk.provider.probe(desk.url, [HERE])
        assert (probe.name, probe.ok) == ("credentials", False)
        assert "twilio.authToken" in probe.message


async def test_a_probe_of_an_account_that_cannot_be_asked() -> None:
    async with open_desk() as desk:
        desk.twilio.faults.rest = [RestFault(status=503)]
        [probe] = await desk.provider.probe(desk.url, [HERE])
        assert (probe.name, probe.ok) == ("credentials", False)
        assert "could not be checked" in probe.message


@pytest.mark.parametrize(
    ("number", "path"), [(HERE, "/IncomingPhoneNumbers"), ("+15550777777", "/OutgoingCallerIds")]
)
async def test_a_probe_of_a_number_that_cannot_be_looked_up(number: str, path: str) -> None:
    async with open_desk() as desk:
        # The first request is about the credentials.
        desk.twilio.faults.rest = [
            RestFault(delay_ms=1, times=1),
            RestFault(status=403, paths=(f"GET {path}",)),
        ]
        probes = await desk.provider.probe(desk.url, [number])
        assert named(probes) == [("credentials", True), ("number-owned", False)]
        assert f"{number} could not be looked up" in probes[1].message


@pytest.mark.parametrize(
    ("attribute", "said"), [("voice_application_sid", "TwiML app"), ("trunk_sid", "SIP trunk")]
)
async def test_a_probe_of_a_number_whose_calls_something_else_takes(
    attribute: str, said: str
) -> None:
    number = {"phone_number": HERE, "voice_url": "", attribute: "AP1"}
    page = json.dumps({"incoming_phone_numbers": [number]})
    async with answering(page) as config, open_desk(config) as desk:
        probes = await desk.provider.probe(desk.url, [HERE])
        assert named(probes)[1:] == [("number-owned", True), ("number-webhook", False)]
        assert f"{said} (AP1)" in probes[2].message
