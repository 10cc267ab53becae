"""The checks that a webhook passes in the server, cheapest first.

========================================= =====================================================
check                                     answer
========================================= =====================================================
another path                              404 (``GET /healthz`` is 200 ``ok``)
not POST                                  405
sent by a web page (``Origin`` header)    403
signature headers missing                 401, body unread
too many in flight (client, total)        429; a genuine one replaces the slowest body instead
body too long / too slow                  413 / 408
wrong host, wrong signature               401
repeated request                          the earlier reply, without any effect
unreadable body                           400
engine failure                            500; nothing was committed, so it may be sent again
========================================= =====================================================

With ``skip_signatures``, signatures are not required; the other checks remain.
Reasons are logged with the client's address and never sent.
"""

from __future__ import annotations

import hashlib
import logging
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from http import HTTPStatus

from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from voicecall.errors import StoreError, WebhookRejected
from voicecall.seam import Seam
from voicecall.telephony import TelephonyProvider, Verified, WebhookReply, WebhookRequest
from voicecall_calls.config import ServeConfig
from voicecall_calls.doors import WebhookHost
from voicecall_calls.news import LazyEvent
from voicecall_gateway.floods import FloodLog
from voicecall_gateway.heads import WHOLE

from .challenge import CHALLENGE, CHALLENGE_LIMIT
from .options import WebhookSecurity
from .places import Places
from .urls import Trust, headers_of, normal_path, other_urls, query_of, webhook_url

__all__ = ["HEALTH_PATH", "WebhookApp", "loggable"]

HEALTH_PATH = "/healthz"
_DRAIN = 1024 * 1024
_SHORT_BODY = 8 * 1024
_LOOK_PAUSE_S = 10.0
_CLOSE = {"connection": "close"}
_QUERY = re.compile(r"\?\S*")
_UNPRINTABLE = re.compile(r"[^\x20-\x7e]")
_NO_UPGRADE = (
    "no upgrade in a request at %s, the path of media sockets: if the carrier sent it, the proxy "
    "does not forward WebSockets"
)

logger = logging.getLogger("voicecall.calls.server")


def loggable(text: str) -> str:
    """External ``text`` made fit for the log: one short line, with the queries of URLs removed."""
    return _UNPRINTABLE.sub("?", _QUERY.sub("?...", text)[:300])


