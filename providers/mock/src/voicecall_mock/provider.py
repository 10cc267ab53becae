"""The mock carrier as a telephony provider."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from voicecall import ProviderContext
from voicecall import events as ev
from voicecall import telephony as tel
from voicecall.errors import (
    AuthenticationFailed,
    ProviderError,
    ProviderUnavailable,
    RequestRejected,
    WebhookRejected,
)
from voicecall.media import MediaCodec, Upgrade
from voicecall.model import Direction, EndReason

from .codec import MockCodec
from .config import MockConfig
from .plugin import CAPABILITIES
from .protocol import (
    MAX_SKEW_MS,
    SIGNATURE_HEADER,
    TIMESTAMP_HEADER,
    action_to_json,
    actions_document,
    parse_json_object,
    sign,
)

__all__ = ["MockProvider"]


class MockProvider(tel.TelephonyProvider):
    capabilities = CAPABILITIES

    def __init__(self, config: MockConfig, context: ProviderContext) -> None:
        self._config = config
        self._context = context
        self._client: Any = None
        self.exchange: Any = None
        """The embedded exchange, if any, while the lifespan is entered."""

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        from .client import ExchangeClient

        async with AsyncExitStack() as stack:
            base_url = self._config.api_base_url
            if base_url is None:
                from .exchange import Exchange, ExchangeOptions

                options = ExchangeOptions(
                    auth_token=self._config.auth_token,
                    answer_after_ms=self._config.phone.answer_after_ms,
                    voice=self._config.phone.voice,
                )
                self.exchange = await stack.enter_async_context(
                    Exchange(options, seam=self._context.seam, speech=self._phone_speech()).serve()
                )
                base_url = self.exchange.base_url
            self._client = await stack.enter_async_context(
                ExchangeClient(base_url, self._config.auth_token)
            )
            try:
                yield
            finally:
                self._client = None
                self.exchange = None

    def _phone_speech(self) -> Any:
        from voicecall import ProviderKind

        phone = self._config.phone
        if phone.tts is None:
            return None
        return self._context.create(ProviderKind.TTS, phone.tts, {})

    # --- webhooks ---------------------------------------------------------------------------

    @property
    def signature_headers(self) -> tuple[tuple[str, ...], ...]:
        return ((SIGNATURE_HEADER, TIMESTAMP_HEADER),)

    def verify(self, request: tel.WebhookRequest, now_ms: int) -> tel.Verified:
        signature = request.headers.get(SIGNATURE_HEADER, "")
        timestamp = request.headers.get(TIMESTAMP_HEADER, "")
        if not (timestamp.isascii() and timestamp.isdigit()):
            raise WebhookRejected(401, "no timestamp in milliseconds")
        wanted = sign(self._config.auth_token, timestamp, request.url, request.body)
        if not hmac.compare_digest(wanted.encode(), signature.encode("utf-8", "replace")):
            raise WebhookRejected(401, f"wrong signature for {request.url}")
        if abs(now_ms - int(timestamp)) > MAX_SKEW_MS:
            raise WebhookRejected(401, "the timestamp is too old or too far ahead")
        return tel.Verified("mock:" + hashlib.sha256(f"{timestamp}\n{wanted}".encode()).hexdigest())

    def parse(self, request: tel.WebhookRequest, now_ms: int) -> Sequence[ev.CarrierEvent]:
        data = parse_json_object(request.body)
        make = _EVENTS.get(str(data.get("type")))
        if make is None:
            return ()
        call = data.get("call")
        try:
            if not isinstance(call, Mapping):
                raise TypeError("call must be an object")
            return (make(data, _common(data, call)),)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise WebhookRejected(400, f"malformed {data.get('type')}: {error!r}") from None

    def render(
        self,
        request: tel.WebhookRequest,
        call: tel.CallRef | None,
        actions: Sequence[tel.Action],
    ) -> tel.Rendered:
        return tel.Rendered(
            tel.WebhookReply(body=actions_document(actions), content_type="application/json")
        )

    def media_codec(self, upgrade: Upgrade) -> MediaCodec:
        return MockCodec()

    # --- REST -------------------------------------------------------------------------------

    async def _request(
        self, method: str, path: str, body: Any = None, *, once: bool = False
    ) -> Any:
        if self._client is None:
            raise ProviderUnavailable("the carrier is not running", provider="mock")
        return await self._client.request(method, path, body, once=once)

    async def register_webhook(self, url: str) -> None:
        await self._request("PUT", "/v1/webhook", {"url": url})

    async def place_call(self, request: tel.DialRequest) -> str:
        body = {
            "reference": request.call_id,
            "from": request.from_number,
            "to": request.to_number,
            "webhookUrl": request.webhook_url,
            "ringTimeoutS": request.ring_timeout_s,
            "timeLimitS": request.time_limit_s,
            "digits": request.dtmf_sequence,
        }
        response = await self._request("POST", "/v1/calls", body, once=True)
        return str(response.json()["id"])

    async def find_dial(self, query: tel.DialQuery) -> str | None:
        response = await self._request("GET", f"/v1/calls?reference={query.call_id}")
        calls = response.json()["calls"]
        return str(calls[0]["id"]) if calls else None

    async def perform(self, call: tel.CallRef, action: tel.Action) -> None:
        if call.provider_call_id is None:
            raise RequestRejected("the call has no carrier id yet", provider="mock")
        path = f"/v1/calls/{call.provider_call_id}/actions"
        try:
            await self._request("POST", path, action_to_json(action))
        except RequestRejected as error:
            over = error.status in (404, 409)
            if not (over and isinstance(action, tel.Hangup | tel.Reject | tel.StopListening)):
                raise

    async def status(self, call: tel.CallRef) -> tel.CallStatus:
        if call.provider_call_id is None:
            return tel.CallStatus(ev.CarrierStatus.UNKNOWN)
        try:
            response = await self._request("GET", f"/v1/calls/{call.provider_call_id}")
        except AuthenticationFailed:
            raise
        except ProviderError as error:
            unknown = error.status != 404
            status = ev.CarrierStatus.UNKNOWN if unknown else ev.CarrierStatus.NOT_FOUND
            return tel.CallStatus(status)
        data = response.json()
        if data["status"] == "ended":
            return tel.CallStatus(ev.CarrierStatus.ENDED, EndReason(data["reason"]))
        connected = data["status"] == "in-progress"
        return tel.CallStatus(ev.CarrierStatus.CONNECTED if connected else ev.CarrierStatus.LIVE)


# --- events ----------------------------------------------------------------------------------


def _common(data: Mapping[str, Any], call: Mapping[str, Any]) -> dict[str, Any]:
    if not call["id"]:
        raise ValueError("the call has no id")
    return {
        "at": int(data["at"]),
        "key": f"mock:{data['id']}",
        "provider_call_id": str(call["id"]),
        "call_id": call.get("reference"),
        "direction": Direction(call["direction"]),
        "from_number": str(call["from"]),
        "to_number": str(call["to"]),
    }


_Make = Callable[[Mapping[str, Any], dict[str, Any]], ev.CarrierEvent]

_EVENTS: Mapping[str, _Make] = {
    "call.initiated": lambda data, common: ev.Initiated(**common),
    "call.ringing": lambda data, common: ev.Ringing(**common),
    "call.answered": lambda data, common: ev.Answered(**common),
    "call.speech": lambda data, common: ev.SpeechHeard(
        text=str(data["text"]),
        final=bool(data.get("final", True)),
        confidence=data.get("confidence"),
        turn_token=data.get("token"),
        **common,
    ),
    "call.digits": lambda data, common: ev.DigitsPressed(digits=str(data["digits"]), **common),
    "call.playback": lambda data, common: ev.PlaybackEnded(
        utterance_id=str(data["utterance"]), ok=bool(data.get("ok", True)), **common
    ),
    "call.stream-failed": lambda data, common: ev.StreamFailed(
        error=str(data.get("error", "")), stream_id=data.get("stream"), **common
    ),
    "call.error": lambda data, common: ev.CallFailed(
        error=str(data["error"]), retryable=bool(data.get("retryable", False)), **common
    ),
    "call.ended": lambda data, common: ev.CallEnded(reason=EndReason(data["reason"]), **common),
}
