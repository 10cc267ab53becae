"""A gateway and a telephone exchange in this process, connected over loopback sockets."""

from __future__ import annotations

import io
import json
import sqlite3
import wave
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing
from pathlib import Path
from typing import Any

import anyio
import numpy as np
from tests.backstage import closed_backstage

from voicecall import ProviderKind
from voicecall.audio import mulaw_to_pcm16
from voicecall.configuring import deep_merge
from voicecall.hosting import RpcCall
from voicecall.model import CallRecord
from voicecall.registry import Registry
from voicecall.store import TurnRow
from voicecall.tts import SpeechProvider
from voicecall_calls.engine.engine import CallEngine
from voicecall_calls.engine.places import INBOUND_CAP, OUTBOUND_CAP
from voicecall_calls.service import PhoneService
from voicecall_gateway.config import LoadedConfig, load_config
from voicecall_gateway.runtime import Gateway
from voicecall_mock.exchange import Exchange, Step
from voicecall_mock.exchange.options import PhoneOptions
from voicecall_testing import speech as fsk_speech
from voicecall_testing.fsk import encode
from voicecall_testing.speech import FskSpeech

from .carriers import CARRIERS, CLINIC, Carrier, Emulator
from .hearing import frames, sentences
from .puppets import Extra, PhonePlugin, Puppet, provider_plugin

__all__ = [
    "CALLER",
    "CLINIC",
    "GREETING",
    "PATIENCE_S",
    "Town",
    "open_town",
    "rows_of",
    "said",
    "sound",
    "until",
]

CALLER = "+15550100001"
GREETING = "Clinic."
PATIENCE_S = 25.0

_STREAMED = {
    "inboundPolicy": "open",
    "inboundGreeting": GREETING,
    "silenceTimeoutMs": 200,
    "fillerAfterMs": 0,
    "outbound": {"notifyHangupDelaySec": 0},
    "serve": {"port": 0},
    "streaming": {"enabled": True, "provider": "fsk"},
    "tts": {"provider": "fsk"},
    "silence": {"promptAfterMs": 0},
}


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something to become true. Raises ``TimeoutError``."""
    with anyio.fail_after(PATIENCE_S):
        while not condition():
            await anyio.sleep(0.01)


def rows_of(state_dir: Path) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of the call store, by table."""
    file = state_dir / "voice-calls" / "calls.db"
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as database:
        names = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        return {
            name: sorted(database.execute(f'SELECT * FROM "{name}"').fetchall(), key=repr)
            for (name,) in names
        }


class Town:
    """A carrier with its phones, and a running gateway."""

    def __init__(
        self,
        carrier: Emulator,
        gateway: Gateway,
        plugin: PhonePlugin,
        write: Callable[[Mapping[str, Any], Mapping[str, Any]], None],
    ) -> None:
        self.carrier = carrier
        self.gateway = gateway
        self._plugin = plugin
        self._write = write

    def edit(self, tree: Mapping[str, Any] | None = None, **config: Any) -> None:
        """Rewrite the file: the configuration that the town was opened with, and this over it."""
        self._write(config, tree or {})

    @property
    def exchange(self) -> Exchange:
        """The mock carrier's exchange."""
        assert isinstance(self.carrier, Exchange)
        return self.carrier

    @property
    def service(self) -> PhoneService:
        assert self._plugin.service is not None
        return self._plugin.service

    @property
    def engine(self) -> CallEngine:
        assert self.service.engine is not None
        return self.service.engine

    async def rpc(self, method: str, **params: Any) -> Mapping[str, Any]:
        """One RPC of the phone, as an operator."""
        return await self._called(f"voicecall.{method}", params)

    async def reload(self) -> tuple[list[str], list[str]]:
        """Reload the file: what is in force now, and what waits. Raises an error in the file."""
        answer = await self._called("gateway.reload", {})
        return answer["applied"], answer["waiting"]

    async def _called(self, method: str, params: Mapping[str, Any]) -> Mapping[str, Any]:
        call = RpcCall("test", frozenset({"operator.write", "operator.read"}))
        with anyio.fail_after(PATIENCE_S):
            return await self.gateway.host.methods[method].handler(params, call)

    # --- calls ------------------------------------------------------------------------------

    def call_in(self, *steps: Step, number: str = CALLER, to: str = CLINIC) -> str:
        """A phone calls the clinic; the carrier's id of the call."""
        return self.carrier.dial_in(number, to, steps)

    async def live(self, carrier_id: str) -> CallRecord:
        """The newest record of a live call, once there is one."""
        await until(lambda: self.engine.lane_of(carrier_id) is not None)
        lane = self.engine.lane_of(carrier_id)
        assert lane is not None
        return lane.record

    async def over(self, any_id: str) -> CallRecord:
        """Wait until the gateway has finished a call; its final record."""
        with anyio.fail_after(PATIENCE_S):
            while True:
                record = await self.engine.stored(any_id)
                if record is not None and record.terminal:
                    break
                await anyio.sleep(0.02)
        await until(lambda: self.engine.lane_of(any_id) is None)
        return record

    async def call(
        self, *steps: Step, number: str = CALLER, to: str = CLINIC
    ) -> tuple[str, CallRecord]:
        """A whole inbound call: the carrier's id and the final record."""
        carrier_id = self.call_in(*steps, number=number, to=to)
        with anyio.fail_after(PATIENCE_S):
            await self.carrier.ended(carrier_id)
        return carrier_id, await self.over(carrier_id)

    async def hung_up(self, carrier_id: str) -> CallRecord:
        """The phone hangs up now; the final record."""
        self.carrier.calls[carrier_id].line.hang_up()
        return await self.over(carrier_id)

    async def turns(self, record: CallRecord) -> list[TurnRow]:
        """The turns of a call, oldest first."""
        return list(reversed(await self.engine.store.turns(call_id=record.call_id)))

    async def nothing_left(self) -> None:
        """Assert that no lane, no taken place and no open socket is left on either side."""
        engine = self.engine
        await until(lambda: not engine.lanes)
        for cap in (INBOUND_CAP, OUTBOUND_CAP):
            assert await engine.coordinator.holders(cap) == 0
        ledger = self.carrier.ledger
        opened = ledger.entries("stream-opened")
        await until(lambda: len(ledger.entries("stream-closed")) >= len(opened))

    # --- what a phone heard -----------------------------------------------------------------

    def heard_pcm(self, carrier_id: str) -> bytes:
        """What the phone heard so far: PCM16, 8 kHz."""
        with wave.open(io.BytesIO(self.carrier.recording(carrier_id))) as reader:
            both = np.frombuffer(reader.readframes(reader.getnframes()), "<i2")
        return both[1::2].tobytes()

    def heard(self, carrier_id: str) -> list[str | None]:
        """The sentences that the phone heard; None for each that was cut off."""
        return sentences(self.heard_pcm(carrier_id))

    def longest_silence_ms(self, carrier_id: str) -> int:
        """The longest silence that the phone heard after its first sound."""
        longest, run = 0, -1
        for frame in frames(self.heard_pcm(carrier_id)):
            if any(frame):
                longest, run = max(longest, run), 0
            elif run >= 0:
                run += 20
        return max(longest, run)