class _Body:
    """The part of a body that was read; ``length`` also counts discarded bytes."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.length = 0


class _Running:
    """A request that is being handled; its duplicates wait for ``done``."""

    def __init__(self) -> None:
        self.done = LazyEvent()
        self.reply: WebhookReply | None = None


class WebhookApp:
    """The ASGI application. ``public_url`` and ``local_url`` are set by the server.

    ``challenged`` answers a challenge in the query of a GET request, which shows that the public
    URL leads to this gateway.
    """

    def __init__(
        self,
        provider: TelephonyProvider,
        host: WebhookHost,
        *,
        serve: ServeConfig,
        media_path: str,
        security: WebhookSecurity,
        trust: Trust,
        seam: Seam,
        challenged: Callable[[str], str] | None = None,
    ) -> None:
        self.public_url: str | None = None
        self.local_url = ""
        self.refused: Counter[int] = Counter()
        """Number of refused requests by HTTP status."""
        self._provider = provider
        self._signatures = [frozenset(names) for names in provider.signature_headers]
        self._host = host
        self._path = normal_path(serve.path)
        self._media_path = normal_path(media_path)
        self._security = security
        self._trust = trust
        self._seam = seam
        self._challenged = challenged
        self._places = Places(
            per_client=security.max_in_flight_per_client, total=security.max_in_flight
        )
        self._running: dict[str, _Running] = {}
        self._log = FloodLog(logger, seam.monotonic)
        self._look_again = -math.inf

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            response = await self._respond(scope, receive)
        except ClientDisconnect:
            return
        await response(scope, receive, send)

    async def _respond(self, scope: Scope, receive: Receive) -> ASGIApp:
        path = normal_path(scope["path"])
        if path != self._path:
            healthy = path == HEALTH_PATH and scope["method"] in ("GET", "HEAD")
            if healthy:
                return Response("ok", 200, media_type="text/plain")
            if path == self._media_path:
                self._log.warning(_NO_UPGRADE, path)
            else:
                text = "nothing is served at %s (serve.path: %s)"
                self._log.info(text, loggable(path), self._path)
            return self._refusal(404)
        headers = _headers(scope)
        peer = scope["client"][0] if scope["client"] else None
        client = self._trust.client(peer, headers)
        try:
            reply = await self._answer(scope, receive, headers, peer, client)
        except WebhookRejected as refused:
            log = self._log.info if refused.status in (404, 405) else self._log.warning
            reason = loggable(refused.reason)
            log("webhook from %s refused: %d, %s", client, refused.status, reason)
            return self._refusal(refused.status, refused.headers)
        except ClientDisconnect:
            self._log.info("webhook from %s: the client disconnected", client)
            raise
        except StoreError as error:
            # While nothing can be stored, every webhook fails and is redelivered: no traceback.
            self._log.error("webhook from %s failed: %s", client, error)
            return self._refusal(500)
        except (Exception, SystemExit):
            logger.exception("webhook from %s failed", client)
            return self._refusal(500)
        return _Answer(reply)

    def _refusal(self, status: int, headers: Mapping[str, str] | None = None) -> Response:
        self.refused[status] += 1
        phrase = HTTPStatus(status).phrase if status in HTTPStatus._value2member_map_ else "Refused"
        return Response(phrase, status, dict(headers or {}), "text/plain")

    async def _answer(
        self,
        scope: Scope,
        receive: Receive,
        headers: Mapping[str, str],
        peer: str | None,
        client: str,
    ) -> WebhookReply:
        if scope["method"] == "GET" and self._challenged is not None:
            query = query_of(scope["query_string"].decode("latin-1"))
            if challenge := query.get(CHALLENGE):
                return WebhookReply(body=self._challenged(challenge[:CHALLENGE_LIMIT]).encode())
        if scope["method"] != "POST":
            raise WebhookRejected(405, f"method {scope['method']}", headers={"allow": "POST"})
        if "origin" in headers:
            # Carriers send none. Web pages in a local browser can reach loopback; if signatures are
            # skipped, or made with a well-known token, they could talk to the agent.
            raise WebhookRejected(403, "sent by a web page")
        if not (self._security.skip_signatures or self._has_signature(headers)):
            raise WebhookRejected(401, "no signature headers")
        place = self._places.take(client)
        if place is None:
            raise _too_many(reason=self._places.why_none(client))
        try:
            body = _Body()
            if WHOLE in scope:
                await self._read(receive, headers, body)
            else:
                with self._places.reading(place, self._security.body_timeout_s):
                    await self._read(receive, headers, body)
            if place.lost:
                raise _too_many(_CLOSE)
            if body.length > self._security.body_limit:
                limit = self._security.body_limit
                raise WebhookRejected(413, f"body over {limit} bytes", headers=_CLOSE)
            if place.late:
                raise WebhookRejected(408, "the body arrived too slowly", headers=_CLOSE)
            target = _target(scope)
            request = self._request(target, headers, peer, client, bytes(body.data))
            verified = self._verified(request, target)
            if not self._places.claim(place):
                raise _too_many(reason=self._places.why_none(client))
            return await self._handle(request, verified)
        except WebhookRejected as refused:
            if place.standing:
                # Without a place, the only answer is that there are too many.
                raise _too_many(refused.headers) from None
            raise
        finally:
            self._places.give_back(place)

    def _has_signature(self, headers: Mapping[str, str]) -> bool:
        return any(headers.keys() >= names for names in self._signatures)

    async def _read(self, receive: Receive, headers: Mapping[str, str], body: _Body) -> None:
        limit = self._security.body_limit
        announced = headers.get("content-length", "")
        if "expect" in headers and announced.isdecimal() and int(announced) > limit:
            # The client waits for 100 Continue before it sends the body.
            raise WebhookRejected(413, f"body of {announced} bytes", headers=_CLOSE)
        # The excess is read too: a socket closed with unread bytes is reset, and the client would
        # never see the answer.
        while body.length <= limit + _DRAIN:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            part = message.get("body", b"")
            body.length += len(part)
            if body.length <= limit:
                body.data += part
            if not message.get("more_body", False):
                break

    def _request(
        self, target: str, headers: Mapping[str, str], peer: str | None, client: str, body: bytes
    ) -> WebhookRequest:
        query = target.partition("?")[2]
        url = webhook_url(
            target,
            headers,
            peer,
            trust=self._trust,
            public_url=self.public_url,
            local_url=self.local_url,
        )
        if url is None:
            raise WebhookRejected(401, f"not for this host: {headers.get('host', '')!r}")
        return WebhookRequest(
            method="POST",
            url=url,
            query=query_of(query) if query else {},
            headers=headers,
            body=body,
            client=client,
        )

    def _verified(self, request: WebhookRequest, target: str) -> Verified:
        if self._security.skip_signatures:
            return Verified(_identity(request))
        try:
            verified = self._provider.verify(request, self._seam.now_ms())
        except WebhookRejected as refused:
            raise self._explained(refused, request, target) from None
        if not verified.key:
            raise WebhookRejected(401, "verified, but without an identity")
        return verified

    def _explained(
        self, refused: WebhookRejected, request: WebhookRequest, target: str
    ) -> WebhookRejected:
        """The refusal; from time to time with the URL that the carrier signed instead."""
        # If the URL is wrong, all webhooks are refused: it need not be looked for on every forged
        # signature.
        now = self._seam.monotonic()
        if now < self._look_again or len(request.body) > _SHORT_BODY:
            return refused
        self._look_again = now + _LOOK_PAUSE_S
        for url in other_urls(target, request.headers, self.public_url):
            try:
                self._provider.verify(replace(request, url=url), self._seam.now_ms())
            except WebhookRejected:
                continue
            right = url.partition("?")[0]
            why = f"but right for {right}: publicUrl and the URL at the carrier must be the same"
            return WebhookRejected(
                refused.status, f"{refused.reason} {why}", headers=refused.headers
            )
        return refused

    async def _handle(self, request: WebhookRequest, verified: Verified) -> WebhookReply:
        while (first := self._running.get(verified.key)) is not None:
            await first.done.wait()
            if first.reply is not None:
                return first.reply
        running = self._running[verified.key] = _Running()
        try:
            events = self._provider.parse(request, self._seam.now_ms())
            reply = await self._host.recorded(verified, events)
            if reply is None:
                reply = await self._host.handle(request, verified, events)
            running.reply = reply
            return reply
        finally:
            del self._running[verified.key]
            running.done.set()


class _Answer:
    """Sends a reply as starlette's response would, with nothing that webhooks do not need."""

    def __init__(self, reply: WebhookReply) -> None:
        self._reply = reply

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        reply = self._reply
        given = {b"content-type": reply.content_type, b"content-length": str(len(reply.body))}
        for name, value in reply.headers.items():
            given[name.lower().encode("latin-1")] = value
        headers = [(name, value.encode("latin-1")) for name, value in given.items()]
        status = reply.status
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": reply.body})


def _too_many(
    headers: Mapping[str, str] | None = None, reason: str = "too many webhooks in flight"
) -> WebhookRejected:
    return WebhookRejected(429, reason, headers={"retry-after": "1", **(headers or {})})


def _target(scope: Scope) -> str:
    """Path and query of a request, as received."""
    path, query = scope["raw_path"].decode("latin-1"), scope["query_string"].decode("latin-1")
    return f"{path}?{query}" if query else path


def _headers(scope: Scope) -> dict[str, str]:
    return headers_of([(n.decode("latin-1"), v.decode("latin-1")) for n, v in scope["headers"]])


def _identity(request: WebhookRequest) -> str:
    """Identifies a replay when signatures are not checked."""
    head = f"{request.method}\n{request.url}\n".encode()
    return hashlib.sha256(head + request.body).hexdigest()
