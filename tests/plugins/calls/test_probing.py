"""The public URL as ``setup --probe`` fetches it."""

from __future__ import annotations

import anyio
import anyio.abc
import pytest

from voicecall_calls.probing import public_url_check

pytestmark = [pytest.mark.integration, pytest.mark.anyio]


async def test_a_public_url_that_answers_byte_by_byte_is_not_waited_for() -> None:
    async def drip(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            try:
                await stream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
                while True:
                    await stream.send(b".")
                    await anyio.sleep(0.01)
            except anyio.BrokenResourceError:
                return

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra(anyio.abc.SocketAttribute.local_port)
    url = f"http://127.0.0.1:{port}/voice/webhook"
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, drip)
        check = await public_url_check(url, lambda challenge: "ours", 0.5)
        tasks.cancel_scope.cancel()
    assert (check.ok, check.message) == (False, f"{url} gives no answer within 0.5 s")
