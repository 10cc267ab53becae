"""Turns effects into actions for the carrier while a webhook still waits for its reply.

The first message of a carrier-native call, the answer to an inbound call and the media socket are
decided here, in the same step as the event that requires them. A carrier that is controlled by
replies then gets them without another request.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from msgspec.structs import replace

from voicecall import events as ev
from voicecall import machine as mc
from voicecall import telephony as tel
from voicecall.model import (
    CallMode,
    CallRecord,
    Direction,
    EndDetail,
    MediaPath,
    MessageState,
)
from voicecall.store import StoredEvent

__all__ = ["LIMIT_SLACK_S", "Doubt", "Plan", "Planner"]

LIMIT_SLACK_S = 30
"""How much later than ours the carrier's own limit is: it is for a gateway that is dead."""


class Plan(msgspec.Struct):
    """A step with its actions. ``tokens`` are the stream tokens in the actions."""

    record: CallRecord
    effects: list[mc.Effect]
    events: list[ev.CallEvent]
    actions: list[tel.Action] = msgspec.field(default_factory=list)
    tokens: list[str] = msgspec.field(default_factory=list)

    def stored(self) -> list[StoredEvent]:
        """The events in the store's form."""
        return [StoredEvent(e.at, type(e).__name__, e.to_dict()) for e in self.events]


class Doubt(msgspec.Struct, frozen=True):
    """A step whose commit failed. If only the store's answer was lost, the key is found when the
    event is delivered again, and the step is published then."""

    before: CallRecord
    plan: Plan
    rest: list[tel.Action]


class Planner:
    """Plans actions according to the carrier's capabilities."""

    def __init__(
        self,
        capabilities: tel.TelephonyCapabilities,
        policy: mc.CallPolicy,
        *,
        stream_url: Callable[[], str],
        new_token: Callable[[], str],
        new_id: Callable[[], str],
        voice: Callable[[CallRecord], str | None],
        speaks_at_dial: Callable[[tel.Speak], bool],
        end_silence_ms: int,
        refusal: Callable[[], str | None] = lambda: None,
    ) -> None:
        self._capabilities = capabilities
        in_answer = {tel.StreamPoint.ANSWER, tel.StreamPoint.DOCUMENT}
        self._streams_in_answer = not capabilities.stream.isdisjoint(in_answer)
        self._policy = policy
        self._stream_url = stream_url
        self._new_token = new_token
        self._new_id = new_id
        self._voice = voice
        self._speaks_at_dial = speaks_at_dial
        self._end_silence_ms = end_silence_ms
        self._refusal = refusal

    def plan(self, step: mc.Step, event: ev.CallEvent) -> Plan:
        """Turn the effects of ``step`` that concern the carrier into actions; keep the others."""
        plan = Plan(step.record, [], [event])
        for effect in step.effects:
            self._fold(plan, effect, event)
        if isinstance(event, ev.StreamAttached) and plan.record.live:
            self._limit(plan)
        return plan

    def listen(self, token: str) -> tel.Listen:
        return tel.Listen(token, self._end_silence_ms)

    def first_words(self, record: CallRecord) -> tel.Speak | None:
        """The message of a notification that the carrier's own voice speaks; None for any other
        call."""
        message = record.message
        if message is None or record.mode is not CallMode.NOTIFY:
            return None
        if record.media is not MediaPath.NATIVE:
            return None
        return tel.Speak(message.at_dial or self._new_id(), message.text, self._voice(record))

    def with_message_at_dial(self, step: mc.Step) -> mc.Step:
        """The first step of an outbound call. If the carrier can be given the message with the
        dial request, the step says so."""
        record = step.record
        words = self.first_words(record)
        if words is None or record.message is None or not self._speaks_at_dial(words):
            return step
        message = replace(record.message, at_dial=words.utterance_id)
        return replace(step, record=replace(record, message=message))

    def _fold(self, plan: Plan, effect: mc.Effect, event: ev.CallEvent) -> None:
        record = plan.record
        match effect:
            case mc.AnswerCall():
                wanted = record.media is not MediaPath.NATIVE and self._streams_in_answer
                plan.actions.append(tel.Answer(self._stream(plan) if wanted else None))
            case mc.RefuseCall(EndDetail.POLICY):
                plan.actions.append(tel.Reject(self._refusal()))
            case mc.RefuseCall():
                plan.actions.append(tel.Reject(busy=True))
            case mc.ReattachStream():
                plan.effects.append(effect)
                plan.actions.append(tel.AttachStream(self._stream(plan)))
            case mc.Connected(resumed):
                plan.effects.append(effect)
                if record.media is not MediaPath.NATIVE:
                    # If the carrier had to be asked, the answer with the token may have been lost.
                    if self._must_attach(record, asked=isinstance(event, ev.StatusReported)):
                        plan.actions.append(tel.AttachStream(self._stream(plan)))
                elif not resumed:
                    self._first_words(plan, event.at)
                    self._limit(plan)
            case _:
                plan.effects.append(effect)

    def _must_attach(self, record: CallRecord, *, asked: bool) -> bool:
        if record.stream_id is not None:
            return False
        answers = record.direction is Direction.INBOUND and self._capabilities.explicit_answer
        return asked or not (answers and self._streams_in_answer)

    def _limit(self, plan: Plan) -> None:
        # The dial request limits outbound calls; a streamed call that lacks its stream ends anyway.
        if plan.record.direction is Direction.INBOUND and self._capabilities.limit_by_command:
            limit = self._policy.max_duration_ms // 1000 + LIMIT_SLACK_S
            plan.actions.append(tel.LimitDuration(limit))

    def new_stream(self) -> tel.StreamRequest:
        """A request for a media socket. Its token must be registered before it is sent."""
        return tel.StreamRequest(self._stream_url(), self._new_token())

    def _stream(self, plan: Plan) -> tel.StreamRequest:
        stream = self.new_stream()
        plan.tokens.append(stream.token)
        return stream

    def _first_words(self, plan: Plan, at: int) -> None:
        record = plan.record
        message = record.message
        listen = None
        if record.mode is CallMode.CONVERSATION:
            listen = self.listen(self._new_token())
            self._apply(plan, ev.ListenStarted(at=at, token=listen.token))
        if message is not None and message.state is MessageState.PENDING:
            utterance = message.at_dial or self._new_id()
            self._apply(
                plan,
                ev.BotSpeaking(
                    at=at, utterance_id=utterance, text=message.text, first_message=True
                ),
            )
            if message.at_dial is None:
                plan.actions.append(tel.Speak(utterance, message.text, self._voice(record), listen))
        elif listen is not None:
            plan.actions.append(listen)

    def _apply(self, plan: Plan, event: ev.CallEvent) -> None:
        step = mc.step(plan.record, event, self._policy)
        plan.record = step.record
        plan.effects.extend(step.effects)
        plan.events.append(event)
