"""Requests to a customer's server: signed, retried as the fragment of the URL says, with faults.

The overrides in the fragment, and their defaults:
https://www.twilio.com/docs/usage/webhooks/webhooks-connection-overrides
Twilio's own SDK makes the signatures (extra ``twilio``).
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urldefrag, urlencode, urlsplit

import anyio
import httpx

from voicecall import configuring
from voicecall.errors import PluginError
from voicecall.seam import Seam
from voicecall_mock.exchange.ledger import Ledger
from voicecall_mock.exchange.postbox import Postbox

from .faults import Faults
from .options import TwilioOptions

__all__ = [
    "REDIRECTED_TOO_OFTEN",
    "CallbackLane",
    "DeliveryFailed",
    "Endpoint",
    "Signer",
    "Webhook",
    "WebhookSender",
    "is_http_url",
]

_POLICIES = frozenset({"4xx", "5xx", "ct", "rt", "all"})
_BOUNDS = {
    "ct": (5000, 100, 10_000),
    "rt": (15_000, 100, 15_000),
    "tt": (15_000, 100, 15_000),
    "rc": (1, 0, 5),
}
_FOLLOWED = frozenset({301, 302, 303, 307})
_MAX_HOPS = 5
"""Redirects are followed with the same form; other redirect statuses are an error (11216)."""

NOT_FETCHED, REDIRECTED_TOO_OFTEN, NO_REDIRECT = 11200, 11215, 11216


class DeliveryFailed(Exception):
    """The request failed, or the answer was an error. ``code`` is that of Twilio's debugger."""

    def __init__(self, message: str, code: int = NOT_FETCHED) -> None:
        super().__init__(message)
        self.code = code


def is_http_url(url: str) -> bool:
    """Whether a callback can go to ``url``: absolute, without blanks, with a valid host name."""
    return configuring.is_http_url(url) and "_" not in (urlsplit(url).hostname or "")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A URL without its fragment, and the overrides of the fragment: timeouts in milliseconds to
    connect (``ct``), to read (``rt``) and in total (``tt``), the number of retries (``rc``), and
    which failures are retried (``rp``)."""

    url: str
    ct: int
    rt: int
    tt: int
    rc: int
    rp: frozenset[str]

    @classmethod
    def of(cls, url: str) -> Endpoint:
        """Parse a URL; overrides that are malformed or out of range are ignored."""
        bare, fragment = urldefrag(url)
        given = dict(parse_qsl(fragment))
        numbers = {}
        for key, (default, least, most) in _BOUNDS.items():
            text = given.get(key, "")
            value = int(text) if text.isascii() and text.isdigit() else default
            numbers[key] = value if least <= value <= most else default
        policies = frozenset(given.get("rp", "ct").split(","))
        return cls(bare, **numbers, rp=policies if policies <= _POLICIES else frozenset({"ct"}))

    def retries(self, failure: str) -> bool:
        """Whether ``failure`` (4xx, 5xx, ct or rt) is retried."""
        return failure in self.rp or "all" in self.rp


@dataclass(frozen=True, slots=True)
class Webhook:
    """A request to the customer's server about ``call``; ``type`` is that of its ledger entries."""

    call: str
    type: str
    url: str
    method: str
    params: Mapping[str, str]


class Signer:
    """Makes Twilio's signatures. Raises :exc:`voicecall.errors.PluginError` if Twilio's SDK is not
    installed."""

    def __init__(self, options: TwilioOptions) -> None:
        try:
            from twilio.request_validator import RequestValidator
        except ImportError:
            raise PluginError(
                "the emulator signs with Twilio's SDK: pip install 'voicecall-testing[twilio]'"
            ) from None
        key, secret = options.shared_key or ("", options.auth_token)
        self._settings = f"key={key},algorithm=HMAC_SHA256" if key else ""
        self._validator: Any = RequestValidator(secret)

    def headers(self, url: str, params: Mapping[str, str]) -> dict[str, str]:
        """The signature headers of a request for ``url`` with these form parameters."""
        if not self._settings:
            return {"X-Twilio-Signature": self._validator.compute_signature(url, dict(params))}
        signature = self._validator.compute_signature(url, dict(params), "HMAC_SHA256")
        return {
            "X-Twilio-Signature": signature,
            "X-Twilio-Webhooks-Signature-Settings": self._settings,
        }


