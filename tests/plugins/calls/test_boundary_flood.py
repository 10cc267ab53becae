"""A flood of webhooks does not keep genuine ones out."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import anyio
import anyio.abc
import httpx
import pytest

from voicecall_calls.server import CallServer, WebhookSecurity
from voicecall_calls.server.places import Places

from .boundary import CARRIERS, answer_of, listening

pytestmark = [
    pytest.mark.integration,
    pytest.mark.anyio,
    pytest.mark.usefixtures("backstage"),
]

CARRIER = CARRIERS["twilio"]
PROXIED = WebhookSecurity(trust_forwarding_headers=True, trusted_proxy_ips=("127.0.0.0/8",))
TIGHT = WebhookSecurity(max_in_flight_per_client=64)


@asynccontextmanager
async def flooded(
    server: CallServer, count: int, *, client: str = ""
) -> AsyncIterator[list[anyio.abc.SocketStream]]:
    """Open ``count`` requests with forged signatures, which hold back their bodies."""
    head = (
        f"POST /voice/webhook HTTP/1.1\r\nhost: 127.0.0.1:{server.port}\r\n"
        "x-twilio-signature: bm8gc2lnbmF0dXJlIGF0IGFsbA==\r\n"
        "content-type: application/x-www-form-urlencoded\r\ncontent-length: 500\r\n"
    )
    head += f"x-forwarded-for: {client}\r\n" if client else ""
    async with AsyncExitStack() as stack:
        streams = []
        for _ in range(count):
            stream = await stack.enter_async_context(
                await anyio.connect_tcp("127.0.0.1", server.port)
            )
            await stream.send(head.encode() + b"\r\nCallSid=")
            streams.append(stream)
        yield streams


async def post(server: CallServer, client: httpx.AsyncClient, **more: str) -> int:
    body = CARRIER.ringing()
    headers = {**CARRIER.signed(server.local_url, body), **more}
    return (await client.post(server.local_url, content=body, headers=headers)).status_code


async def expect(server: CallServer, client: httpx.AsyncClient, status: int) -> None:
    assert await post(server, client) == status


@pytest.mark.parametrize(
    ("security", "count"),
    [(WebhookSecurity(), 8), (WebhookSecurity(), 40), (TIGHT, 64), (TIGHT, 100)],
)
async def test_slow_bodies_give_way(security: WebhookSecurity, count: int) -> None:
    """Behind a tunnel or an untrusted proxy, all of them have the carrier's address."""
    async with listening(CARRIER.provider(), security=security) as (server, desk, client):
        async with flooded(server, count) as streams:
            for _ in range(5):
                assert await post(server, client) == 200
            answer = await streams[0].receive()
            assert answer.startswith(b"HTTP/1.1 429 ")
            assert b"retry-after: 1" in answer
            assert b"connection: close" in answer
            with pytest.raises(anyio.EndOfStream):
                await streams[0].receive()
        assert len(desk.handled) == 5


@pytest.mark.parametrize(("security", "count"), [(WebhookSecurity(), 8), (TIGHT, 64)])
async def test_nobody_gets_past_slow_bodies_who_is_not_genuine(
    security: WebhookSecurity, count: int
) -> None:
    async with listening(CARRIER.provider(), security=security) as (server, desk, client):
        async with flooded(server, count) as slow:
            url, body = server.local_url, CARRIER.ringing()
            signed = CARRIER.signed(url, body)
            forged = {**signed, "x-twilio-signature": "bm8gc2lnbmF0dXJlIGF0IGFsbA=="}
            huge = b"a" * 70_000
            for headers, sent in ((forged, body), (signed, huge)):
                response = await client.post(url, content=sent, headers=headers)
                assert response.status_code == 429
                assert response.headers["retry-after"] == "1"
                # As it would be with a place.
                assert (response.headers.get("connection") == "close") is (sent is huge)
            async with flooded(server, 1) as standing:
                assert (await standing[0].receive()).startswith(b"HTTP/1.1 429 ")
            assert desk.handled == []
            # The first ones are still waited for.
            for stream in slow:
                await stream.send(b"x" * 492)
                assert (await stream.receive()).startswith(b"HTTP/1.1 401 ")


async def test_behind_a_trusted_proxy_a_flood_takes_the_places_of_its_own_address() -> None:
    async with listening(CARRIER.provider(), security=PROXIED) as (server, desk, client):

        async def genuine(source: str, status: int) -> None:
            assert await post(server, client, **{"x-forwarded-for": source}) == status

        desk.gate = anyio.Event()
        async with anyio.create_task_group() as tasks, flooded(server, 20, client="192.0.2.66"):
            for _ in range(8):
                tasks.start_soon(genuine, "198.51.100.1", 200)
            await desk.until_waiting(8)
            await genuine("198.51.100.1", 429)
            # A client cannot give itself the address of another one.
            await genuine("198.51.100.2, 198.51.100.1", 429)
            tasks.start_soon(genuine, "198.51.100.2", 200)
            await desk.until_waiting(9)
            desk.gate.set()
        assert len(desk.handled) == 9


