"""Twilio's REST API over httpx: requests, and what their failures mean.

Source: Twilio's REST API documentation (authentication, errors and warnings, error dictionary).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import quote, urlencode, urlsplit

import anyio
import httpx
import msgspec

from voicecall.configuring import is_loopback
from voicecall.errors import (
    AuthenticationFailed,
    OutcomeUnknown,
    ProviderError,
    ProviderTimeout,
    ProviderUnavailable,
    RequestRejected,
)
from voicecall.seam import Seam

from .config import TwilioConfig
from .resources import Refusal

__all__ = [
    "BAD_TIME_LIMIT",
    "NOT_FOUND",
    "NOT_IN_PROGRESS",
    "ApiRefusal",
    "Form",
    "TwilioClient",
]

PROVIDER = "twilio"
NOT_FOUND = 20404
NOT_IN_PROGRESS = 21220
BAD_CREDENTIALS = 20003
BAD_TIME_LIMIT = 13216

TIMEOUT = httpx.Timeout(10.0, connect=5.0)
LIMITS = httpx.Limits(max_connections=100, max_keepalive_connections=20, keepalive_expiry=30.0)
"""A turn of a conversation takes longer than the 5 s after which httpx closes idle connections by
default, so each turn would begin with a new connection."""
LONGEST_S = 20.0
"""Limit of a whole request: no other limit applies to a reply that comes byte by byte."""
LONGEST_REPLY = 2 * 1024 * 1024
"""Bytes of a reply; a page of calls has a tenth of that."""
_UNSENT = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    # Raised only while a proxy opens a tunnel, before anything is sent through it.
    httpx.ProxyError,
    httpx.UnsupportedProtocol,
    httpx.InvalidURL,
)
_ATTEMPTS = 5
"""Attempts, as long as Twilio has not carried out the request."""
_ATTEMPTS_AGAIN = 2
"""Attempts if it may have carried out the request."""
_PAUSE_S = 0.5
_PATIENCE_S = 15.0
"""There is no further attempt after this time, unless Twilio asks for a pause: a dial without an
outcome after 25 s counts as one that may have been placed."""
_TOLD_LIMIT_S = 30.0
"""Longest pause that Twilio may ask for (``Retry-After``). No call is worth a longer wait."""
AT_ONCE = 32

Form = Mapping[str, str | int | list[str]]
"""Parameters of a request; a list repeats its key."""


T = TypeVar("T")


class ApiRefusal(RequestRejected):
    """A refusal with Twilio's own error ``code``, if the reply had one."""

    def __init__(self, message: str, *, code: int | None, status: int, request_id: str | None):
        self.code = code
        super().__init__(message, provider=PROVIDER, status=status, request_id=request_id)


@dataclass(frozen=True, slots=True)
class _Trouble:
    """A failed attempt. ``processed``: Twilio may have carried out the request."""

    error: ProviderError
    processed: bool
    wait_s: float = 0.0