def sound(text: str) -> bytes:
    """One sentence as a phone hears it: PCM16, 8 kHz."""
    return mulaw_to_pcm16(encode(text))


def said(record: CallRecord) -> list[tuple[str, str, bool]]:
    """The transcript as (speaker, text, complete)."""
    return [(entry.speaker.value, entry.text, entry.complete) for entry in record.transcript]


def open_town(
    state_dir: Path,
    agent: Puppet,
    *,
    carrier: str = "mock",
    config: Mapping[str, Any] | None = None,
    tree: Mapping[str, Any] | None = None,
    extra: Sequence[Extra] = (),
    options: PhoneOptions | None = None,
    phone_voice: SpeechProvider | None = None,
) -> AbstractAsyncContextManager[Town]:
    """A town whose phones hang on one of the ``CARRIERS``. ``config`` is
    laid over the phone's configuration, ``tree`` over the whole file; ``extra`` brings more
    providers. The installed ones are there too. A module with a backstage has it closed there."""
    emulator = CARRIERS[carrier].make(options, phone_voice or FskSpeech())
    phone, values = config or {}, tree or {}
    return closed_backstage(
        _town(state_dir, agent, CARRIERS[carrier], emulator, phone, values, extra)
    )


@asynccontextmanager
async def _town(
    state_dir: Path,
    agent: Puppet,
    kind: Carrier,
    emulator: Emulator,
    config: Mapping[str, Any],
    tree: Mapping[str, Any],
    extra: Sequence[Extra],
) -> AsyncIterator[Town]:
    plugin = PhonePlugin()
    registry = Registry(
        extra=[
            plugin.extra(),
            ("voicecall.tts", "fsk", fsk_speech),
            ("voicecall.transcription", "fsk", fsk_speech),
            provider_plugin(ProviderKind.AGENT, "puppet", agent),
            *extra,
        ]
    )
    failure: Exception | None = None
    async with emulator.serve():
        file = state_dir / "config.json5"
        base = _tree(kind.config(emulator), config, tree)

        def write(changes: Mapping[str, Any], over: Mapping[str, Any]) -> None:
            phone = {"plugins": {"entries": {"voice-call": {"config": changes}}}}
            file.write_text(json.dumps(deep_merge(deep_merge(base, phone), over)))

        def load() -> LoadedConfig:
            return load_config(file, {"VOICECALL_STATE_DIR": str(state_dir)})

        write({}, {})
        gateway = Gateway(load(), registry, reload=load, watch=file)
        async with gateway.run():
            assert list(await gateway.wait_started()) == []
            try:
                town = Town(emulator, gateway, plugin, write)
                kind.announced(emulator, town.service)
                yield town
            except Exception as error:  # noqa: BLE001 (raised again outside of the groups)
                failure = error
    if failure is not None:
        raise failure


def _tree(
    carrier: Mapping[str, Any], config: Mapping[str, Any], tree: Mapping[str, Any]
) -> dict[str, Any]:
    phone: dict[str, Any] = deep_merge(deep_merge(_STREAMED, carrier), config)
    values: dict[str, Any] = {
        "gateway": {"port": 0, "drainSeconds": 0},
        "plugins": {"entries": {"voice-call": {"config": phone}}},
        "agents": {"defaults": {"backend": "puppet"}},
    }
    return deep_merge(values, tree)
