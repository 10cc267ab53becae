"""Whether a call's record says why the call really ended.

Twilio reports that a call is over and how far it came, not who hung up. The gateway must know
whether it did so itself, and why.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any

from voicecall.model import Direction, EndDetail, EndReason
from voicecall_calls.engine.planner import LIMIT_SLACK_S
from voicecall_testing.twilio import TwilioEmulator

from .gateway import MAX_DURATION_S

__all__ = ["Ends"]

Entry = Mapping[str, Any]
End = tuple[str | None, str | None]
"""Reason and detail."""


class Cause(StrEnum):
    """What ended a call at the carrier."""

    REFUSED = "refused"
    """The far side did not answer: busy, failed or no answer."""
    CANCELED = "canceled"
    """We ended it before the far side answered."""
    US = "us"
    PHONE = "phone"
    LIMIT = "limit"
    """The carrier's time limit, which we set: no gateway lived long enough to end the call."""
    TROUBLE = "trouble"
    """A document could not be fetched, or nothing in it was left to do."""
    NEVER = "never"
    """The carrier made no call."""


TOLD: End = (EndReason.COMPLETED, EndDetail.CARRIER)
GIVEN_UP: End = (EndReason.HANGUP_USER, EndDetail.CARRIER)
"""By a caller whom we never answered."""
NO_PLACE: End = (EndReason.HANGUP_BOT, EndDetail.CAPACITY)
TOO_LONG: End = (EndReason.TIMEOUT, EndDetail.MAX_DURATION)
DECIDED: frozenset[End] = frozenset(
    {
        (EndReason.HANGUP_BOT, EndDetail.REQUESTED),
        (EndReason.HANGUP_BOT, EndDetail.NOTIFIED),
        (EndReason.HANGUP_BOT, EndDetail.AGENT),
        (EndReason.HANGUP_BOT, EndDetail.SILENCE),
        (EndReason.NO_ANSWER, EndDetail.RING_TIMEOUT),
        TOO_LONG,
    }
)
"""Ends that the gateway decides by itself; the far side may have hung up a moment before."""
FORCED: frozenset[End] = frozenset(
    {
        (EndReason.HANGUP_BOT, EndDetail.STREAM_LOST),
        (EndReason.HANGUP_BOT, EndDetail.STREAM_NEVER_STARTED),
        (EndReason.ERROR, EndDetail.MESSAGE_FAILED),
        (EndReason.ERROR, EndDetail.LISTENING_FAILED),
        (EndReason.ERROR, EndDetail.SPEECH_FAILED),
        (EndReason.FAILED, EndDetail.DIAL_UNKNOWN),
    }
)
"""Ends because something was missing: right for calls that we ended because of a fault."""
UNDIALLED: frozenset[End] = frozenset(
    {
        (EndReason.FAILED, EndDetail.DIAL_FAILED),
        (EndReason.FAILED, EndDetail.DIAL_UNKNOWN),
        (EndReason.HANGUP_BOT, EndDetail.DIAL_UNKNOWN),
        # Ended while it waited for its turn to be placed.
        (EndReason.HANGUP_BOT, EndDetail.REQUESTED),
    }
)
REFUSALS = {
    "busy": EndReason.BUSY,
    "failed": EndReason.FAILED,
    "no-answer": EndReason.NO_ANSWER,
}
IGNORANCE_MS = 10_000
"""A quiet call is asked about before the cap on its length; so much later, nobody had asked."""


