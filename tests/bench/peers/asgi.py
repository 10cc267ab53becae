"""starlette on uvicorn's WebSocket layer, with the fastest parts that uvicorn offers.

python asgi.py PORT
"""

from __future__ import annotations

import sys
from binascii import a2b_base64, b2a_base64

import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect


async def echo(socket: WebSocket) -> None:
    await socket.accept()
    head = ""
    try:
        while True:
            message = msgspec.json.decode(await socket.receive_text())
            if message["event"] == "media":
                audio = a2b_base64(message["media"]["payload"])
                await socket.send_text(head + b2a_base64(audio, newline=False).decode() + '"}}')
            elif message["event"] == "start":
                sid = msgspec.json.encode(message["start"]["streamSid"]).decode()
                head = '{"event":"media","streamSid":' + sid + ',"media":{"payload":"'
    except WebSocketDisconnect:
        return


if __name__ == "__main__":
    uvicorn.run(
        Starlette(routes=[WebSocketRoute("/{path:path}", echo)]),
        port=int(sys.argv[1]),
        loop="uvloop",
        http="httptools",
        ws="websockets-sansio",
        ws_per_message_deflate=False,
        lifespan="off",
        log_config=None,
        access_log=False,
    )