@pytest.mark.parametrize(
    ("security", "key"),
    [
        (WebhookSecurity(max_in_flight_per_client=1), "maxInFlightPerClient"),
        (WebhookSecurity(max_in_flight=1), "maxInFlight"),
    ],
)
async def test_the_log_names_the_limit(
    security: WebhookSecurity, key: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with listening(CARRIER.provider(), security=security) as (server, desk, client):
        desk.gate = anyio.Event()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(expect, server, client, 200)
            await desk.until_waiting(1)
            await expect(server, client, 429)
            desk.gate.set()
    assert f"(webhookSecurity.{key})" in caplog.text


async def test_whoever_sends_at_once_is_not_overtaken() -> None:
    """A request that is being handled keeps its place, however many others come."""
    async with listening(CARRIER.provider()) as (server, desk, client):
        desk.gate = anyio.Event()
        async with anyio.create_task_group() as tasks:
            for _ in range(8):
                tasks.start_soon(expect, server, client, 200)
            await desk.until_waiting(8)
            async with flooded(server, 3) as streams:
                for stream in streams:
                    assert (await stream.receive()).startswith(b"HTTP/1.1 429 ")
            desk.gate.set()
        assert len(desk.handled) == 8


async def test_whoever_stands_until_all_places_are_of_handled_requests_gets_none() -> None:
    security = WebhookSecurity(max_in_flight=1)
    async with (
        listening(CARRIER.provider(), security=security) as (server, desk, _),
        AsyncExitStack() as stack,
    ):
        desk.gate = anyio.Event()
        streams = []
        for _ in range(2):
            body = CARRIER.ringing()
            head = f"POST /voice/webhook HTTP/1.1\r\nhost: 127.0.0.1:{server.port}\r\n"
            for name, value in CARRIER.signed(server.local_url, body).items():
                head += f"{name}: {value}\r\n"
            head += f"content-length: {len(body)}\r\n\r\n"
            stream = await stack.enter_async_context(
                await anyio.connect_tcp("127.0.0.1", server.port)
            )
            await stream.send(head.encode() + body[:-1])
            streams.append((stream, body[-1:]))
            # Once this is answered, the request before it waits for its body.
            await answer_of(server.port, b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
        (first, rest), (second, last) = streams
        await first.send(rest)
        await desk.until_waiting(1)
        await second.send(last)
        assert (await second.receive()).startswith(b"HTTP/1.1 429 ")
        desk.gate.set()
        assert (await first.receive()).startswith(b"HTTP/1.1 200 ")
        assert len(desk.handled) == 1


async def test_many_genuine_webhooks_pass_through_a_flood_that_goes_on() -> None:
    async with listening(CARRIER.provider()) as (server, desk, client):
        async with anyio.create_task_group() as tasks:

            async def flood() -> None:
                while True:
                    async with flooded(server, 10):
                        await anyio.sleep(0.01)

            tasks.start_soon(flood)
            statuses = [await post(server, client) for _ in range(50)]
            tasks.cancel_scope.cancel()
        assert statuses == [200] * 50
        assert len(desk.handled) == 50
        # Afterwards there are as many places as before.
        desk.gate = anyio.Event()
        async with anyio.create_task_group() as tasks:
            for _ in range(8):
                tasks.start_soon(expect, server, client, 200)
            await desk.until_waiting(8)
            assert await post(server, client) == 429
            desk.gate.set()


async def test_whoever_has_got_a_place_stands_no_more() -> None:
    places = Places(per_client=1, total=1)
    for _ in range(3):
        slow = places.take("a")
        assert slow is not None
        with anyio.fail_after(60), places.reading(slow, 3600):
            genuine = places.take("a")
            assert genuine is not None
            assert genuine.standing
            assert places.claim(genuine)
            assert (slow.lost, genuine.standing) == (True, False)
            # Nobody waits for this body any longer.
            await anyio.sleep_forever()
        places.give_back(genuine)
        places.give_back(slow)


async def test_two_genuine_ones_at_once_take_two_places() -> None:
    places = Places(per_client=2, total=2)
    one, other = places.take("a"), places.take("a")
    assert one is not None
    assert other is not None
    with places.reading(one, 60), places.reading(other, 60):
        for lost in ([True, False], [True, True]):
            genuine = places.take("a")
            assert genuine is not None
            assert places.claim(genuine)
            assert [one.lost, other.lost] == lost
        assert places.take("a") is None


async def test_slow_bodies_of_one_client_give_way_to_another() -> None:
    places = Places(per_client=2, total=2)
    slow = [places.take("a") for _ in range(2)]
    assert slow[0] is not None
    with places.reading(slow[0], 60):
        genuine = places.take("b")
        assert genuine is not None
        assert places.claim(genuine)
        assert slow[0].lost


async def test_no_more_stand_than_there_are_places() -> None:
    places = Places(per_client=2, total=2)
    slow = [places.take("a") for _ in range(2)]
    assert slow[0] is not None
    with places.reading(slow[0], 60):
        standing = [places.take("a") for _ in range(4)]
        lost = [place is not None and place.lost for place in standing]
        assert lost == [True, True, False, False]
        # Whoever has gone stands in nobody's way.
        for place in standing:
            assert place is not None
            places.give_back(place)
        staying = places.take("a")
        assert staying is not None
        for _ in range(4):
            passing = places.take("a")
            assert passing is not None
            places.give_back(passing)
        assert not staying.lost


async def test_what_is_handled_gives_way_to_nobody_and_another_client_only_where_it_helps() -> None:
    places = Places(per_client=1, total=2)
    other, handled = places.take("b"), places.take("a")
    assert other is not None
    assert handled is not None
    with places.reading(other, 60):
        with places.reading(handled, 60):
            late = places.take("a")
            assert late is not None
        assert not places.claim(late)
        assert places.take("a") is None
        assert (other.lost, handled.lost) == (False, False)
