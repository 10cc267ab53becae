"""The URL that a carrier signs is recognised, however proxies rewrite the request."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Protocol

import pytest

from voicecall_calls.server import WebhookSecurity

from .boundary import CARRIERS, Carrier, listening

pytestmark = [
    pytest.mark.integration,
    pytest.mark.anyio,
    pytest.mark.usefixtures("backstage"),
]

HOOK = "/voice/webhook"
QUERY = "?callId=a%20b%2Fc&x=1+2&x=&y"
LISTED = WebhookSecurity(allowed_hosts=("p.example", "[2001:db8::1]"))
PROXY = WebhookSecurity(
    trust_forwarding_headers=True, trusted_proxy_ips=("192.0.2.7", "127.0.0.0/8", "::1/128")
)
STRANGER = WebhookSecurity(trust_forwarding_headers=True, trusted_proxy_ips=("192.0.2.0/24",))
FORWARDED = {"host": "gateway.internal", "x-forwarded-host": "p.example"}


@pytest.fixture(params=sorted(CARRIERS))
def carrier(request: pytest.FixtureRequest) -> Carrier:
    return CARRIERS[request.param]


class Asking(Protocol):
    async def __call__(
        self, signed: str, *, path: str = ..., headers: Mapping[str, str] | None = None
    ) -> int:
        """The status for a request that the carrier has sent to ``signed``, as it arrives."""
        ...


@asynccontextmanager
async def asking(carrier: Carrier, **options: Any) -> AsyncIterator[Asking]:
    async with listening(carrier.provider(), **options) as (server, desk, client):
        local = server.local_url.removesuffix(HOOK)

        async def ask(
            signed: str, *, path: str = HOOK + QUERY, headers: Mapping[str, str] | None = None
        ) -> int:
            before = len(desk.handled)
            body = carrier.ringing()
            sent = {**carrier.signed(signed.replace("{local}", local), body), **(headers or {})}
            response = await client.post(local + path, content=body, headers=sent)
            assert len(desk.handled) - before == (response.status_code == 200)
            return response.status_code

        yield ask


PUBLIC = [
    "https://p.example/voice/webhook",
    "https://p.example:8443/voice/webhook",
    "https://p.example:443/voice/webhook",
    "http://p.example:8080/voice/webhook",
    "https://198.51.100.7/voice/webhook",
    "https://[2001:db8::1]/voice/webhook",
    "https://[2001:db8::1]:8443/voice/webhook",
    "https://p.example/phones/1/hook",
    "https://p.example:8443/hook/",
    "https://xn--bcher-kva.example/voice/webhook",
]


@pytest.mark.parametrize("url", PUBLIC)
async def test_a_public_url_is_what_is_signed(carrier: Carrier, url: str) -> None:
    """Whatever the proxy makes of host, scheme, port and path; the query comes with the request."""
    async with asking(carrier, public_url=url) as ask:
        for headers in ({}, FORWARDED, {"host": "evil.example:1", "x-forwarded-proto": "http"}):
            assert await ask(url + QUERY, headers=headers) == 200
        assert await ask(url, path=HOOK) == 200
        assert await ask(url, path=HOOK + "/") == 200
        for wrong in (
            url,
            url + "?callId=c-2",
            url.replace("://", "://x.") + QUERY,
            url + "/more" + QUERY,
            "{local}" + HOOK + QUERY,
        ):
            assert await ask(wrong) == 401


async def test_a_query_of_the_public_url_is_no_part_of_other_requests(carrier: Carrier) -> None:
    url = "https://p.example/hook"
    async with asking(carrier, public_url=f"{url}?tenant=7") as ask:
        signed, arrived = f"{url}?tenant=7&callId=c-1", f"{HOOK}?tenant=7&callId=c-1"
        assert await ask(signed, path=arrived) == 200
        assert await ask(url, path=HOOK) == 200


@pytest.mark.parametrize(
    ("signed", "headers", "security"),
    [
        ("https://p.example", {"host": "p.example"}, None),
        ("https://p.example:8443", {"host": "P.Example:8443"}, None),
        ("https://p.example", {"host": "p.example:443"}, None),
        ("https://[2001:db8::1]", {"host": "[2001:DB8::1]"}, None),
        ("https://[2001:db8::1]:8443", {"host": "[2001:db8::1]:8443"}, None),
        # A forwarded host that nobody is trusted with.
        ("https://gateway.internal", FORWARDED, None),
        ("https://gateway.internal", FORWARDED, STRANGER),
        # One that is.
        ("https://p.example", FORWARDED, PROXY),
        ("https://p.example", FORWARDED, LISTED),
        ("https://p.example", {**FORWARDED, "x-forwarded-proto": "https, http"}, PROXY),
        ("http://p.example", {**FORWARDED, "x-forwarded-proto": "http,https"}, PROXY),
        (
            "http://p.example:8080",
            {"x-forwarded-host": "p.example:8080", "x-forwarded-proto": "http"},
            PROXY,
        ),
        ("https://p.example:8443", {"x-forwarded-host": "p.example:8443, a.b"}, PROXY),
        ("https://[2001:db8::1]:8443", {"x-forwarded-host": "[2001:db8::1]:8443"}, LISTED),
        ("https://p.example", {"x-original-host": "p.example"}, PROXY),
        ("https://p.example", {"ngrok-forwarded-host": "p.example"}, PROXY),
        ("https://p.example", {**FORWARDED, "x-original-host": "b.example"}, PROXY),
        # Not the one that is listed: the next that is.
        ("https://p.example", {"x-forwarded-host": "b.example", "host": "p.example"}, LISTED),
    ],
)
async def test_without_one_host_and_scheme_are_those_that_are_believed(
    carrier: Carrier, signed: str, headers: Mapping[str, str], security: WebhookSecurity | None
) -> None:
    async with asking(carrier, security=security) as ask:
        assert await ask(signed + HOOK + QUERY, headers=headers) == 200
        scheme = "http" if signed.startswith("https:") else "https"
        for wrong in ("https://evil.example", scheme + signed[signed.index(":") :]):
            assert await ask(wrong + HOOK + QUERY, headers=headers) == 401


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "evil.example"},
        {"host": "evil.example", "x-forwarded-host": "evil.example"},
        {"host": "p.example@evil.example"},
        {"host": "p.example.evil.example"},
        {"host": "[::1%p.example]"},
    ],
)
async def test_a_host_that_is_not_listed_is_refused_whatever_is_signed(
    carrier: Carrier, headers: Mapping[str, str]
) -> None:
    async with asking(carrier, security=LISTED) as ask:
        for signed in (f"https://{headers['host']}", "https://p.example", "{local}"):
            assert await ask(signed + HOOK + QUERY, headers=headers) == 401


@pytest.mark.parametrize(
    ("public_url", "signed", "headers"),
    [
        # another host, as the proxy tells it
        ("https://p.example/voice/webhook", "https://q.example", {"host": "q.example"}),
        ("https://p.example/voice/webhook", "https://q.example", {"x-forwarded-host": "q.example"}),
        ("https://p.example/voice/webhook", "https://q.example:8443", {"host": "q.example:8443"}),
        (None, "https://q.example", {"x-forwarded-host": "q.example"}),
        # another scheme, port or path
        ("https://p.example/voice/webhook", "http://p.example", {}),
        ("http://p.example/voice/webhook", "https://p.example", {}),
        ("https://p.example", "https://p.example", {}),
        ("https://p.example/hook", "https://p.example", {"host": "gateway.internal"}),
    ],
)
async def test_the_log_tells_which_url_was_signed(
    carrier: Carrier,
    public_url: str | None,
    signed: str,
    headers: Mapping[str, str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with asking(carrier, public_url=public_url) as ask:
        assert await ask(signed + HOOK + QUERY, headers=headers) == 401
        # Not looked for each time: whoever makes signatures up must not keep us busy.
        assert await ask(signed + HOOK + QUERY, headers=headers) == 401
    first, second = (line for line in caplog.messages if "refused: 401" in line)
    assert f" but right for {signed}{HOOK}: publicUrl and" in first
    assert "but right for" not in second


async def test_the_log_tells_of_no_url_that_was_not_signed(
    carrier: Carrier, caplog: pytest.LogCaptureFixture
) -> None:
    async with asking(carrier, public_url="https://p.example" + HOOK) as ask:
        assert (
            await ask("https://evil.example" + HOOK + QUERY, headers={"host": "q.example"}) == 401
        )
    (line,) = (line for line in caplog.messages if "refused: 401" in line)
    assert "but right for" not in line


@pytest.mark.parametrize("bind", ["127.0.0.1", "::1", "0.0.0.0"])
async def test_the_listener_is_known_by_its_own_address(carrier: Carrier, bind: str) -> None:
    async with asking(carrier, bind=bind) as ask:
        assert await ask("{local}" + HOOK + QUERY) == 200
        assert await ask("{local}" + HOOK) == 401


@pytest.mark.parametrize("signed", ["https://p.example", "https://p.example:443"])
async def test_twilio_may_sign_with_or_without_a_port(signed: str) -> None:
    carrier = CARRIERS["twilio"]
    for port in ("", ":443", ":8443"):
        async with asking(carrier, public_url=f"https://p.example{port}{HOOK}") as ask:
            assert await ask(signed + HOOK + QUERY) == 200
        async with asking(carrier) as ask:
            headers = {"host": f"p.example{port}"}
            assert await ask(signed + HOOK + QUERY, headers=headers) == 200
