"""``/emulator/...``: control phones and faults and read the ledger over HTTP."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from voicecall_mock.exchange.script import behaviour_from_json, caller_from_json

from .errors import ApiError

if TYPE_CHECKING:
    from .emulator import TwilioEmulator

__all__ = ["DEFAULT_CALLER", "control_routes"]

DEFAULT_CALLER = "+15550100001"


def control_routes(emulator: TwilioEmulator) -> list[Route]:
    """The routes. Bodies and replies are JSON; errors are the same as in the REST API.

    - ``POST /dial-in``: ``from``, ``to``, ``voiceUrl`` (set on the number first), ``script`` and
      ``patienceS``, all optional; returns ``{"id": <CallSid>}``
    - ``PUT /phones/<number>``: a behaviour
    - ``POST /faults``: see :meth:`.faults.Faults.replace`
    - ``POST /calls/<CallSid>/socket``: ``{"fault": "drop" | "stall"}``
    - ``GET /calls/<CallSid>/recording``: WAV
    - ``GET /ledger?call=<CallSid>``
    """
    control = _Control(emulator)
    return [
        Route("/dial-in", control.dial_in, methods=["POST"]),
        Route("/phones/{number}", control.set_phone, methods=["PUT"]),
        Route("/faults", control.set_faults, methods=["POST"]),
        Route("/calls/{sid}/socket", control.break_socket, methods=["POST"]),
        Route("/calls/{sid}/recording", control.recording, methods=["GET"]),
        Route("/ledger", control.ledger, methods=["GET"]),
    ]


async def _body(request: Request) -> Any:
    try:
        body = await request.body()
        return json.loads(body) if body.strip() else {}
    except (ClientDisconnect, ValueError, RecursionError):
        raise ApiError(400, 20001, "The body is not valid JSON") from None


def _text(data: dict[str, Any], name: str, default: str) -> str:
    """Remove and return a string; ``default`` if it is missing."""
    text = data.pop(name, default)
    if not isinstance(text, str):
        raise ApiError(400, 20001, f"{name} must be a string")
    return text


class _Control:
    def __init__(self, emulator: TwilioEmulator) -> None:
        self._emulator = emulator

    async def dial_in(self, request: Request) -> Response:
        emulator = self._emulator
        data = await _body(request)
        if not isinstance(data, Mapping):
            raise ApiError(400, 20001, "The body must be a JSON object")
        rest = dict(data)
        from_ = _text(rest, "from", DEFAULT_CALLER)
        to = _text(rest, "to", next(iter(emulator.numbers), ""))
        voice_url = _text(rest, "voiceUrl", "")
        number = emulator.numbers.get(to)
        if number is not None and voice_url:
            number.update({"VoiceUrl": voice_url})
        behaviour = caller_from_json(rest)
        try:
            call = emulator.dial_in(from_, to, behaviour.script, patience_s=behaviour.patience_s)
        except LookupError as error:
            raise ApiError(409, 20001, str(error)) from None
        return JSONResponse({"id": call}, 201)

    async def set_phone(self, request: Request) -> Response:
        behaviour = behaviour_from_json(await _body(request))
        self._emulator.set_phone(request.path_params["number"], behaviour)
        return JSONResponse({"ok": True})

    async def set_faults(self, request: Request) -> Response:
        self._emulator.faults.replace(await _body(request))
        return JSONResponse({"ok": True})

    async def break_socket(self, request: Request) -> Response:
        data = await _body(request)
        fault = data.get("fault") if isinstance(data, Mapping) else None
        if fault not in ("drop", "stall"):
            raise ApiError(400, 20001, "fault must be drop or stall")
        call = self._emulator.calls.get(request.path_params["sid"])
        if call is None or not call.streams.break_one(drop=fault == "drop"):
            raise ApiError(404, 20404, "The call has no open stream")
        return JSONResponse({"ok": True})

    async def recording(self, request: Request) -> Response:
        sid = request.path_params["sid"]
        if sid not in self._emulator.calls:
            raise ApiError(404, 20404, "The call was not found")
        return Response(self._emulator.recording(sid), media_type="audio/wav")

    async def ledger(self, request: Request) -> Response:
        return JSONResponse(self._emulator.report(request.query_params.get("call")))
