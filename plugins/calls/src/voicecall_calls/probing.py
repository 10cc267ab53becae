"""``voicecall setup --probe``: asks the carrier, fetches our public URL and opens a media socket
there.

A challenge shows whether the URL leads to this machine: a GET request to the webhook URL with a
challenge in its query returns a code that only this machine's key can produce. A running gateway
answers; if none is running, the port is opened for the duration of the check.
"""

from __future__ import annotations

import base64
import hmac
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlencode, urlsplit

import anyio
import httpx

from voicecall.errors import ConfigError, VoicecallError, WebhookRejected
from voicecall.events import CarrierEvent
from voicecall.hosting import SetupCheck, SetupContext
from voicecall.media import Started, Upgrade
from voicecall.model import MediaPath
from voicecall.providers import ProviderContext
from voicecall.seam import SystemSeam
from voicecall.telephony import TelephonyProvider, Verified, WebhookReply, WebhookRequest
from voicecall_calls.config import PLUGIN_ID, VoiceCallConfig
from voicecall_calls.doors import AdmissionRefused, Attachment, MediaSocket
from voicecall_calls.exposure import comes_from_outside
from voicecall_calls.making import make_carrier, making
from voicecall_calls.server.challenge import CHALLENGE, answering
from voicecall_calls.server.configured import make_server
from voicecall_calls.server.urls import media_url
from voicecall_calls.wiring import Wiring, require, resolve_for

__all__ = ["PhoneProbe", "media_url_check", "public_url_check"]

FETCH_S = 15.0


class PhoneProbe:
    """Contacts the carrier, and this machine over the internet. Places no call."""

    def __init__(self, context: SetupContext) -> None:
        self._context = context

    async def run(self) -> Sequence[SetupCheck]:
        """The checks, in the order of display; none if local checks fail already."""
        context = self._context
        try:
            config: VoiceCallConfig = context.plugin_config(PLUGIN_ID)
            wiring = resolve_for(context, config, lenient=True)
            if wiring.carrier.info is None or wiring.problems:
                return ()
            carrier = make_carrier(*require(wiring.carrier), ProviderContext(context.state_dir))
        except VoicecallError:
            return ()
        try:
            return [
                *await self._carrier_probes(carrier, wiring),
                *await self._public_url(carrier, wiring),
            ]
        except VoicecallError as error:
            return [SetupCheck("probe", False, str(error))]

    async def _carrier_probes(self, carrier: TelephonyProvider, wiring: Wiring) -> list[SetupCheck]:
        config = wiring.config
        if config.public_url is None:
            return []
        ours = dict.fromkeys([*filter(None, [config.from_number]), *config.numbers])
        info, _ = require(wiring.carrier)
        try:
            with making(info):
                async with carrier.lifespan():
                    found = await carrier.probe(config.public_url, list(ours))
                return [SetupCheck(probe.name, probe.ok, probe.message) for probe in found]
        except VoicecallError as error:
            return [SetupCheck("probe", False, str(error))]

    async def _public_url(self, carrier: TelephonyProvider, wiring: Wiring) -> list[SetupCheck]:
        config = wiring.config
        url = config.public_url
        if url is None:
            if not comes_from_outside(*require(wiring.carrier)):
                return []
            text = "no publicUrl is configured; a tunnel's URL is known only while the gateway runs"
            return [SetupCheck("public-url", wiring.tunnel is not None, text)]
        async with _somebody_answers(carrier, config, self._context.state_dir):
            checks = [await public_url_check(url, answering(self._context.state_dir))]
            if checks[0].ok and wiring.media is not MediaPath.NATIVE:
                media = media_url(url, serve_path=config.serve.path, stream_path=config.media_path)
                checks.append(await media_url_check(media))
            return checks


async def public_url_check(
    url: str, answer: Callable[[str], str], patience_s: float = FETCH_S
) -> SetupCheck:
    """Fetch our public URL with a challenge. ``answer`` returns this machine's answer to it."""
    challenge = secrets.token_urlsafe(16)
    separator = "&" if urlsplit(url).query else "?"
    asked = url.partition("#")[0] + separator + urlencode({CHALLENGE: challenge})
    try:
        # The client's timeout does not stop a response that arrives byte by byte.
        with anyio.fail_after(patience_s):
            async with httpx.AsyncClient(timeout=patience_s, trust_env=True) as client:
                response = await client.get(asked)
    except _TROUBLE as error:
        return SetupCheck("public-url", False, _why_not(url, error, patience_s))
    if hmac.compare_digest(response.text.encode(), answer(challenge).encode()):
        return SetupCheck("public-url", True, f"{url} leads to this machine")
    if response.status_code == 200:
        text = f"{url} leads to something else: check the proxy, and what listens on serve.port"
        return SetupCheck("public-url", False, text)
    text = (
        f"{url} answers {response.status_code}: check that the proxy forwards this path"
        " (serve.path)"
    )
    return SetupCheck("public-url", False, text)


async def media_url_check(url: str, patience_s: float = FETCH_S) -> SetupCheck:
    """Open a media socket at ``url`` and close it. Adapters accept its unsigned handshake."""
    headers = {
        "connection": "Upgrade",
        "upgrade": "websocket",
        "sec-websocket-version": "13",
        "sec-websocket-key": base64.b64encode(secrets.token_bytes(16)).decode(),
    }
    try:
        with anyio.fail_after(patience_s):
            async with (
                httpx.AsyncClient(timeout=patience_s, trust_env=True) as client,
                client.stream("GET", "http" + url.removeprefix("ws"), headers=headers) as response,
            ):
                status = response.status_code
    except _TROUBLE as error:
        return SetupCheck("media-url", False, _why_not(url, error, patience_s))
    if status == 101:
        return SetupCheck("media-url", True, f"media sockets can be opened at {url}")
    text = f"{url} answers {status} to a media socket: check that the proxy forwards WebSockets"
    return SetupCheck("media-url", False, text)


_TROUBLE = (TimeoutError, httpx.HTTPError, httpx.InvalidURL, UnicodeError)


def _why_not(url: str, error: Exception, patience_s: float) -> str:
    if isinstance(error, TimeoutError):
        return f"{url} does not answer within {patience_s:g} s"
    return f"{url} cannot be reached from here: {str(error) or type(error).__name__}"


@asynccontextmanager
async def _somebody_answers(
    carrier: TelephonyProvider, config: VoiceCallConfig, state_dir: Path
) -> AsyncIterator[None]:
    """Listen on the webhook port, unless a gateway does already."""
    server = make_server(config, carrier, _Nobody(), seam=SystemSeam(), state_dir=state_dir)
    running = server.run()
    try:
        await running.__aenter__()
    except ConfigError:
        # The port is in use: by the gateway, or else the answer will show it.
        yield
        return
    try:
        yield
    finally:
        await running.__aexit__(None, None, None)


class _Nobody:
    """Refuses all webhooks and sockets: carriers repeat them when the gateway runs."""

    async def recorded(
        self, verified: Verified, events: Sequence[CarrierEvent]
    ) -> WebhookReply | None:
        raise WebhookRejected(503, "only the setup is being checked")

    async def handle(
        self, request: WebhookRequest, verified: Verified, events: Sequence[CarrierEvent]
    ) -> WebhookReply:
        raise WebhookRejected(503, "only the setup is being checked")

    async def admit(self, started: Started, upgrade: Upgrade, socket: MediaSocket) -> Attachment:
        raise AdmissionRefused(1013, "Only the setup is being checked")
