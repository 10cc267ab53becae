"""The REST API: calls and phone numbers of the account."""

from __future__ import annotations

import hmac
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlencode

import anyio
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from voicecall_mock.exchange.faults import FaultError
from voicecall_mock.exchange.script import ScriptError
from voicecall_mock.exchange.server import leave_unanswered

from .board import new_sid
from .calls import Call
from .control import control_routes
from .errors import ApiError
from .numbers import PhoneNumber
from .parameters import API_VERSION, call_resource
from .requests import CallUpdate, Form, read_create, read_update

if TYPE_CHECKING:
    from .emulator import TwilioEmulator

__all__ = ["make_app"]

_FILTERS = frozenset({"To", "From", "Status", "StartTime", "StartTime>", "StartTime<"})
_PAGING = frozenset({"Page", "PageSize", "PageToken"})


def make_app(emulator: TwilioEmulator) -> ASGIApp:
    """The ASGI application: authorisation, then faults, then the routes."""
    rest = _Rest(emulator)
    account = [
        Route("/Calls.json", rest.create_call, methods=["POST"]),
        Route("/Calls.json", rest.list_calls, methods=["GET"]),
        Route("/Calls/{sid}.json", rest.get_call, methods=["GET"]),
        Route("/Calls/{sid}.json", rest.update_call, methods=["POST"]),
        Route("/IncomingPhoneNumbers.json", rest.list_numbers, methods=["GET"]),
        Route("/IncomingPhoneNumbers/{sid}.json", rest.get_number, methods=["GET"]),
        Route("/IncomingPhoneNumbers/{sid}.json", rest.update_number, methods=["POST"]),
        Route("/OutgoingCallerIds.json", rest.list_caller_ids, methods=["GET"]),
    ]
    routes = [
        Route(f"{rest.base}.json", rest.get_account, methods=["GET"]),
        Mount(rest.base, routes=account),
        Mount("/emulator", routes=control_routes(emulator)),
    ]
    refused = (ApiError, FaultError, HTTPException, ScriptError)
    app = Starlette(routes=routes, exception_handlers=dict.fromkeys(refused, _refuse))
    return _Door(_Trouble(app, emulator, rest.base), emulator)


async def _refuse(request: Request, error: Exception) -> Response:
    if isinstance(error, HTTPException):
        message = f"The requested resource {request.url.path} was not found"
        code = 20004 if error.status_code == 405 else 20404
        error = ApiError(error.status_code, code, message)
    if not isinstance(error, ApiError):
        error = ApiError(400, 20001, str(error))
    return JSONResponse(error.to_json(), error.status)


class _Door:
    """Admits requests with the auth token or an API key, and gives each one a request id."""

    def __init__(self, app: ASGIApp, emulator: TwilioEmulator) -> None:
        self._app = app
        self._emulator = emulator

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request_id = new_sid(self._emulator.seam, "RQ").encode()

        async def named(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"twilio-request-id", request_id)]
            await send(message)

        if self._admits(dict(scope["headers"]).get(b"authorization", b"")):
            await self._app(scope, receive, named)
        else:
            error = ApiError(401, 20003, "Authenticate")
            await JSONResponse(error.to_json(), 401)(scope, receive, named)

    def _admits(self, header: bytes) -> bool:
        options = self._emulator.options
        kind, _, encoded = header.partition(b" ")
        try:
            given = b64decode(encoded, validate=True)
        except Base64Error:
            return False
        wanted = {options.account_sid: options.auth_token, **options.api_keys}
        return kind.lower() == b"basic" and any(
            hmac.compare_digest(given, f"{user}:{secret}".encode())
            for user, secret in wanted.items()
        )


class _Trouble:
    """Applies the REST faults to the customer's requests."""

    def __init__(self, app: ASGIApp, emulator: TwilioEmulator, base: str) -> None:
        self._app = app
        self._emulator = emulator
        self._base = base

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path: str = scope["path"]
        fault = None
        if path.startswith(self._base):
            relative = path.removeprefix(self._base)
            fault = self._emulator.faults.rest_fault(scope["method"], relative)
            self._emulator.ledger.add(
                "request",
                method=scope["method"],
                path=relative,
                fault=None if fault is None else fault.status or "yes",
            )
        if fault is None:
            await self._app(scope, receive, send)
        elif fault.ambiguous:
            await leave_unanswered(self._app, scope, receive, delay_s=fault.delay_ms / 1000)
        elif fault.status is not None:
            await anyio.sleep(fault.delay_ms / 1000)
            await _failure(fault.status)(scope, receive, send)
        else:
            await self._app(scope, receive, _slowly(send, fault.delay_ms / 1000))


