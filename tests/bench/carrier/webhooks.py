"""Signed webhooks as the carrier sends them, over kept HTTP connections."""

from __future__ import annotations

import asyncio
import hmac
import re
import xml.etree.ElementTree as ET
from base64 import b64encode
from dataclasses import dataclass
from typing import Self
from urllib.parse import urlencode

__all__ = ["ACCOUNT", "AUTH_TOKEN", "HERE", "PATH", "HttpLink", "StreamOrder", "inbound", "order"]

ACCOUNT = "AC" + "b" * 32
AUTH_TOKEN = "a-token-of-the-benchmark"
HERE = "+15550200000"
PATH = "/voice/webhook"

_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]+)", re.IGNORECASE)


@dataclass(frozen=True)
class StreamOrder:
    """The URL to which a document sends the call's audio, and its parameters."""

    url: str
    parameters: dict[str, str]


def inbound(call_sid: str, number: int, url: str) -> bytes:
    """The request of a new inbound call, with the fields that Twilio sends, to ``url``."""
    caller = f"+1555{number % 10**7:07d}"
    form = {
        "AccountSid": ACCOUNT,
        "ApiVersion": "2010-04-01",
        "CallSid": call_sid,
        "CallStatus": "ringing",
        "CallToken": "%7B%22parentCallInfoToken%22%3A%22" + call_sid * 4 + "%22%7D",
        "Called": HERE,
        "CalledCity": "",
        "CalledCountry": "US",
        "CalledState": "CA",
        "CalledZip": "",
        "Caller": caller,
        "CallerCity": "SPRINGFIELD",
        "CallerCountry": "US",
        "CallerState": "IL",
        "CallerZip": "62701",
        "Direction": "inbound",
        "From": caller,
        "FromCity": "SPRINGFIELD",
        "FromCountry": "US",
        "FromState": "IL",
        "FromZip": "62701",
        "To": HERE,
        "ToCountry": "US",
        "ToState": "CA",
    }
    return request(url, form)


def request(url: str, form: dict[str, str]) -> bytes:
    """A signed POST of ``form``, as bytes for the socket."""
    signed = url + "".join(name + form[name] for name in sorted(form))
    digest = hmac.digest(AUTH_TOKEN.encode(), signed.encode(), "sha1")
    scheme_and_host, slash, path = url.partition("//")[2].partition("/")
    body = urlencode(form).encode()
    head = (
        f"POST {slash}{path} HTTP/1.1\r\nhost: {scheme_and_host}\r\n"
        "user-agent: TwilioProxy/1.1\r\naccept: */*\r\n"
        "content-type: application/x-www-form-urlencoded; charset=utf-8\r\n"
        f"x-twilio-signature: {b64encode(digest).decode()}\r\n"
        f"i-twilio-idempotency-token: {form['CallSid']}\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class HttpLink:
    """One kept connection; one request at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, port: int) -> Self:
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    async def ask(self, request: bytes) -> bytes:
        """The body of the reply. Raises ``RuntimeError`` for any status but 200."""
        self._writer.write(request)
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = _LENGTH.search(head)
        body = await self._reader.readexactly(int(length[1]) if length else 0)
        if not head.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(f"{head!r} {body[:200]!r}")
        return body

    async def close(self) -> None:
        self._writer.close()
        await self._writer.wait_closed()


def order(document: bytes) -> StreamOrder:
    """The stream that a reply asks for. Raises ``RuntimeError`` if it asks for none."""
    stream = ET.fromstring(document).find("Connect/Stream")
    if stream is None:
        raise RuntimeError(f"no stream in {document[:300]!r}")
    parameters = {each.attrib["name"]: each.attrib["value"] for each in stream.iter("Parameter")}
    return StreamOrder(stream.attrib["url"], parameters)
