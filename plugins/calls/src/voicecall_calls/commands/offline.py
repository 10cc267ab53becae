"""Requests that the store can answer without a running gateway. The phone is not started for them:
it would recover live calls and abandon them a moment later."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Any

import anyio

from voicecall.errors import VoicecallError
from voicecall.registry import Registry
from voicecall.seam import SystemSeam
from voicecall.store import CallStore
from voicecall_calls.config import PLUGIN_ID, VoiceCallConfig
from voicecall_calls.coordinator import MemoryCoordinator
from voicecall_calls.engine.admission import in_spite_of, revoke
from voicecall_calls.latency import latency_report
from voicecall_calls.making import open_provider
from voicecall_calls.operations import projection
from voicecall_calls.pairing import Pairing, approval_json, decided_json
from voicecall_calls.parameters import Params, required, text_in
from voicecall_calls.storing import selected_store, store_directory
from voicecall_calls.wiring import require
from voicecall_gateway.config import LoadedConfig
from voicecall_gateway.host import provider_context
from voicecall_gateway.pluginconfig import plugin_config

__all__ = ["PHONE_OFF", "answer"]

PHONE_OFF = (
    f"the phone is off: set plugins.entries.{PLUGIN_ID}.enabled to true"
    f" (voicecall plugins enable {PLUGIN_ID})"
)
_MOST_LOOKED_AT = 10_000


def answer(
    loaded: LoadedConfig,
    registry: Registry,
    environ: Mapping[str, str],
    method: str,
    params: Params,
) -> dict[str, Any]:
    """The payload that the RPC method would return. Raises ``VoicecallError``."""
    config: VoiceCallConfig = plugin_config(registry, loaded, PLUGIN_ID)
    if method != "voicecall.status" and not loaded.enabled(PLUGIN_ID):
        raise VoicecallError(PHONE_OFF)
    chosen = selected_store(config, registry, environ, loaded.state_dir)
    directory = store_directory(config, loaded.state_dir)
    # If no gateway has ever run, reading must not create files. This does not apply to a store on
    # a server, which may have calls of another machine.
    fresh = "directory" in require(chosen)[0].required and not directory.exists()
    if fresh and (nothing := _nothing(method, params)) is not None:
        return nothing
    seam = SystemSeam()
    context = provider_context(
        registry=registry,
        environ=environ,
        state_dir=loaded.state_dir,
        seam=seam,
        path="store",
    )

    async def ask() -> dict[str, Any]:
        async with AsyncExitStack() as stack:
            store: CallStore = await open_provider(chosen, context, stack)
            pairing = Pairing(store, MemoryCoordinator(seam), seam)
            return await _answer(method, params, store, pairing, config)

    return anyio.run(ask)


def _nothing(method: str, params: Params) -> dict[str, Any] | None:
    """The answer without a store; None for requests that change something."""
    match method:
        case "voicecall.status":
            return {"found": False} if text_in(params, "callId") else {"found": True, "calls": []}
        case "voicecall.latency":
            return latency_report(())
        case "voicecall.pairing.list":
            return {"callers": []}
    return None


async def _answer(
    method: str, params: Params, store: CallStore, pairing: Pairing, config: VoiceCallConfig
) -> dict[str, Any]:
    match method:
        case "voicecall.status":
            return await _status(store, config.provider, text_in(params, "callId"))
        case "voicecall.latency":
            return latency_report(await store.turns(limit=params["last"]))
        case "voicecall.pairing.list":
            return {"callers": [approval_json(approval) for approval in await pairing.listed()]}
        case "voicecall.pairing.approve":
            caller = await pairing.approve(required(params, "caller"))
        case "voicecall.pairing.revoke":
            caller = await revoke(config, pairing, required(params, "number"))
        case _:
            raise ValueError(f"{method} needs the phone")
    return decided_json(caller, in_spite_of(config, caller))


async def _status(store: CallStore, provider: str, call_id: str | None) -> dict[str, Any]:
    if call_id is None:
        return {"found": True, "calls": [projection(r) for r in await store.live()]}
    record = await store.load(call_id) or await store.find(provider, call_id)
    if record is None:
        # The call may have been made through another carrier.
        every = await store.recent(_MOST_LOOKED_AT)
        record = next((r for r in every if call_id in r.aliases), None)
    return {"found": False} if record is None else {"found": True, "call": projection(record)}
