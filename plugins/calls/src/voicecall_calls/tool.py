"""The agent tool ``voice_call``: one tool, with an ``action`` and its parameters.

Results are ``{"content": [{"type": "text", "text": <JSON>}], "details": <object>}``. Errors are not
raised but returned as ``{"error": "<message>"}`` in the same envelope, with ``isError`` set.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from voicecall.errors import InvalidRequest, VoicecallError
from voicecall.hosting import ToolCall
from voicecall.wellformed import well_formed_text
from voicecall_calls.operations import CallOperations
from voicecall_calls.parameters import Params, required, text_in
from voicecall_calls.rpc import Act, ask, dial, end, press, speak
from voicecall_gateway.parameters import refuse_unknown

__all__ = ["TOOL_DESCRIPTION", "TOOL_NAME", "TOOL_PARAMETERS", "VoiceCallTool"]

TOOL_NAME = "voice_call"
TOOL_DESCRIPTION = "Make phone calls: start a call, talk on it, press keys, end it, see its state."

_STRING = {"type": "string"}
TOOL_PARAMETERS: Mapping[str, Any] = {
    "type": "object",
    "properties": {
        "action": {
            "type": "string",
            "description": "What to do; required except for older clients",
            "enum": [
                "initiate_call",
                "continue_call",
                "speak_to_user",
                "send_dtmf",
                "end_call",
                "get_status",
            ],
        },
        "to": {**_STRING, "description": "Number to call, E.164"},
        "message": {**_STRING, "description": "What to say"},
        "mode": {
            "type": "string",
            "enum": ["notify", "conversation", "call", "status"],
            "description": "notify or conversation; without an action: call or status",
        },
        "dtmfSequence": {**_STRING, "description": "Keys to press before the conversation"},
        "sessionKey": _STRING,
        "callId": {**_STRING, "description": "Id of a call"},
        "digits": {**_STRING, "description": "Keys to press, 0-9 * #; w waits half a second"},
        "sid": {**_STRING, "description": "Id of a call, without an action"},
    },
}
_KNOWN = (*TOOL_PARAMETERS["properties"], "agentId", "requesterSessionKey", "idempotencyKey")
"""The last three are set by the program that runs the model; values from the model are ignored."""


class VoiceCallTool:
    """``operations`` returns the running phone's operations, or raises an error that says what is
    missing; it is called before any argument is checked. ``hide`` removes credentials from an
    error."""

    def __init__(
        self, operations: Callable[[], CallOperations], hide: Callable[[str], str] = str
    ) -> None:
        self._operations = operations
        self._hide = hide

    async def invoke(self, arguments: Params, call: ToolCall) -> dict[str, Any]:
        """Run one action.

        The requester's session key, the agent of a new call and the idempotency key come from
        ``call``, never from the model's arguments. Without an agent id, the agent is the one that
        the session key names. A ``call`` without scopes means that the model is talking to a
        caller, who could make it name somebody else's session: ``sessionKey`` is refused then.
        Unknown arguments are refused: if a misspelt ``to`` were ignored, somebody else would be
        called.
        """
        try:
            operations = self._operations()
            refuse_unknown(arguments, _KNOWN)
            known: dict[str, Any] = {
                # A model may write half a surrogate pair, which nothing stores or speaks.
                name: well_formed_text(value) if isinstance(value, str) else value
                for name, value in arguments.items()
            }
            if not call.scopes and text_in(known, "sessionKey") is not None:
                raise InvalidRequest("sessionKey cannot be chosen during a call; leave it out")
            asks = {
                "sessionKey": call.session_key,
                "agentId": call.agent_id,
                "idempotencyKey": call.idempotency_key,
            }
            session_key = text_in(asks, "sessionKey")
            known |= {
                "requesterSessionKey": session_key,
                "agentId": text_in(asks, "agentId") or _agent_of(session_key),
                "idempotencyKey": text_in(asks, "idempotencyKey"),
            }
            return _envelope(dict(await _run(operations, known)))
        except VoicecallError as error:
            return {**_envelope({"error": self._hide(str(error))}), "isError": True}


async def _run(operations: CallOperations, arguments: Params) -> Params:
    action = text_in(arguments, "action")
    if action is None:
        return await _legacy(operations, arguments)
    run = _ACTIONS.get(action)
    if run is None:
        known = ", ".join(_ACTIONS)
        raise InvalidRequest(f"unknown action {action!r}; one of {known}")
    return await run(operations, arguments)


async def _legacy(operations: CallOperations, arguments: Params) -> Params:
    """The older form, without an action: mode call (default) or status."""
    for name in ("callId", "digits"):
        if text_in(arguments, name) is not None:
            # What is meant for a live call must not place one to the configured number.
            raise InvalidRequest(f"action is required with {name}")
    if text_in(arguments, "mode") == "status":
        return await operations.status(required(arguments, "sid"))
    return await dial(operations, {**arguments, "mode": None}, text_in(arguments, "to"))


async def _initiate(operations: CallOperations, arguments: Params) -> Params:
    required(arguments, "message")
    return await dial(operations, arguments, text_in(arguments, "to"))


async def _status(operations: CallOperations, arguments: Params) -> Params:
    return await operations.status(required(arguments, "callId"))


_ACTIONS: Mapping[str, Act] = {
    "initiate_call": _initiate,
    "continue_call": ask,
    "speak_to_user": speak,
    "send_dtmf": press,
    "end_call": end,
    "get_status": _status,
}


def _agent_of(session_key: str | None) -> str | None:
    """The agent in a key of the form ``agent:<id>:<rest>``; None for any other key."""
    kind, _, rest = (session_key or "").partition(":")
    agent_id, _, own = rest.partition(":")
    return agent_id if kind.lower() == "agent" and agent_id and own else None


def _envelope(details: dict[str, Any]) -> dict[str, Any]:
    text = json.dumps(details, indent=2, ensure_ascii=False)
    return {"content": [{"type": "text", "text": text}], "details": details}