class WebhookSender:
    """Sends webhooks; shared by all calls."""

    def __init__(
        self, options: TwilioOptions, seam: Seam, faults: Faults, ledger: Ledger, signer: Signer
    ) -> None:
        self.options = options
        self.seam = seam
        self.faults = faults
        self.ledger = ledger
        self._signer = signer
        # SSL_CERT_FILE, which may name the CA of a proxy, counts here as for media sockets.
        self.trust = httpx.create_ssl_context()
        self._http = httpx.AsyncClient(
            verify=self.trust,
            limits=httpx.Limits(
                max_connections=None, max_keepalive_connections=64, keepalive_expiry=2.0
            ),
            trust_env=False,
        )

    async def __aenter__(self) -> WebhookSender:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def fetch(self, webhook: Webhook) -> httpx.Response:
        """The answer to a request that controls a call, with faults. Raises
        :exc:`DeliveryFailed`."""
        fault = self.faults.webhooks.of_type(webhook.type)
        if self.faults.happens(fault.late):
            await anyio.sleep(self.faults.dice.random() * fault.late_s)
        reply = await self._deliver(webhook, lose=fault.lose)
        if self.faults.happens(fault.duplicate):
            with suppress(DeliveryFailed):  # it is in the ledger
                await self._deliver(webhook, duplicate=True)
        return reply

    async def notify(self, webhook: Webhook) -> None:
        """Send a callback whose answer does not matter, with faults except ``late`` and
        ``reorder``, which :class:`CallbackLane` applies."""
        fault = self.faults.webhooks.of_type(webhook.type)
        if self.faults.happens(fault.lose):
            status = webhook.params.get("CallStatus")
            self.ledger.add("webhook-lost", webhook.call, type=webhook.type, status=status)
            return
        with suppress(DeliveryFailed):  # it is in the ledger
            await self._deliver(webhook)
            if self.faults.happens(fault.duplicate):
                await self._deliver(webhook, duplicate=True)

    async def _deliver(
        self, webhook: Webhook, *, lose: float = 0.0, duplicate: bool = False
    ) -> httpx.Response:
        """Send, with retries. Raises :exc:`DeliveryFailed`."""
        call, type_, url = webhook.call, webhook.type, webhook.url
        if not is_http_url(url):
            self.ledger.add("webhook-given-up", call, type=type_, url=url, error="not an HTTP URL")
            raise DeliveryFailed(f"{url!r} is not an HTTP URL")
        endpoint = Endpoint.of(url)
        token = self.seam.new_id()
        reply: httpx.Response | None = None
        error = "total timeout"
        with anyio.move_on_after(endpoint.tt / 1000):
            for attempt in range(1, endpoint.rc + 2):
                if attempt > 1:
                    await anyio.sleep(self.options.retry_pause_s)
                if self.faults.happens(lose):
                    reply, failure, error = None, "ct", "lost"
                else:
                    reply, failure, error = await self._attempt(endpoint, webhook, token)
                self.ledger.add(
                    "webhook",
                    call,
                    type=type_,
                    url=endpoint.url,
                    params=dict(webhook.params),
                    attempt=attempt,
                    duplicate=duplicate,
                    status=None if reply is None else reply.status_code,
                    error=error,
                )
                if reply is not None and not failure:
                    return reply
                if not endpoint.retries(failure):
                    break
        self.ledger.add(
            "webhook-given-up",
            call,
            type=type_,
            url=endpoint.url,
            event=webhook.params.get("CallStatus"),
            error=error,
        )
        raise DeliveryFailed(error, _code(reply))

    async def _attempt(
        self, endpoint: Endpoint, webhook: Webhook, token: str
    ) -> tuple[httpx.Response | None, str, str]:
        """(reply, kind of failure, error); both texts are empty if there is no failure."""
        limits = httpx.Timeout(
            endpoint.rt / 1000, connect=endpoint.ct / 1000, pool=endpoint.tt / 1000
        )
        url = endpoint.url
        try:
            for _ in range(_MAX_HOPS):
                reply = await self._send(url, webhook, token, limits)
                if not _redirects(reply) or reply.next_request is None:
                    break
                url = str(reply.next_request.url)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.InvalidURL) as error:
            return None, "ct", repr(error)
        except httpx.HTTPError as error:
            return None, "rt", repr(error)
        if reply.is_success:
            return reply, "", ""
        failure = "5xx" if reply.is_server_error else "4xx"
        return reply, failure, f"HTTP {reply.status_code}"

    async def _send(
        self, url: str, webhook: Webhook, token: str, limits: httpx.Timeout
    ) -> httpx.Response:
        method, form = webhook.method, dict(webhook.params)
        if method == "GET":
            url += ("&" if urlsplit(url).query else "?") + urlencode(form)
            form = {}
        headers = {
            "User-Agent": "TwilioProxy/1.1",
            "Accept": "*/*",
            "I-Twilio-Idempotency-Token": token,
            **self._signer.headers(url, form),
        }
        content = None
        if method == "POST":
            headers["Content-Type"] = "application/x-www-form-urlencoded; charset=UTF-8"
            content = urlencode(form)
        return await self._http.request(
            method, url, content=content, headers=headers, timeout=limits
        )


class CallbackLane(Postbox[Webhook]):
    """The callbacks of one call, sent one after another, except those that faults make late."""

    def __init__(self, sender: WebhookSender, call: str) -> None:
        super().__init__(sender.options.reorder_wait_ms / 1000)
        self._sender = sender
        self._call = call
        self._late = anyio.create_task_group()

    def post(self, type_: str, url: str, method: str, params: Mapping[str, str]) -> None:
        """Queue a callback. Never waits."""
        self.put(Webhook(self._call, type_, url, method, params))

    async def run(self) -> None:
        async with self._late:
            await super().run()

    def _is_swapped(self, letter: Webhook) -> bool:
        faults = self._sender.faults
        return faults.happens(faults.webhooks.of_type(letter.type).reorder)

    async def _deliver(self, letter: Webhook) -> None:
        faults = self._sender.faults
        fault = faults.webhooks.of_type(letter.type)
        if faults.happens(fault.late):
            self._late.start_soon(self._send_late, letter, faults.dice.random() * fault.late_s)
        else:
            await self._sender.notify(letter)

    async def _send_late(self, callback: Webhook, after_s: float) -> None:
        await anyio.sleep(after_s)
        await self._sender.notify(callback)


def _redirects(reply: httpx.Response) -> bool:
    return reply.status_code in _FOLLOWED and reply.has_redirect_location


def _code(reply: httpx.Response | None) -> int:
    """The debugger's code for a document that was not delivered; without an answer, ``reply`` is
    None."""
    if reply is None or not reply.is_redirect:
        return NOT_FETCHED
    return REDIRECTED_TOO_OFTEN if _redirects(reply) else NO_REDIRECT
