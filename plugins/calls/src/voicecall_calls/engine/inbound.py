"""The record of an inbound call: its route, agent, greeting and session."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from voicecall import events as ev
from voicecall import machine as mc
from voicecall.model import CallMode, CallRecord, FirstMessage

from .admission import route_for
from .sessions import session_key

if TYPE_CHECKING:
    from .engine import CallEngine

__all__ = ["inbound_record"]


def inbound_record(
    engine: CallEngine, event: ev.CarrierEvent, call_id: str, code: str | None
) -> CallRecord:
    """The record, before ``event`` is applied to it. With a pairing ``code``, the call only says
    the code and hangs up."""
    config = engine.config
    route_key, route = route_for(config, event.to_number) or (None, None)
    agent = (route.agent_id if route else None) or config.agent_id or engine.default_agent
    greeting = (
        (route.inbound_greeting if route else None)
        or config.inbound_greeting
        or config.phrases.greeting
    )
    record = mc.open_inbound(
        call_id=call_id,
        provider=engine.provider_id,
        event=event,
        media=engine.media,
        greeting=greeting,
        policy=engine.policy,
        agent_id=agent,
        route_key=route_key,
        session_key=session_key(
            agent_id=agent,
            scope=config.session_scope,
            call_id=call_id,
            remote_number=event.from_number,
            one_for_all=engine.one_for_all,
        ),
    )
    if code is None:
        return record
    spelt = ", ".join(code)
    return replace(
        record,
        mode=CallMode.NOTIFY,
        message=FirstMessage(config.phrases.pairing.replace("{code}", spelt)),
        metadata={**record.metadata, "pairing": True},
    )
