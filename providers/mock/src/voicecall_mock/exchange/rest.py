"""The REST side of the exchange."""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import anyio
import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from voicecall.model import Direction

from .actions import ActionError, ActionRefused, action_from_json, checked_digits
from .calls import Call, CallPlan
from .faults import FaultError, Faults
from .script import ScriptError, behaviour_from_json, caller_from_json
from .server import leave_unanswered

if TYPE_CHECKING:
    from .exchange import Exchange

__all__ = ["make_app"]

_GATEWAY_PATHS = ("/v1/calls", "/v1/webhook")
T = TypeVar("T")


def make_app(exchange: Exchange) -> ASGIApp:
    """The ASGI application: authorisation, then faults, then routes."""
    rest = _Rest(exchange)
    routes = [
        Route("/v1/calls", rest.dial, methods=["POST"]),
        Route("/v1/calls", rest.find_calls, methods=["GET"]),
        Route("/v1/calls/{call}", rest.get_call, methods=["GET"]),
        Route("/v1/calls/{call}/actions", rest.act, methods=["POST"]),
        Route("/v1/calls/{call}/recording", rest.recording, methods=["GET"]),
        Route("/v1/webhook", rest.set_webhook, methods=["PUT"]),
        Route("/v1/phones/{number}", rest.set_phone, methods=["PUT"]),
        Route("/v1/phones/{number}/dial", rest.dial_in, methods=["POST"]),
        Route("/v1/faults", rest.set_faults, methods=["POST"]),
        Route("/v1/ledger", rest.ledger, methods=["GET"]),
    ]
    refused = (HTTPException, ActionError, ActionRefused, FaultError, ScriptError)
    app = Starlette(routes=routes, exception_handlers=dict.fromkeys(refused, _refuse))
    return _Door(_Trouble(app, exchange.faults), exchange.options.auth_token)


async def _refuse(request: Request, error: Exception) -> Response:
    if isinstance(error, HTTPException):
        return JSONResponse({"error": error.detail}, error.status_code)
    return JSONResponse({"error": str(error)}, 409 if isinstance(error, ActionRefused) else 400)


class _Door:
    """Lets requests with the right bearer token in."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._wanted = f"Bearer {token}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        given = dict(scope["headers"]).get(b"authorization", b"")
        if hmac.compare_digest(given, self._wanted):
            await self._app(scope, receive, send)
        else:
            await JSONResponse({"error": "wrong bearer token"}, 401)(scope, receive, send)


class _Trouble:
    """Applies the requested faults to a gateway's requests."""

    def __init__(self, app: ASGIApp, faults: Faults) -> None:
        self._app = app
        self._faults = faults

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        fault = self._faults.rest
        path = scope["path"]
        if not path.startswith(_GATEWAY_PATHS) or not fault.take(scope["method"], path):
            await self._app(scope, receive, send)
            return
        await anyio.sleep(fault.delay_ms / 1000)
        if fault.ambiguous:
            await leave_unanswered(self._app, scope, receive)
        elif fault.status:
            await JSONResponse({"error": "as asked for"}, fault.status)(scope, receive, send)
        else:
            await self._app(scope, receive, send)


_Text = Annotated[str, msgspec.Meta(min_length=1)]
_Url = Annotated[str, msgspec.Meta(pattern="^https?://")]
_Seconds = Annotated[float, msgspec.Meta(gt=0)]


class _Dial(msgspec.Struct, kw_only=True, rename="camel"):
    from_: _Text = msgspec.field(name="from")
    to: _Text
    webhook_url: _Url
    ring_timeout_s: _Seconds = 30.0
    time_limit_s: _Seconds = 3600.0
    reference: _Text | None = None
    digits: _Text | None = None


class _Webhook(msgspec.Struct):
    url: _Url


async def _body(request: Request, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(await request.body(), type=kind)
    except ClientDisconnect:
        raise HTTPException(400, "the body broke off") from None
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise HTTPException(400, f"the body cannot be read: {error}") from None


class _Rest:
    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    def _call(self, request: Request) -> Call:
        call = self._exchange.calls.get(request.path_params["call"])
        if call is None:
            raise HTTPException(404, "the call was not found")
        return call

    async def dial(self, request: Request) -> Response:
        told = await _body(request, _Dial)
        digits = None if told.digits is None else checked_digits(told.digits)
        plan = CallPlan(
            direction=Direction.OUTBOUND,
            from_number=told.from_,
            to_number=told.to,
            webhook_url=told.webhook_url,
            ring_timeout_s=told.ring_timeout_s,
            time_limit_s=told.time_limit_s,
            reference=told.reference,
            digits=digits,
        )
        return JSONResponse({"id": self._exchange.dial(plan).id}, 201)

    async def find_calls(self, request: Request) -> Response:
        reference = request.query_params.get("reference")
        calls = [
            {"id": call.id, "status": call.status}
            for call in self._exchange.calls.values()
            if reference is None or call.plan.reference == reference
        ]
        return JSONResponse({"calls": calls})

    async def get_call(self, request: Request) -> Response:
        return JSONResponse(self._call(request).to_json())

    async def act(self, request: Request) -> Response:
        call = self._call(request)
        call.perform(action_from_json(await _body(request, Any)))
        return JSONResponse({"ok": True})

    async def recording(self, request: Request) -> Response:
        wav = self._call(request).line.recording.wav()
        return Response(wav, media_type="audio/wav")

    async def set_webhook(self, request: Request) -> Response:
        self._exchange.inbound_webhook = (await _body(request, _Webhook)).url
        return JSONResponse({"ok": True})

    async def set_phone(self, request: Request) -> Response:
        behaviour = behaviour_from_json(await _body(request, dict[str, Any]))
        self._exchange.set_phone(request.path_params["number"], behaviour)
        return JSONResponse({"ok": True})

    async def dial_in(self, request: Request) -> Response:
        data = await _body(request, dict[str, Any])
        to = data.pop("to", None)
        if not isinstance(to, str) or not to:
            raise HTTPException(400, "to must be a string")
        behaviour = caller_from_json(data)
        try:
            call_id = self._exchange.dial_in(
                request.path_params["number"],
                to,
                behaviour.script,
                patience_s=behaviour.patience_s,
            )
        except LookupError as error:
            raise HTTPException(409, str(error)) from None
        return JSONResponse({"id": call_id}, 201)

    async def set_faults(self, request: Request) -> Response:
        self._exchange.faults.replace(await _body(request, Any))
        return JSONResponse({"ok": True})

    async def ledger(self, request: Request) -> Response:
        return JSONResponse(self._exchange.report(request.query_params.get("call")))