class TwilioClient:
    """Requests about one account; open between ``__aenter__`` and ``__aexit__``. At most
    ``AT_ONCE`` are under way: Twilio refuses too many, and each of them searches the whole pool of
    connections."""

    def __init__(self, config: TwilioConfig, seam: Seam) -> None:
        self._seam = seam
        self._uses_key = config.api_key_sid is not None
        account = quote(config.account_sid, safe="")
        self._origin = config.base_url
        self.region = config.region or "us1"
        self._account = f"/2010-04-01/Accounts/{account}"
        self._http = httpx.AsyncClient(
            auth=httpx.BasicAuth(*config.credentials),
            timeout=TIMEOUT,
            limits=LIMITS,
            # A proxy set in the environment cannot reach an emulator on this machine.
            trust_env=not is_loopback(urlsplit(config.base_url).hostname or ""),
            headers={"accept": "application/json"},
        )
        self._turn = anyio.Semaphore(AT_ONCE)

    async def __aenter__(self) -> TwilioClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def get(
        self, path: str, kind: type[T], query: Mapping[str, str | int] | None = None
    ) -> T:
        """The document at ``path`` below the account, or at a ``next_page_uri``."""
        url = path if path.startswith("/2010-") else self._account + path
        if query:
            url += "?" + urlencode(query)
        return await self._repeated("GET", url, None, kind, harmless=True)

    async def post(
        self,
        path: str,
        kind: type[T],
        form: Form,
        *,
        harmless: bool,
        wanted: Callable[[], bool] = lambda: True,
    ) -> T:
        """Send a form to ``path`` below the account. A ``harmless`` request may be carried out
        twice. Any other is repeated only if it certainly was not carried out; if it may have been,
        :exc:`OutcomeUnknown` is raised. Nothing is sent once ``wanted()`` is false."""
        url = self._account + path
        return await self._repeated("POST", url, form, kind, harmless=harmless, wanted=wanted)

    async def _repeated(
        self,
        method: str,
        url: str,
        form: Form | None,
        kind: type[T],
        *,
        harmless: bool,
        wanted: Callable[[], bool] = lambda: True,
    ) -> T:
        attempt, began = 0, anyio.current_time()
        while True:
            outcome = await self._attempt(method, url, form, kind, wanted)
            if not isinstance(outcome, _Trouble):
                return outcome
            error = outcome.error
            if outcome.processed and not harmless:
                raise OutcomeUnknown(
                    str(error).removeprefix(f"{PROVIDER}: "),
                    provider=PROVIDER,
                    status=error.status,
                    request_id=error.request_id,
                )
            attempt += 1
            last = attempt >= (_ATTEMPTS_AGAIN if outcome.processed else _ATTEMPTS)
            late = not outcome.wait_s and anyio.current_time() - began > _PATIENCE_S
            if last or late or outcome.wait_s > _TOLD_LIMIT_S:
                raise error
            pause = outcome.wait_s or _PAUSE_S * 2 ** (attempt - 1)
            await anyio.sleep(pause * (1 + 0.25 * self._seam.random()))

    async def _attempt(
        self,
        method: str,
        url: str,
        form: Form | None,
        kind: type[T],
        wanted: Callable[[], bool],
    ) -> T | _Trouble:
        """The reply's document, or a failure that may be temporary. Raises any other."""
        try:
            async with self._turn:
                if not wanted():
                    text = "not wanted any more, and not sent"
                    raise ProviderUnavailable(text, provider=PROVIDER)
                with anyio.fail_after(LONGEST_S):
                    sent = self._http.stream(method, self._origin + url, data=form)
                    async with sent as response:
                        content = await _content(response)
        except _UNSENT as error:
            text = f"cannot reach {self._origin}: {error!r}"
            return _Trouble(ProviderUnavailable(text, provider=PROVIDER), processed=False)
        except (httpx.TimeoutException, TimeoutError) as error:
            text = f"no reply in time: {type(error).__name__}"
            return _Trouble(ProviderTimeout(text, provider=PROVIDER), processed=True)
        except httpx.RequestError as error:
            text = f"the connection broke: {error!r}"
            return _Trouble(ProviderUnavailable(text, provider=PROVIDER), processed=True)
        if content is None:
            text = f"a reply of more than {LONGEST_REPLY} bytes"
            return self._failure(response, b"", text if response.is_success else None)
        if response.is_success:
            try:
                return msgspec.json.decode(content, type=kind)
            except (msgspec.MsgspecError, UnicodeError):
                return self._failure(response, content, "a reply that cannot be read")
        return self._failure(response, content)

    def _failure(
        self, response: httpx.Response, content: bytes, text: str | None = None
    ) -> _Trouble:
        status, request_id = response.status_code, response.headers.get("twilio-request-id")
        said = _refusal(content)
        text = text or said.message or f"HTTP {status} {response.reason_phrase}"
        text += f" (code {said.code})" if said.code is not None else ""
        text += f" [{request_id}]" if request_id else ""
        if status == 401 or said.code == BAD_CREDENTIALS:
            names = ("apiKeySid", "apiKeySecret") if self._uses_key else ("accountSid", "authToken")
            raise AuthenticationFailed(
                f"twilio.{names[0]} and twilio.{names[1]} are not accepted: {text}",
                provider=PROVIDER,
                status=status,
                request_id=request_id,
            )
        if 400 <= status < 500 and status not in (408, 429):
            raise ApiRefusal(text, code=said.code, status=status, request_id=request_id)
        # What remains: too many requests, a fault on Twilio's side, or a reply that is not from
        # the API. A 408 comes from something in front of it that waited in vain.
        wait = response.headers.get("retry-after", "")
        wait_s = float(wait) if wait.isascii() and wait.isdigit() else 0.0
        text += f" (asks for a pause of {wait} s)" if wait_s > _TOLD_LIMIT_S else ""
        error = ProviderUnavailable(text, provider=PROVIDER, status=status, request_id=request_id)
        return _Trouble(error, processed=status != 429, wait_s=wait_s)


async def _content(response: httpx.Response) -> bytes | None:
    """The reply's body; None if it is longer than any of Twilio's."""
    content = bytearray()
    async for piece in response.aiter_bytes():
        content += piece
        if len(content) > LONGEST_REPLY:
            return None
    return bytes(content)


def _refusal(content: bytes) -> Refusal:
    """What the reply says about the failure; proxies on the way answer in HTML."""
    try:
        return msgspec.json.decode(content, type=Refusal)
    except (msgspec.MsgspecError, UnicodeError):
        return Refusal()