class Ends:
    """``kills``: when gateways died, in epoch ms."""

    def __init__(self, twilio: TwilioEmulator, kills: Sequence[int]) -> None:
        self._twilio = twilio
        self._kills = kills
        self.found: Counter[str] = Counter()
        self.unknown = 0
        """Callers of whom no webhook ever came through."""

    def judge(self, records: Sequence[Entry]) -> None:
        """Compare all records with all calls. Raises ``AssertionError``, with all that is wrong."""
        ledger = self._twilio.ledger
        faults = [e["at"] for e in ledger.entries("request") if e["fault"] is not None]
        broken = [*self._kills, *faults]
        stories: dict[str, list[Entry]] = {}
        for entry in ledger.entries():
            stories.setdefault(entry["call"] or "", []).append(entry)
        by_alias = {alias: record for record in records for alias in record["aliases"]}
        wrong = []
        for call in self._twilio.calls.values():
            story = stories[call.sid]
            record = by_alias.get(call.sid)
            if record is not None:
                cause = _cause(call.status, story)
                if not self._right(cause, call.status, record, story, broken):
                    wrong.append(_shown(cause, record, story))
            elif call.plan.direction == Direction.INBOUND and not _opened(story):
                self.unknown += 1
            else:
                wrong.append(f"there is no record of {call.to_json()}")
        for record in records:
            never = not record["aliases"]
            if never and not self._right(Cause.NEVER, "", record, (), broken):
                wrong.append(_shown(Cause.NEVER, record, ()))
        assert not wrong, "\n\n".join(wrong)

    def _right(
        self,
        cause: Cause,
        status: str,
        record: Entry,
        story: Sequence[Entry],
        broken: Sequence[int],
    ) -> bool:
        end: End = (record["end_reason"], record["end_detail"])
        self.found[f"{cause.value}: {' '.join(map(str, end))}"] += 1
        if record["ended_at"] is None or record["state"] != record["end_reason"]:
            return False
        over_at = _over(story)["at"] if story else 0
        match cause:
            case Cause.NEVER:
                return end in UNDIALLED
            case Cause.REFUSED:
                return end in DECIDED | {(REFUSALS[status], EndDetail.CARRIER), NO_PLACE}
            case Cause.CANCELED:
                return end in DECIDED - {TOO_LONG}
            case Cause.US if end in FORCED:
                return _is_broken(story, broken)
            case Cause.US:
                return end in DECIDED
            case Cause.PHONE | Cause.TROUBLE if end == TOO_LONG:
                return bool(record["ended_at"] - over_at < IGNORANCE_MS)
            case Cause.LIMIT:
                return end in DECIDED | {TOLD, (EndReason.TIMEOUT, EndDetail.CARRIER)}
            case Cause.PHONE:
                told = GIVEN_UP if status == "canceled" else TOLD
                return end == told or end in DECIDED
            case Cause.TROUBLE:
                return (end == TOLD or end in DECIDED) and _is_broken(story, broken)


def _cause(status: str, story: Sequence[Entry]) -> Cause:
    if status in REFUSALS:
        return Cause.REFUSED
    over = _over(story)
    before = story[: story.index(over)]
    asked = any(e["kind"] == "update" and e.get("Status") == "completed" for e in before)
    if over["reason"] == EndReason.HANGUP_USER:
        return Cause.PHONE
    if over["duration"] >= MAX_DURATION_S + LIMIT_SLACK_S:
        return Cause.LIMIT
    if over["reason"] == EndReason.ERROR or not asked:
        return Cause.TROUBLE
    return Cause.CANCELED if status == "canceled" else Cause.US


def _over(story: Sequence[Entry]) -> Entry:
    (over,) = (entry for entry in story if entry["kind"] == "ended")
    return over


def _opened(story: Sequence[Entry]) -> bool:
    """Whether the first webhook of a call in came through."""
    return any(
        e["kind"] == "webhook" and e["type"] == "voice" and e["status"] == 200 for e in story
    )


def _is_broken(story: Sequence[Entry], broken: Sequence[int]) -> bool:
    """Whether something of the call broke, or, while it was up, something that all calls need."""
    if any(e["kind"] in ("stream-dropped", "webhook-lost", "webhook-given-up") for e in story):
        return True
    return any(story[0]["at"] <= at <= _over(story)["at"] for at in broken)


def _shown(cause: Cause, record: Entry, story: Sequence[Entry]) -> str:
    kept = ("direction", "mode", "media", "state", "end_reason", "end_detail", "end_note")
    lines = [f"{cause.value}: { ({name: record[name] for name in kept}) }"]
    for entry in story:
        shown = {k: v for k, v in entry.items() if k not in ("call", "kind", "params", "url")}
        if "params" in entry:
            shown["CallStatus"] = entry["params"].get("CallStatus")
        lines.append(f"  {entry['kind']} {shown}")
    return "\n".join(lines)
