"""The part of the carrier's REST API that benchmark calls need: every update is accepted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

__all__ = ["rest_api"]


@asynccontextmanager
async def rest_api() -> AsyncIterator[str]:
    """The URL of an API that answers while the context is entered."""
    server = await asyncio.start_server(_converse, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def _converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            line, *fields = head.split("\r\n")
            headers = dict(field.lower().split(": ", 1) for field in fields if field)
            await reader.readexactly(int(headers.get("content-length", "0")))
            sid = line.split()[1].rpartition("/")[2].removesuffix(".json")
            body = f'{{"sid":"{sid}","status":"in-progress"}}'
            writer.write(
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
                f"content-length: {len(body)}\r\n\r\n{body}".encode()
            )
    except (asyncio.IncompleteReadError, ConnectionError):
        # The client is gone.
        writer.close()
