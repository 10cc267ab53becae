"""The call server with the store and without calls: the cost of HTTP, the checks and the commit of
a webhook by themselves.

    python -m tests.bench.carrier.storing PORT
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import anyio

from voicecall import ProviderContext
from voicecall.events import CarrierEvent
from voicecall.media import Started, Upgrade
from voicecall.seam import SystemSeam
from voicecall.store import CallStore, Commit, RecordedReply, StoredEvent
from voicecall.telephony import Verified, WebhookReply, WebhookRequest
from voicecall_calls.config import ServeConfig
from voicecall_calls.doors import AdmissionRefused, Attachment, MediaSocket
from voicecall_calls.server import CallServer, StreamOptions, WebhookSecurity
from voicecall_calls.store import SqliteStore
from voicecall_gateway.eventloop import new_event_loop
from voicecall_twilio.config import TwilioConfig
from voicecall_twilio.provider import TwilioProvider

from .webhooks import ACCOUNT, AUTH_TOKEN

REPLY = WebhookReply(body=b"<Response><Pause/></Response>", content_type="text/xml")
_MANY = 1_000_000


class _Engine:
    def __init__(self, store: CallStore) -> None:
        self._store = store

    async def recorded(
        self, verified: Verified, events: Sequence[CarrierEvent]
    ) -> WebhookReply | None:
        return None

    async def handle(
        self, request: WebhookRequest, verified: Verified, events: Sequence[CarrierEvent]
    ) -> WebhookReply:
        for event in events:
            reply = RecordedReply(event.key, event.at, 200, REPLY.body, REPLY.content_type)
            told = StoredEvent(event.at, type(event).__name__, event.to_dict())
            await self._store.commit(Commit(events=[told], processed_keys=[event.key], reply=reply))
        return REPLY

    async def admit(self, started: Started, upgrade: Upgrade, socket: MediaSocket) -> Attachment:
        raise AdmissionRefused(1008, "Unknown call")


async def main(port: int) -> None:
    seam = SystemSeam()
    config = TwilioConfig.model_validate({"accountSid": ACCOUNT, "authToken": AUTH_TOKEN})
    with TemporaryDirectory(prefix="voicecall-bench-") as directory:
        store = SqliteStore(Path(directory), seam, pause_s=0.004)
        engine = _Engine(store)
        server = CallServer(
            TwilioProvider(config, ProviderContext(Path(directory))),
            engine,
            serve=ServeConfig(port=port),
            stream=StreamOptions(),
            security=WebhookSecurity(max_in_flight=_MANY, max_in_flight_per_client=_MANY),
            seam=seam,
        )
        async with store.lifespan(), server.run():
            await anyio.sleep_forever()


if __name__ == "__main__":
    anyio.run(main, int(sys.argv[1]), backend_options={"loop_factory": new_event_loop})