def _failure(status: int) -> Response:
    """429 and 500 look like the API's own errors, others like those of a proxy in front of it."""
    if status == 429:
        error = ApiError(429, 20429, "Too Many Requests")
        return JSONResponse(error.to_json(), 429, {"Twilio-Concurrent-Requests": "101"})
    if status == 500:
        return JSONResponse(ApiError(500, 20500, "Internal Server Error").to_json(), 500)
    return Response("<html><body>as asked for</body></html>", status, media_type="text/html")


def _slowly(send: Send, delay_s: float) -> Send:
    """Delay the answer; the request is carried out at once."""

    async def wait(message: Message) -> None:
        if message["type"] == "http.response.start":
            await anyio.sleep(delay_s)
        await send(message)

    return wait


async def _form(request: Request) -> Form:
    try:
        body = await request.body()
        return Form(parse_qsl(body.decode(), keep_blank_values=True))
    except (ClientDisconnect, UnicodeDecodeError):
        raise ApiError(400, 20001, "The body is not a form in UTF-8") from None


class _Rest:
    def __init__(self, emulator: TwilioEmulator) -> None:
        self._emulator = emulator
        self.base = f"/{API_VERSION}/Accounts/{emulator.options.account_sid}"

    # --- calls --------------------------------------------------------------------------------

    def _call(self, request: Request) -> Call:
        call = self._emulator.calls.get(request.path_params["sid"])
        if call is None:
            raise HTTPException(404)
        return call

    def _resource(self, call: Call) -> Mapping[str, Any]:
        return call_resource(call, self.base)

    async def create_call(self, request: Request) -> Response:
        emulator = self._emulator
        form = await _form(request)
        options = emulator.options
        plan = read_create(
            form,
            numbers={*emulator.numbers, *emulator.caller_ids},
            refused=options.refused_numbers,
            longest_s=options.longest_call_s,
        )
        call = emulator.dial(plan)
        self._unread(form, call.sid)
        return JSONResponse(self._resource(call), 201)

    async def get_call(self, request: Request) -> Response:
        return JSONResponse(self._resource(self._call(request)))

    async def update_call(self, request: Request) -> Response:
        form = await _form(request)
        longest_s = self._emulator.options.longest_call_s
        call, update = self._call(request), read_update(form, longest_s=longest_s)
        self._unread(form, call.sid)
        if update.source is not None and call.status != "in-progress":
            raise ApiError(400, 21220, "Call is not in-progress. Cannot redirect.")
        self._emulator.ledger.add("update", call.sid, **form.flat())
        _apply(call, update)
        return JSONResponse(self._resource(call))

    async def list_calls(self, request: Request) -> Response:
        query = Form(request.query_params.multi_items())
        calls = [call for call in reversed(self._emulator.calls.values()) if _matches(call, query)]
        resources = [self._resource(call) for call in calls]
        return self._page(query, "Calls.json", "calls", resources)

    # --- numbers and the account --------------------------------------------------------------

    def _number(self, request: Request) -> PhoneNumber:
        sid = request.path_params["sid"]
        for number in self._emulator.numbers.values():
            if number.sid == sid:
                return number
        raise HTTPException(404)

    def _number_resource(self, number: PhoneNumber) -> Mapping[str, Any]:
        return number.resource(self._emulator.options.account_sid, self.base)

    async def list_numbers(self, request: Request) -> Response:
        query = Form(request.query_params.multi_items())
        wanted = query.get("PhoneNumber").strip("*")
        found = [
            self._number_resource(number)
            for number in self._emulator.numbers.values()
            if wanted in number.number
        ]
        return self._page(query, "IncomingPhoneNumbers.json", "incoming_phone_numbers", found)

    async def get_number(self, request: Request) -> Response:
        return JSONResponse(self._number_resource(self._number(request)))

    async def update_number(self, request: Request) -> Response:
        number, form = self._number(request), await _form(request)
        number.update(form.flat())
        return JSONResponse(self._number_resource(number))

    async def list_caller_ids(self, request: Request) -> Response:
        query = Form(request.query_params.multi_items())
        wanted = query.get("PhoneNumber")
        found = [
            {
                "sid": sid,
                "account_sid": self._emulator.options.account_sid,
                "phone_number": number,
                "friendly_name": number,
                "date_created": None,
                "date_updated": None,
                "uri": f"{self.base}/OutgoingCallerIds/{sid}.json",
            }
            for number, sid in self._emulator.caller_ids.items()
            if wanted in ("", number)
        ]
        return self._page(query, "OutgoingCallerIds.json", "outgoing_caller_ids", found)

    async def get_account(self, request: Request) -> Response:
        return JSONResponse(
            {
                "sid": self._emulator.options.account_sid,
                "friendly_name": "Emulator",
                "status": "active",
                "type": "Full",
                "uri": f"{self.base}.json",
            }
        )

    # --- helpers ------------------------------------------------------------------------------

    def _unread(self, form: Form, call: str) -> None:
        if form.unread:
            self._emulator.ledger.add("parameters-ignored", call, names=sorted(form.unread))

    def _page(
        self, query: Form, path: str, key: str, items: Sequence[Mapping[str, Any]]
    ) -> Response:
        """One page of a list, with the URIs of its neighbours."""
        page, size = _count(query, "Page", 0), min(_count(query, "PageSize", 50), 1000) or 1
        start = page * size
        others = {name: value for name, value in query.flat().items() if name not in _PAGING}

        def uri(number: int) -> str:
            paging = {"PageSize": str(size), "Page": str(number)}
            return f"{self.base}/{path}?{urlencode(others | paging)}"

        shown = items[start : start + size]
        return JSONResponse(
            {
                key: shown,
                "page": page,
                "page_size": size,
                "start": start,
                "end": start + len(shown) - 1 if shown else start,
                "uri": uri(page),
                "first_page_uri": uri(0),
                "previous_page_uri": uri(page - 1) if page else None,
                "next_page_uri": uri(page + 1) if start + size < len(items) else None,
            }
        )


