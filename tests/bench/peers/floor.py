"""The floor of Python: picows, a typed decode, the codec both ways, the reply from a template.

python floor.py PORT
"""

from __future__ import annotations

import asyncio
import sys
import warnings
from binascii import b2a_base64

import msgspec
import uvloop
from picows import WSFrame, WSListener, WSMsgType, WSTransport, WSUpgradeRequest, ws_create_server

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    from audioop import lin2ulaw, ulaw2lin


class Media(msgspec.Struct):
    payload: bytes


class Start(msgspec.Struct):
    streamSid: str  # noqa: N815


class Message(msgspec.Struct):
    event: str
    media: Media | None = None
    start: Start | None = None


decode = msgspec.json.Decoder(Message).decode


class Echo(WSListener):
    head = b""

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type is not WSMsgType.TEXT:
            if frame.msg_type is WSMsgType.CLOSE:
                transport.disconnect()
            return
        message = decode(frame.get_payload_as_memoryview())
        if message.media is not None:
            audio = lin2ulaw(ulaw2lin(message.media.payload, 2), 2)
            reply = self.head + b2a_base64(audio, newline=False) + b'"}}'
            transport.send(WSMsgType.TEXT, reply)
        elif message.start is not None:
            sid = msgspec.json.encode(message.start.streamSid)
            self.head = b'{"event":"media","streamSid":' + sid + b',"media":{"payload":"'


def listener(request: WSUpgradeRequest) -> WSListener:
    return Echo()


async def main(port: int) -> None:
    server = await ws_create_server(listener, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.Runner(loop_factory=uvloop.new_event_loop).run(main(int(sys.argv[1])))
