"""Which callers the inbound policies admit, and which route a dialled number selects."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from voicecall.model import EndDetail
from voicecall.store import Approval
from voicecall_calls.config import VoiceCallConfig
from voicecall_calls.engine.admission import Admission, admit_inbound, in_spite_of, route_for
from voicecall_calls.pairing import Pairing

pytestmark = [pytest.mark.unit, pytest.mark.anyio]

LISTED = "+15550001234"
WELCOME = Admission()
REFUSED = Admission(refused=EndDetail.POLICY)


def config(**values: Any) -> VoiceCallConfig:
    return VoiceCallConfig.model_validate(values)


ALLOWLIST = config(inboundPolicy="allowlist", allowFrom=[LISTED])


class Asked(Pairing):
    """Knows one approved number, has one code for all others, and records the look-ups."""

    def __init__(self, approved: str | None = None, code: str | None = "123456") -> None:
        self._approved = approved
        self._code = code
        self.asked: list[str] = []

    async def approved(self, number: str) -> bool:
        self.asked.append(number)
        return number == self._approved

    async def code_for(self, number: str) -> str | None:
        return self._code


async def admit(config: VoiceCallConfig, number: str | None) -> Admission:
    """The decision, which does not need the approvals."""
    pairing = Asked()
    admission = await admit_inbound(config, number, pairing)
    assert pairing.asked == []
    return admission


@pytest.mark.parametrize("number", [None, LISTED])
async def test_open_lets_everybody_in(number: str | None) -> None:
    assert await admit(config(inboundPolicy="open"), number) == WELCOME


async def test_nobody_is_let_in_unless_configured() -> None:
    assert await admit(config(), LISTED) == REFUSED


@pytest.mark.parametrize("number", [None, "", "anonymous", "Restricted"])
@pytest.mark.parametrize("policy", ["allowlist", "pairing"])
async def test_a_caller_without_a_number_is_refused(policy: str, number: str | None) -> None:
    assert await admit(config(inboundPolicy=policy, allowFrom=[LISTED]), number) == REFUSED
    assert await admit(config(inboundPolicy=policy), number) == REFUSED


@pytest.mark.parametrize(
    "address",
    [
        f"sip:{LISTED}@evil.example",
        f"client:{LISTED[1:]}",
        f"tel:{LISTED}",
        f"{LISTED};ext=1",
        f"{LISTED}@evil.example",
        f"Ann {LISTED}",
        "+1\u0665550001234",
    ],
)
@pytest.mark.parametrize("policy", ["allowlist", "pairing"])
async def test_an_address_that_its_caller_chose_is_refused(policy: str, address: str) -> None:
    assert await admit(config(inboundPolicy=policy, allowFrom=[LISTED]), address) == REFUSED


@pytest.mark.parametrize("number", ["5550001234", "+995550001234", "+1555000123", "0001234"])
async def test_a_number_that_only_looks_alike_is_refused(number: str) -> None:
    assert await admit(ALLOWLIST, number) == REFUSED


@pytest.mark.parametrize("number", [LISTED, "15550001234", "+1 (555) 000-1234"])
async def test_the_listed_number_is_let_in_however_it_is_written(number: str) -> None:
    assert await admit(ALLOWLIST, number) == WELCOME


@given(st.text(alphabet="0123456789+-() abc", max_size=16) | st.just(LISTED))
def test_only_equal_digits_are_let_in(number: str) -> None:
    digits = "".join(c for c in number if c.isdigit())
    admission = anyio.run(admit, ALLOWLIST, number)
    assert (admission == WELCOME) == (digits == "15550001234")


async def test_pairing_asks_for_the_approval_of_a_stranger_only() -> None:
    pairing = config(inboundPolicy="pairing", allowFrom=[LISTED])
    assert await admit(pairing, LISTED) == WELCOME
    friend, stranger = "+15550007777", "+15550008888"
    assert await admit_inbound(pairing, friend, Asked(approved=friend)) == WELCOME
    asked = Asked(approved=friend)
    assert await admit_inbound(pairing, stranger, asked) == Admission(code="123456")
    assert asked.asked == [stranger]
    assert await admit_inbound(pairing, stranger, Asked(code=None)) == REFUSED


async def test_pairing_guesses_no_country_of_what_a_carrier_writes() -> None:
    policy, friend = config(inboundPolicy="pairing"), "+15550007777"
    for written in ("0015550007777", "00 1 555 000 7777"):
        asked = Asked(approved=friend)
        assert await admit_inbound(policy, written, asked) == REFUSED
        assert asked.asked == []


@pytest.mark.parametrize("policy", ["disabled", "allowlist", "pairing", "open"])
@pytest.mark.parametrize("number", [LISTED, "+15550007777"])
@pytest.mark.parametrize("status", ["approved", "revoked"])
async def test_what_makes_a_decision_meaningless_is_told(
    policy: str, number: str, status: str
) -> None:
    values = config(inboundPolicy=policy, allowFrom=[LISTED])
    approved = status == "approved"
    pairing = Asked(approved=number if approved else None, code=None)
    let_in = await admit_inbound(values, number, pairing) == WELCOME
    but = in_spite_of(values, Approval(number, status, "", 0, 0))
    assert (but is None) == (let_in == approved)
    if but is not None:
        assert "allowFrom" in but or policy in but


def test_a_route_is_found_by_its_digits() -> None:
    routes = config(numbers={LISTED: {"agentId": "sales"}, "+15550009999": {"agentId": "night"}})
    assert route_for(routes, LISTED) == (LISTED, routes.numbers[LISTED])
    assert route_for(routes, "1 555 000 1234") == (LISTED, routes.numbers[LISTED])
    assert route_for(routes, "+15550000000") is None
    assert route_for(routes, None) is None
