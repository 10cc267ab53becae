"""A scripted carrier for tests, and its media codec."""

from __future__ import annotations

import base64
import binascii
import json
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace

import anyio

from voicecall import events as ev
from voicecall import telephony as tel
from voicecall.audio import MULAW_8K
from voicecall.errors import MediaProtocolError, ProviderError, WebhookRejected
from voicecall.media import (
    Audio,
    Dtmf,
    MarkReached,
    MediaCodec,
    MediaEvent,
    Message,
    Started,
    Stopped,
    Upgrade,
)

__all__ = ["NATIVE", "STREAMING", "ScriptedCarrier", "ScriptedCodec"]

NATIVE = tel.TelephonyCapabilities(
    native_speech=True,
    native_listening=True,
    dtmf_out=True,
    explicit_answer=True,
    dial_lookup=True,
    public_url=False,
    from_number_required=False,
)
"""A carrier with its own voice and recogniser."""
STREAMING = replace(NATIVE, stream=frozenset({tel.StreamPoint.ANSWER, tel.StreamPoint.COMMAND}))
"""The same, with media sockets that are requested in the answer or by a command."""

_SIGNATURE = "x-scripted-signature"


class ScriptedCodec(MediaCodec):
    """JSON objects with one key: ``start``, ``audio``, ``mark``, ``clear``, ``digits``,
    ``stop``. Both directions use the same messages. ``tones``: digits can be sent."""

    def __init__(self, *, tones: bool = True) -> None:
        self._tones = tones

    def decode(self, message: Message) -> MediaEvent | None:
        try:
            values = json.loads(message)
            ((kind, value),) = values.items()
            match kind:
                case "start":
                    return Started(
                        str(value["token"]), str(value["stream"]), str(value["call"]),
                        MULAW_8K, MULAW_8K,
                    )  # fmt: skip
                case "audio":
                    return Audio(base64.b64decode(value, validate=True), 0)
                case "mark":
                    return MarkReached(str(value))
                case "digits":
                    return Dtmf(str(value))
                case "stop":
                    return Stopped(str(value))
        except (ValueError, AttributeError, KeyError, TypeError, binascii.Error) as error:
            raise MediaProtocolError(f"not a message of the scripted carrier: {error}") from None
        return None

    def audio(self, payload: bytes) -> Message:
        return json.dumps({"audio": base64.b64encode(payload).decode()})

    def mark(self, name: str) -> Message | None:
        return json.dumps({"mark": name})

    def clear(self) -> Message | None:
        return json.dumps({"clear": True})

    def digits(self, digits: str) -> Message | None:
        return json.dumps({"digits": digits}) if self._tones else None


class ScriptedCarrier(tel.TelephonyProvider):
    """A carrier that keeps what it is asked to do.

    ``dialled`` are the dial requests, ``performed`` the actions that :meth:`perform` got. With
    ``steers``, the reply to a webhook carries all actions, which ``rendered`` keeps; otherwise it
    carries none. ``acted`` is called with each action that succeeds, in either way.

    The next requests raise the errors in ``dial_errors``, ``action_errors`` (by type of action) and
    ``status_errors``, one each. Dialling and each action take ``delay_s``. ``status_of`` is what
    :meth:`status` returns. ``inbox`` maps the body of a webhook to its events.
    """

    def __init__(
        self, capabilities: tel.TelephonyCapabilities = STREAMING, *, steers: bool = False
    ) -> None:
        self.capabilities = capabilities
        self.steers = steers
        self.delay_s = 0.0
        self.dialled: list[tel.DialRequest] = []
        self.performed: list[tel.Action] = []
        self.rendered: list[tel.Action] = []
        self.acted: Callable[[tel.CallRef | None, tel.Action], None] = _nobody
        self.dial_errors: deque[ProviderError] = deque()
        self.action_errors: dict[type[tel.Action], deque[ProviderError]] = {}
        self.status_errors: deque[ProviderError] = deque()
        self.status_of = tel.CallStatus(ev.CarrierStatus.CONNECTED)
        self.inbox: dict[bytes, Sequence[ev.CarrierEvent]] = {}
        self.webhook_url: str | None = None

    def fail(self, action: type[tel.Action], *errors: ProviderError) -> None:
        """Let the next requests for this type of action fail, with one error each."""
        self.action_errors.setdefault(action, deque()).extend(errors)

    # --- pure ---

    @property
    def signature_headers(self) -> tuple[tuple[str, ...], ...]:
        return ((_SIGNATURE,),)

    def verify(self, request: tel.WebhookRequest, now_ms: int) -> tel.Verified:
        key = request.headers.get(_SIGNATURE, "")
        if not key:
            raise WebhookRejected(401, "no signature")
        return tel.Verified(key)

    def parse(self, request: tel.WebhookRequest, now_ms: int) -> Sequence[ev.CarrierEvent]:
        events = self.inbox.get(request.body)
        if events is None:
            raise WebhookRejected(400, "a body that the test did not announce")
        return events

    def render(
        self,
        request: tel.WebhookRequest,
        call: tel.CallRef | None,
        actions: Sequence[tel.Action],
    ) -> tel.Rendered:
        if not self.steers:
            return tel.Rendered(tel.WebhookReply(), tuple(actions))
        self.rendered.extend(actions)
        for action in actions:
            self.acted(call, action)
        body = json.dumps([type(action).__name__ for action in actions]).encode()
        return tel.Rendered(tel.WebhookReply(body=body, content_type="application/json"))

    def media_codec(self, upgrade: Upgrade) -> MediaCodec:
        return ScriptedCodec()

    # --- requests ---

    async def place_call(self, request: tel.DialRequest) -> str:
        self.dialled.append(request)
        number = len(self.dialled)
        await anyio.sleep(self.delay_s)
        if self.dial_errors:
            raise self.dial_errors.popleft()
        return f"carrier-{number}"

    async def find_dial(self, query: tel.DialQuery) -> str | None:
        for number, request in enumerate(self.dialled, 1):
            if request.call_id == query.call_id:
                return f"carrier-{number}"
        return None

    async def perform(self, call: tel.CallRef, action: tel.Action) -> None:
        self.performed.append(action)
        await anyio.sleep(self.delay_s)
        waiting = self.action_errors.get(type(action))
        if waiting:
            raise waiting.popleft()
        self.acted(call, action)

    async def status(self, call: tel.CallRef) -> tel.CallStatus:
        if self.status_errors:
            raise self.status_errors.popleft()
        return self.status_of

    async def register_webhook(self, url: str) -> None:
        self.webhook_url = url

    def performed_of(self, *kinds: type[tel.Action]) -> list[tel.Action]:
        """The performed actions of these types."""
        return [action for action in self.performed if isinstance(action, kinds)]


def _nobody(call: tel.CallRef | None, action: tel.Action) -> None:
    """The default of ``acted``: no reaction."""
