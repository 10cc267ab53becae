"""starlette that checks webhooks with Twilio's own validator and answers with a document, storing
nothing.

python validator.py PORT AUTH_TOKEN
"""

from __future__ import annotations

import sys
from urllib.parse import parse_qsl

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from twilio.request_validator import RequestValidator

validator = RequestValidator(sys.argv[2])
DOCUMENT = (
    '<?xml version="1.0" encoding="UTF-8"?><Response><Connect>'
    '<Stream url="wss://example.org/voice/stream">'
    '<Parameter name="token" value="0123456789abcdef0123456789abcdef"/></Stream>'
    "</Connect></Response>"
)


async def webhook(request: Request) -> Response:
    form = dict(parse_qsl((await request.body()).decode(), keep_blank_values=True))
    signature = request.headers.get("x-twilio-signature", "")
    if not validator.validate(str(request.url), form, signature):
        return Response(status_code=401)
    return Response(DOCUMENT, media_type="text/xml")


if __name__ == "__main__":
    uvicorn.run(
        Starlette(routes=[Route("/voice/webhook", webhook, methods=["POST"])]),
        port=int(sys.argv[1]),
        loop="uvloop",
        http="httptools",
        lifespan="off",
        log_config=None,
        access_log=False,
    )
