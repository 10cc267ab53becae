"""RPC methods of the phone."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import anyio.abc

from voicecall.errors import InvalidRequest, MissingScope, VoicecallError
from voicecall.hosting import RpcCall, RpcMethod
from voicecall.seam import Seam
from voicecall_calls.operations import CallOperations, DialOptions
from voicecall_calls.pairing import approval_json, decided_json
from voicecall_calls.parameters import Params, mode_in, required, text_in
from voicecall_gateway.auth import ADMIN, READ, WRITE
from voicecall_gateway.parameters import refuse_unknown

__all__ = ["PARAMETERS", "Act", "PhoneRpc", "ask", "dial", "end", "press", "speak"]

_log = logging.getLogger("voicecall.calls")

Handler = Callable[[Params, RpcCall], Awaitable[Params]]
Act = Callable[[CallOperations, Params], Awaitable[Params]]

_MOST = 1_000_000
"""Most turns that one request may cover."""
_KEEP_S = 300.0

_DIAL = (
    "to",
    "message",
    "mode",
    "dtmfSequence",
    "sessionKey",
    "requesterSessionKey",
    "agentId",
    "idempotencyKey",
)
PARAMETERS: Mapping[str, Sequence[str]] = {
    "voicecall.initiate": _DIAL,
    "voicecall.start": _DIAL,
    "voicecall.continue": ("callId", "message"),
    "voicecall.continue.start": ("callId", "message"),
    "voicecall.continue.result": ("operationId",),
    # OpenClaw's clients send the last one. It has no effect here.
    "voicecall.speak": ("callId", "message", "allowTwimlFallback"),
    "voicecall.dtmf": ("callId", "digits"),
    "voicecall.end": ("callId",),
    "voicecall.status": ("callId", "sid"),
    "voicecall.latency": ("last",),
    "voicecall.pairing.list": (),
    "voicecall.pairing.approve": ("caller",),
    "voicecall.pairing.revoke": ("number",),
}
"""The parameters of each method; any other parameter is refused."""


@dataclass(slots=True)
class _Operation:
    """A question: pending, completed or failed. Its outcome is kept for a while after
    ``settled_at``, a time of the monotonic clock."""

    id: str
    poll_timeout_ms: int
    transcript: str | None = None
    error: str | None = None
    settled_at: float | None = None

    def payload(self) -> dict[str, Any]:
        if self.settled_at is None:
            return {
                "operationId": self.id,
                "status": "pending",
                "pollTimeoutMs": self.poll_timeout_ms,
            }
        if self.error is not None:
            return {"operationId": self.id, "status": "failed", "error": self.error}
        result = {"success": True, "transcript": self.transcript}
        return {"operationId": self.id, "status": "completed", "result": result}


class PhoneRpc:
    """``operations`` returns the running phone's operations, or raises an error that says what is
    missing. ``hide`` removes credentials from an error that is part of a result."""

    def __init__(
        self,
        operations: Callable[[], CallOperations],
        seam: Seam,
        hide: Callable[[str], str] = str,
    ) -> None:
        self._operations = operations
        self._seam = seam
        self._hide = hide
        self._running: dict[str, _Operation] = {}
        self.tasks: anyio.abc.TaskGroup
        """The tasks of the running phone."""

    def methods(self) -> list[RpcMethod]:
        return [
            _method("voicecall.initiate", WRITE, self._initiate),
            _method("voicecall.start", WRITE, self._start),
            _method("voicecall.continue", WRITE, self._plain(ask)),
            _method("voicecall.continue.start", WRITE, self._continue_start),
            _method("voicecall.continue.result", READ, self._continue_result),
            _method("voicecall.speak", WRITE, self._plain(speak)),
            _method("voicecall.dtmf", WRITE, self._plain(press)),
            _method("voicecall.end", WRITE, self._plain(end)),
            _method("voicecall.status", READ, self._plain(_status)),
            _method("voicecall.latency", READ, self._plain(_latency)),
            _method("voicecall.pairing.list", ADMIN, self._plain(_pairing_list)),
            _method("voicecall.pairing.approve", ADMIN, self._plain(_pairing_approve)),
            _method("voicecall.pairing.revoke", ADMIN, self._plain(_pairing_revoke)),
        ]

    def _plain(self, operation: Act) -> Handler:
        async def run(params: Params, call: RpcCall) -> Params:
            return await operation(self._operations(), params)

        return run

    async def _initiate(self, params: Params, call: RpcCall) -> Params:
        required(params, "message")
        return await self._dial(params, text_in(params, "to"), call)

    async def _start(self, params: Params, call: RpcCall) -> Params:
        return await self._dial(params, required(params, "to"), call)

    async def _dial(self, params: Params, to: str | None, call: RpcCall) -> Params:
        if text_in(params, "agentId") is not None and ADMIN not in call.scopes:
            # An agent has tools and memory, to which permission to place calls gives no access.
            raise MissingScope(ADMIN, "agentId")
        return await dial(self._operations(), params, to)

    async def _continue_start(self, params: Params, call: RpcCall) -> Params:
        call_id, message = required(params, "callId"), required(params, "message")
        operations = self._operations()
        longest_ms = await operations.check_ask(call_id, message)
        self._drop_old()
        operation = _Operation(self._seam.new_id(), longest_ms)
        self._running[operation.id] = operation

        async def run() -> None:
            failure: str | None = "the phone was stopped"
            try:
                operation.transcript = await operations.ask(call_id, message)
                failure = None
            except VoicecallError as error:
                failure = self._hide(str(error))
            except (Exception, SystemExit):  # noqa: BLE001 (it must not end the phone)
                _log.exception("a question on call %s failed", call_id)
                failure = "internal error"
            finally:
                operation.error = failure
                operation.settled_at = self._seam.monotonic()

        self.tasks.start_soon(run)
        return operation.payload()

    async def _continue_result(self, params: Params, call: RpcCall) -> Params:
        self._drop_old()
        operation = self._running.get(required(params, "operationId"))
        if operation is None:
            raise InvalidRequest("unknown operationId")
        return operation.payload()

    def _drop_old(self) -> None:
        now = self._seam.monotonic()
        self._running = {
            key: operation
            for key, operation in self._running.items()
            if operation.settled_at is None or now - operation.settled_at < _KEEP_S
        }


# --- shared with the agent tool --------------------------------------------------------------


async def dial(operations: CallOperations, params: Params, to: str | None) -> dict[str, Any]:
    record = await operations.dial(
        DialOptions(
            to=to,
            message=text_in(params, "message"),
            mode=mode_in(params),
            dtmf_sequence=text_in(params, "dtmfSequence"),
            session_key=text_in(params, "sessionKey"),
            requester_session_key=text_in(params, "requesterSessionKey"),
            agent_id=text_in(params, "agentId"),
            idempotency_key=text_in(params, "idempotencyKey"),
        )
    )
    await operations.placed(record)
    return {"callId": record.call_id, "initiated": True}


async def ask(operations: CallOperations, params: Params) -> dict[str, Any]:
    call_id, message = required(params, "callId"), required(params, "message")
    return {"success": True, "transcript": await operations.ask(call_id, message)}


async def speak(operations: CallOperations, params: Params) -> dict[str, Any]:
    await operations.speak(required(params, "callId"), required(params, "message"))
    return {"success": True}


async def press(operations: CallOperations, params: Params) -> dict[str, Any]:
    await operations.dtmf(required(params, "callId"), required(params, "digits"))
    return {"success": True}


async def end(operations: CallOperations, params: Params) -> dict[str, Any]:
    await operations.end(required(params, "callId"))
    return {"success": True}


# --- only for RPC ----------------------------------------------------------------------------


async def _status(operations: CallOperations, params: Params) -> Params:
    return await operations.status(text_in(params, "callId") or text_in(params, "sid"))


async def _latency(operations: CallOperations, params: Params) -> Params:
    last = params.get("last", 200)
    if not isinstance(last, int) or isinstance(last, bool) or not 1 <= last <= _MOST:
        raise InvalidRequest(f"last must be a whole number from 1 to {_MOST}")
    return await operations.latency(last)


async def _pairing_list(operations: CallOperations, params: Params) -> Params:
    callers = await operations.pairing.listed()
    return {"callers": [approval_json(approval) for approval in callers]}


async def _pairing_approve(operations: CallOperations, params: Params) -> Params:
    caller = await operations.pairing.approve(required(params, "caller"))
    return decided_json(caller, operations.in_spite_of(caller))


async def _pairing_revoke(operations: CallOperations, params: Params) -> Params:
    caller = await operations.revoke(required(params, "number"))
    return decided_json(caller, operations.in_spite_of(caller))


def _method(name: str, scope: str, handler: Handler) -> RpcMethod:
    known = PARAMETERS[name]

    async def checked(params: Params, call: RpcCall) -> Params:
        refuse_unknown(params, known)
        return await handler(params, call)

    return RpcMethod(name, scope, checked)
