"""Which conversation history a call belongs to."""

from __future__ import annotations

import pytest

from voicecall.errors import InvalidRequest
from voicecall_calls.engine.sessions import Scope, session_key

pytestmark = pytest.mark.unit


def key(
    scope: Scope = "per-phone",
    *,
    number: str | None = "+1 (555) 000-2222",
    explicit: str | None = None,
    agent: str = "Main",
    one_for_all: bool = False,
) -> str:
    return session_key(
        agent_id=agent,
        scope=scope,
        call_id="Call-1",
        remote_number=number,
        explicit=explicit,
        one_for_all=one_for_all,
    )


def test_a_key_for_each_scope() -> None:
    assert key("per-phone") == "agent:main:voice:15550002222"
    assert key("per-call") == "agent:main:voice:call:call-1"
    assert key("main") == "agent:main:main"


def test_agents_share_the_main_session_where_sessions_are_global() -> None:
    assert key("main", one_for_all=True) == "global"
    assert key("main", explicit="desk", one_for_all=True) == "agent:main:desk"
    assert key("per-phone", one_for_all=True) == key("per-phone")
    assert key("per-call", one_for_all=True) == key("per-call")


@pytest.mark.parametrize("number", [None, "", "anonymous"])
def test_a_caller_without_a_number_has_a_history_of_one_call(number: str | None) -> None:
    assert key(number=number) == "agent:main:voice:call-1"


@pytest.mark.parametrize(
    "address", ["sip:+15550002222@a.example", "client:15550002222", "sip:1001@pbx", "client:1001"]
)
def test_an_address_has_a_history_of_its_own(address: str) -> None:
    assert key(number=address) == f"agent:main:voice:{address}"
    assert key(number=address.upper()) == key(number=address) != key()


@pytest.mark.parametrize(
    ("explicit", "expected"),
    [
        ("global", "global"),
        (" Unknown ", "unknown"),
        ("agent:main:Desk", "agent:main:desk"),
        ("agent:main:", "agent:main:agent:main:"),
        ("agent:other:desk", "agent:main:agent:other:desk"),
        ("desk 7", "agent:main:desk 7"),
    ],
)
def test_an_explicit_key_stays_with_its_agent(explicit: str, expected: str) -> None:
    assert key("main", explicit=explicit) == expected


def test_a_blank_key_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="sessionKey"):
        key(explicit="  ")


def test_agents_do_not_share_histories() -> None:
    assert key(agent="sales") != key(agent="support")