def _apply(call: Call, update: CallUpdate) -> None:
    """Apply an update. The caller has refused what an ended call does not allow."""
    if update.fallback is not None:
        call.plan.fallback = update.fallback
    if update.status_callback is not None:
        call.plan.status_callback = update.status_callback
        call.plan.status_callback_method = update.status_callback_method
    if update.time_limit is not None:
        call.limit(update.time_limit)
    if update.status == "completed" or (update.status == "canceled" and not call.answered):
        call.cancel()
    elif update.source is not None:
        call.redirect(update.source)


def _matches(call: Call, query: Form) -> bool:
    """Whether a call matches the filters. One that is not dialled yet has no start time, so it is
    in no range of times."""
    wanted = {name: query.get(name) for name in _FILTERS}
    started = call.started_ms
    exact = {"To": call.plan.to_number, "From": call.plan.from_number, "Status": call.status}
    if any(wanted[name] and wanted[name] != value for name, value in exact.items()):
        return False
    times = {name: value for name, value in wanted.items() if name not in exact and value}
    return all(_in_time(started, name, value) for name, value in times.items())


def _in_time(started_ms: int | None, name: str, value: str) -> bool:
    try:
        limit = datetime.fromisoformat(value.replace("Z", "+00:00"))
    except ValueError:
        raise ApiError(400, 20001, f"{name} {value!r} is not a date") from None
    if started_ms is None:
        return False
    limit = limit if limit.tzinfo else limit.replace(tzinfo=UTC)
    # The resource has whole seconds only.
    started = datetime.fromtimestamp(started_ms // 1000, UTC)
    if name == "StartTime>":
        return started >= limit
    if name == "StartTime<":
        return started <= limit
    return started.date() == limit.date()


def _count(query: Form, name: str, default: int) -> int:
    text = query.get(name)
    return int(text) if text.isascii() and text.isdigit() else default
