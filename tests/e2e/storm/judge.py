"""What must hold for the store during the storm, judged by the carrier's ledger."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from tests.e2e.crash.judge import Store

from voicecall import ProviderContext
from voicecall import events as ev
from voicecall.model import Direction
from voicecall.seam import SystemSeam
from voicecall.telephony import WebhookRequest
from voicecall_testing.twilio import TwilioEmulator
from voicecall_testing.twilio.delivery import Signer
from voicecall_twilio.config import TwilioConfig
from voicecall_twilio.provider import TwilioProvider

from .crowd import MESSAGE
from .gateway import OUR_NUMBER

__all__ = ["Judge"]

COMPLAINTS = ("Traceback", " error voicecall", " critical ", "never awaited", "was destroyed")
ATTEMPTS = 4
"""The first one, and ``rc=3``."""
OPENING = (ev.Initiated, ev.Ringing, ev.Answered, ev.Active)


class Judge:
    """Every method raises ``AssertionError`` with what is wrong."""

    def __init__(self, twilio: TwilioEmulator, store: Store) -> None:
        self._twilio = twilio
        self._store = store
        self._signer = Signer(twilio.options)
        values = {
            "accountSid": twilio.options.account_sid,
            "authToken": twilio.options.auth_token,
            "apiBaseUrl": twilio.base_url,
        }
        context = ProviderContext(Path("unused"), seam=SystemSeam())
        self.adapter = TwilioProvider(TwilioConfig.model_validate(values), context)
        self._seen = 0
        self._events: dict[str, dict[str, Any]] = {}
        self._requests: dict[str, dict[str, Any]] = {}
        self.ignored = 0
        """Accepted webhooks of callers whose first one never came through."""

    @property
    def webhooks(self) -> int:
        """Distinct webhooks that were accepted and then looked up in the store."""
        return len(self._events) + len(self._requests)

    def after_death(self, output: str) -> None:
        """The gateway is dead or has stopped; the next one is not started yet."""
        complaints = [line for line in output.splitlines() if any(c in line for c in COMPLAINTS)]
        assert not complaints, "\n".join([*complaints, "", output])
        entries = self._twilio.ledger.entries("webhook", status=200)
        for entry in entries[self._seen :]:
            self._note(entry)
        self._seen = len(entries)
        self._accepted_is_stored()
        self._every_live_call_has_a_deadline()

    # --- webhooks ---------------------------------------------------------------------------

    def _note(self, entry: dict[str, Any]) -> None:
        """What the adapter parses from a webhook must be in the store."""
        form = entry["params"]
        signed = self._signer.headers(entry["url"], form)
        request = WebhookRequest(
            method="POST",
            url=entry["url"],
            query={},
            headers={
                "content-type": "application/x-www-form-urlencoded",
                **{name.lower(): value for name, value in signed.items()},
            },
            body=urlencode(form).encode(),
            client="",
        )
        events = self.adapter.parse(request, entry["at"])
        for event in events:
            self._events[event.key] = {**entry, "opening": isinstance(event, OPENING)}
        if not events:
            self._requests[self.adapter.verify(request, entry["at"]).key] = entry

    def _accepted_is_stored(self) -> None:
        for key in self._store.missing_keys(list(self._events)):
            self._may_be_ignored(self._events.pop(key))
        query = (
            "SELECT value FROM json_each(?)"
            " WHERE NOT EXISTS (SELECT 1 FROM replay_keys WHERE key = value)"
        )
        lost = self._store.rows(query, json.dumps(list(self._requests)))
        assert not lost, f"accepted and lost: {[self._requests[key] for (key,) in lost]}"

    def _may_be_ignored(self, entry: dict[str, Any]) -> None:
        """Only of an inbound call whose first webhook never came through."""
        call = self._twilio.calls[entry["call"]]
        known = self._store.rows(
            "SELECT call_id FROM call_aliases WHERE provider_call_id = ?", call.sid
        )
        assert not known, f"accepted and lost: {entry} of {known}"
        assert call.plan.direction == Direction.INBOUND, f"accepted and lost: {entry}"
        assert not entry["opening"], f"accepted and lost: {entry}"
        self.ignored += 1

    def _every_live_call_has_a_deadline(self) -> None:
        bare = self._store.rows(
            "SELECT call_id, document FROM calls WHERE live"
            " AND call_id NOT IN (SELECT call_id FROM deadlines)"
        )
        assert not bare, f"live without a deadline: {bare}"

    # --- dialling ---------------------------------------------------------------------------

    def dialled_once(self) -> None:
        """No call had a second create request, unless the first was refused as too many."""
        ledger = self._twilio.ledger
        dialled = [
            entry["to"] for entry in ledger.entries("dialled") if entry["from"] == OUR_NUMBER
        ]
        assert len(set(dialled)) == len(dialled), "a number was dialled twice"
        creates = ledger.entries("request", method="POST", path="/Calls.json")
        carried = [entry for entry in creates if entry["fault"] != 429]
        (ours,) = self._store.rows("SELECT count(*) FROM calls WHERE from_number = ?", OUR_NUMBER)
        assert len(carried) <= ours[0], f"{len(carried)} create requests for {ours[0]} calls"

    def redelivered(self) -> None:
        """Webhooks that were given up had been tried as often as their URL asks for."""
        ledger = self._twilio.ledger
        last = ledger.entries("webhook", attempt=ATTEMPTS)
        failed = [entry for entry in last if entry["status"] != 200]
        given_up = ledger.entries("webhook-given-up")
        assert len(failed) == len(given_up), (failed, given_up)
        assert not [e for e in ledger.entries("webhook") if e["attempt"] > ATTEMPTS]

    def notified_once(self) -> None:
        """The carrier's voice spoke no notification twice."""
        notified = self._store.rows(
            "SELECT json_extract(document, '$.provider_call_id') FROM calls"
            " WHERE json_extract(document, '$.mode') = 'notify'"
        )
        heard = Counter(e["call"] for e in self._twilio.ledger.entries("heard", text=MESSAGE))
        assert not [sid for (sid,) in notified if heard[sid] > 1]
