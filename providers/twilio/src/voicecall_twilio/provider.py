"""Twilio as a telephony provider.

The provider keeps no state of any call: the callback URLs identify the running document, and the
requests contain everything else.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from urllib.parse import quote

import anyio

from voicecall import ProviderContext
from voicecall import events as ev
from voicecall import telephony as tel
from voicecall.errors import (
    AuthenticationFailed,
    ProviderError,
    ProviderUnavailable,
    RequestRejected,
)
from voicecall.media import MediaCodec, Upgrade

from .callbacks import REDELIVERY, Kind, base_url, callback, time_limit
from .client import (
    BAD_TIME_LIMIT,
    NOT_FOUND,
    NOT_IN_PROGRESS,
    PROVIDER,
    ApiRefusal,
    Form,
    TwilioClient,
)
from .codec import TwilioCodec
from .config import TwilioConfig
from .dialling import Pace, dial_form, find_dial, notice
from .plugin import CAPABILITIES
from .probing import probe
from .rendering import Style, fill, render
from .resources import Call
from .signature import SIGNATURE_HEADER, Keys, verify_request, verify_upgrade
from .twiml import TWIML_LIMIT
from .webhooks import CONNECTED, LIVE, TERMINAL, end_reason, parse

__all__ = ["TwilioProvider"]

_log = logging.getLogger("voicecall.twilio")

_UPDATE_PAUSES_S = (0.25, 0.75)
"""Pauses between the attempts to redirect a call."""


class TwilioProvider(tel.TelephonyProvider):
    capabilities = CAPABILITIES

    def __init__(self, config: TwilioConfig, context: ProviderContext) -> None:
        self._config = config
        self._seam = context.seam
        self._keys = Keys(config.auth_token, config.webhooks_shared_key)
        self._style = Style(config.voice, config.language)
        self._pace = Pace(config.calls_per_second, context.seam)
        self._open_client: TwilioClient | None = None

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        async with TwilioClient(self._config, self._seam) as client:
            self._open_client = client
            try:
                yield
            finally:
                self._open_client = None

    @property
    def _client(self) -> TwilioClient:
        if self._open_client is None:
            raise ProviderUnavailable("the carrier is not running", provider=PROVIDER)
        return self._open_client

    # --- webhooks and media sockets -----------------------------------------------------------

    @property
    def signature_headers(self) -> tuple[tuple[str, ...], ...]:
        return ((SIGNATURE_HEADER,),)

    def verify(self, request: tel.WebhookRequest, now_ms: int) -> tel.Verified:
        return tel.Verified(f"twilio:{verify_request(request, self._keys)}")

    def parse(self, request: tel.WebhookRequest, now_ms: int) -> Sequence[ev.CarrierEvent]:
        return parse(request, now_ms)

    def render(
        self,
        request: tel.WebhookRequest,
        call: tel.CallRef | None,
        actions: Sequence[tel.Action],
    ) -> tel.Rendered:
        return render(request, call, actions, self._style)

    def media_codec(self, upgrade: Upgrade) -> MediaCodec:
        return TwilioCodec()

    def verify_upgrade(self, upgrade: Upgrade, now_ms: int) -> bool | None:
        return verify_upgrade(upgrade, self._keys) or None

    def number_urls(self, webhook_url: str) -> Mapping[str, str]:
        base = base_url(webhook_url)
        return {
            "A call comes in": base + REDELIVERY,
            "Call status changes": callback(base, Kind.STATUS),
        }

    # --- calls --------------------------------------------------------------------------------

    def speaks_at_dial(self, message: tel.Speak) -> bool:
        return notice(message, None, self._style) is not None

    async def place_call(self, request: tel.DialRequest) -> str:
        form = dial_form(request, self._style)
        client = self._client
        await self._pace.wait()
        created = await _post(client, "/Calls.json", form, harmless=False, wanted=request.wanted)
        return created.sid

    async def find_dial(self, query: tel.DialQuery) -> str | None:
        return await find_dial(self._client, query)

    async def perform(self, call: tel.CallRef, action: tel.Action) -> None:
        if call.provider_call_id is None:
            raise RequestRejected("the call has no CallSid yet", provider=PROVIDER)
        form = self._update_form(call, action)
        try:
            await self._update(_path(call.provider_call_id), form)
        except ApiRefusal as error:
            if error.code not in (NOT_FOUND, NOT_IN_PROGRESS):
                raise
            if not isinstance(action, tel.Hangup | tel.Reject | tel.StopListening):
                raise RequestRejected(
                    f"the call is over: {error}",
                    provider=PROVIDER,
                    status=error.status,
                    request_id=error.request_id,
                ) from None

    async def _update(self, path: str, form: Form) -> None:
        """Change a live call. A document is sent again if the call is not in progress yet, as for
        a moment while it is being answered."""
        # A document that is carried out twice is heard twice.
        harmless = "Twiml" not in form
        for pause in _UPDATE_PAUSES_S:
            try:
                await _post(self._client, path, form, harmless=harmless)
                return
            except ApiRefusal as error:
                if error.code != NOT_IN_PROGRESS or harmless:
                    raise
            await anyio.sleep(pause)
        await _post(self._client, path, form, harmless=harmless)

    def _update_form(self, call: tel.CallRef, action: tel.Action) -> Form:
        if isinstance(action, tel.Hangup) or (isinstance(action, tel.Reject) and not action.text):
            return {"Status": "completed"}
        if not call.webhook_url:
            raise RequestRejected("the webhook URL of the call is not known", provider=PROVIDER)
        base = base_url(call.webhook_url)
        if isinstance(action, tel.LimitDuration):
            limit = time_limit(action.seconds)
            # For a number without "Call status changes". Some accounts ignore it in a request
            # without a document, so setup asks for that setting.
            told = callback(base, Kind.STATUS, limit=limit)
            return {
                "TimeLimit": limit,
                "StatusCallback": told,
                "StatusCallbackMethod": "POST",
            }
        document = self._style.document(base, self._seam.token())
        if fill(document, (action,)):
            raise RequestRejected(f"{_named(action)} cannot be carried out", provider=PROVIDER)
        if document.open:
            document.hold()
        text = document.text
        if len(text) > TWIML_LIMIT:
            raise RequestRejected(
                f"{_named(action)} needs {len(text)} characters of TwiML; at most {TWIML_LIMIT} "
                "are possible",
                provider=PROVIDER,
            )
        return {"Twiml": text}

    async def status(self, call: tel.CallRef) -> tel.CallStatus:
        unknown = tel.CallStatus(ev.CarrierStatus.UNKNOWN)
        if call.provider_call_id is None:
            return unknown
        try:
            found = await self._client.get(_path(call.provider_call_id), Call)
        except AuthenticationFailed:
            raise
        except ProviderError as error:
            if isinstance(error, ApiRefusal) and error.code == NOT_FOUND:
                return tel.CallStatus(ev.CarrierStatus.NOT_FOUND)
            return unknown
        status = found.status
        if status in TERMINAL:
            reason = end_reason(status, found.direction)
            return tel.CallStatus(ev.CarrierStatus.ENDED, reason)
        if status == CONNECTED:
            return tel.CallStatus(ev.CarrierStatus.CONNECTED)
        return tel.CallStatus(ev.CarrierStatus.LIVE) if status in LIVE else unknown

    async def probe(self, webhook_url: str, numbers: Sequence[str]) -> Sequence[tel.Probe]:
        return await probe(self._client, webhook_url, numbers)


async def _post(
    client: TwilioClient,
    path: str,
    form: Form,
    *,
    harmless: bool,
    wanted: Callable[[], bool] = lambda: True,
) -> Call:
    """Make or change a call, without the ``TimeLimit`` if the account refuses it."""
    try:
        return await client.post(path, Call, form, harmless=harmless, wanted=wanted)
    except ApiRefusal as error:
        if error.code != BAD_TIME_LIMIT or "TimeLimit" not in form:
            raise
    text = "the account refuses a TimeLimit of %s s; its own limit ends the call"
    _log.warning(text, form["TimeLimit"])
    rest = {name: value for name, value in form.items() if name != "TimeLimit"}
    return await client.post(path, Call, rest, harmless=harmless, wanted=wanted)


def _path(call_sid: str) -> str:
    return f"/Calls/{quote(call_sid, safe='')}.json"


def _named(action: tel.Action) -> str:
    return type(action).__name__
