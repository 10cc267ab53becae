"""The phone as a gateway service: makes, starts, reconfigures and stops everything in order."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import anyio

from voicecall.errors import ConfigError, OutcomeUnknown, ProviderError, VoicecallError
from voicecall.hosting import GatewayHost, ToolSpec
from voicecall.model import MediaPath
from voicecall.providers import ProviderKind
from voicecall.store import CallStore
from voicecall_calls.config import CONFIG_PATH, PLUGIN_ID, VoiceCallConfig
from voicecall_calls.counting import refusals
from voicecall_calls.engine.engine import CallEngine
from voicecall_calls.exposure import comes_from_outside, is_public_url
from voicecall_calls.making import make_carrier, making, open_provider, opened
from voicecall_calls.news import News
from voicecall_calls.observing import HostObserver, turn_keeper
from voicecall_calls.operations import CallOperations
from voicecall_calls.retention import retaining
from voicecall_calls.rpc import PhoneRpc
from voicecall_calls.server.configured import make_server
from voicecall_calls.server.server import CallServer
from voicecall_calls.server.urls import normal_path
from voicecall_calls.settings import Providers, SettingsBook
from voicecall_calls.storing import selected_store
from voicecall_calls.talking import Talking
from voicecall_calls.tool import TOOL_DESCRIPTION, TOOL_NAME, TOOL_PARAMETERS, VoiceCallTool
from voicecall_calls.tunnelling import FIRST_WAIT_S, LONGEST_WAIT_S, TunnelKeeper
from voicecall_calls.wiring import Wiring, require, resolve_for

__all__ = ["PhoneService"]

_log = logging.getLogger("voicecall.calls")

_FIXED = (
    "provider",
    "carriers",
    "store",
    "serve",
    "public_url",
    "webhook_security",
    "skip_signature_verification",
    "tunnel",
    "tailscale",
    "streaming",
    "realtime",
)
"""Keys that cannot change while the phone runs: sockets, the store, the carrier, the media path."""

_HANG_UP_S = 10.0
"""How long hanging up all calls may take when the phone stops."""


@dataclass(frozen=True, slots=True)
class _Running:
    engine: CallEngine
    server: CallServer
    operations: CallOperations
    providers: Providers
    talking: Talking
    tunnel: TunnelKeeper | None
    """The tunnel, if the carrier cannot reach the phone without one."""


class PhoneService:
    """One per gateway. ``engine`` and ``server`` are None unless it is running."""

    name = PLUGIN_ID

    def __init__(self, host: GatewayHost) -> None:
        self._host = host
        self._problems: list[str] = []
        """Why the phone is not running."""
        self._remarks: list[str] = []
        """Those of the last start."""
        self._running: _Running | None = None
        self._ran = False
        self._awaited: TunnelKeeper | None = None
        self._config: VoiceCallConfig = host.plugin_config(PLUGIN_ID)
        self._rpc = PhoneRpc(self.operations, host.seam, host.hide)
        for method in self._rpc.methods():
            host.register_rpc(method)
        tool = VoiceCallTool(self.operations, host.hide)
        host.register_tool(ToolSpec(TOOL_NAME, TOOL_DESCRIPTION, TOOL_PARAMETERS, tool.invoke))

    @property
    def engine(self) -> CallEngine | None:
        return self._running.engine if self._running else None

    @property
    def server(self) -> CallServer | None:
        return self._running.server if self._running else None

    # --- the gateway's view -----------------------------------------------------------------

    def problems(self) -> Sequence[str]:
        tunnel = self._running.tunnel if self._running else self._awaited
        if tunnel is not None and tunnel.problem is not None:
            problems = [tunnel.problem]
        else:
            problems = self._problems
        return [*problems, *(self._running.engine.store.problems() if self._running else ())]

    def live(self) -> int:
        """Number of live calls."""
        return len(self._running.engine.lanes) if self._running else 0

    def operations(self) -> CallOperations:
        """The operations of the running phone. Raises ``ConfigError`` that says what is missing."""
        if self._running is None:
            moment = "the phone is not running: it is starting or stopping; try again"
            raise ConfigError("; ".join(self.problems()) or moment)
        return self._running.operations

    async def drain(self) -> None:
        if self._running is not None:
            self._running.engine.accepting = False
            await self._running.engine.wait_idle()

    async def reconfigure(self, config: VoiceCallConfig) -> bool:
        """Apply a changed configuration to new calls; live ones keep theirs. False if it changes
        something that requires a restart. Raises ``ConfigError`` if the phone could not start
        with it, or would lose its media path."""
        running = self._running
        if running is None or not config.enabled:
            return False
        wiring = resolve_for(self._host, config)
        config = wiring.config
        if wiring.problems:
            raise ConfigError("; ".join(wiring.problems))
        if wiring.off and wiring.media is MediaPath.NATIVE is not running.engine.media:
            raise ConfigError("; ".join(wiring.off))
        if self._fixed_part(config) != self._fixed_part(self._config):
            return False
        if not running.providers.has(wiring):
            return False
        self._config = config
        running.talking.book = SettingsBook(wiring, running.providers)
        running.engine.reconfigure(config, wiring.agent_id, wiring.one_for_all)
        return True

    @staticmethod
    def _fixed_part(config: VoiceCallConfig) -> tuple[Any, ...]:
        kept = tuple(getattr(config, name) for name in _FIXED)
        return (*kept, config.policy(), config.silence_timeout_ms, config.barge_in.detector)

    @asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        config: VoiceCallConfig = self._host.plugin_config(PLUGIN_ID)
        self._config = config
        if not config.enabled:
            self._problems = [f"the phone is off: {CONFIG_PATH}.enabled is false"]
            yield
            return
        try:
            wiring = resolve_for(self._host, config)
            self._config = wiring.config
            missing = wiring.problems
        except VoicecallError as error:
            missing = [str(error)]
        if missing:
            self._problems = missing
            _log.warning("the phone does not start: %s", "; ".join(missing))
            yield
            return
        self._remark(wiring, config)
        settled, over = anyio.Event(), anyio.Event()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._keep, wiring, settled, over)
            await settled.wait()
            try:
                yield
            finally:
                if self._running is None:
                    tasks.cancel_scope.cancel()
                over.set()

    def _remark(self, wiring: Wiring, config: VoiceCallConfig) -> None:
        """Log what works, but may be a mistake: once, although a start that fails is tried again
        and again."""
        remarks = [*wiring.notes]
        if "provider" not in config.model_fields_set:
            label = require(wiring.carrier)[0].label
            remarks.append(f"{CONFIG_PATH}.provider is not set: calls go through {label}")
        for remark in remarks:
            if remark not in self._remarks:
                _log.warning("%s", remark)
        self._remarks = remarks

    async def _keep(self, wiring: Wiring, settled: anyio.Event, over: anyio.Event) -> None:
        """Run the phone. If its start fails after it has waited for its tunnel, it is retried here:
        by then the gateway considers the phone started."""
        wait = FIRST_WAIT_S
        told: list[str] = []
        while not over.is_set():
            try:
                await self._hold(wiring, settled, over)
            except (VoicecallError, ExceptionGroup) as error:
                if self._ran or not settled.is_set() or not _is_own(error):
                    raise
                if self._problems != told:
                    _log.error("%s; it will be tried again", self._problems[0])
                told = self._problems
                with anyio.move_on_after(wait):
                    await over.wait()
                wait = min(wait * 2, LONGEST_WAIT_S)

    async def _hold(self, wiring: Wiring, settled: anyio.Event, over: anyio.Event) -> None:
        """Run the phone until ``over`` is set. Sets ``settled`` when it runs or waits for its
        tunnel."""
        async with AsyncExitStack() as stack:
            try:
                self._ran = False
                self._running = await self._start(stack, wiring, settled)
                self._problems, self._ran = [], True
                settled.set()
                await over.wait()
                if self._config.hang_up_on_stop:
                    await self._running.engine.hang_up_all(_HANG_UP_S)
            except Exception as error:
                self._problems = [f"the phone is not running: {_told(error)}"]
                raise
            finally:
                self._running = self._awaited = None

    # --- starting ---------------------------------------------------------------------------

    async def _start(self, stack: AsyncExitStack, wiring: Wiring, settled: anyio.Event) -> _Running:
        host, config = self._host, self._config
        context = host.provider_context(CONFIG_PATH)
        info, carrier_config = require(wiring.carrier)
        carrier = make_carrier(info, carrier_config, context)
        chosen = selected_store(config, host.registry, host.environ, host.state_dir)
        store: CallStore = await open_provider(chosen, host.provider_context("store"), stack)
        coordinator = host.provider_context("coordinator").create(
            ProviderKind.COORDINATOR, "memory", {}
        )
        await stack.enter_async_context(coordinator.lifespan())
        providers = Providers(stack, context)
        await providers.need(wiring)
        book = SettingsBook(wiring, providers)

        observer = HostObserver(host)
        engine = CallEngine(
            config,
            provider_id=info.id,
            provider=carrier,
            store=store,
            coordinator=coordinator,
            seam=host.seam,
            observer=observer,
            stream_url=lambda: server.stream_url,
            webhook_url=lambda: server.webhook_url,
            default_agent=wiring.agent_id,
            media=wiring.media,
            voice=lambda record: talking.book.for_call(record).voice,
            one_for_all=wiring.one_for_all,
        )
        talking = Talking(host, engine, book, turn_keeper(store, observer, host.hide))
        await talking.open(stack, wiring)
        engine.conversations = talking
        server = make_server(config, carrier, engine, seam=host.seam, state_dir=host.state_dir)
        # For status requests while a slow adapter is being opened.
        self._problems = [f"the phone is starting: {info.label} is being opened"]
        with making(info):
            await stack.enter_async_context(opened(carrier, info))
        await stack.enter_async_context(server.run())
        moved = News()
        tunnel = await self._open_tunnel(stack, wiring, server, moved)
        outside = comes_from_outside(info, carrier_config)
        if tunnel is not None and server.public_url is None and outside:
            _log.warning("the phone does not start yet: %s", tunnel.problem)
            self._awaited = tunnel
            engine.accepting = False
            settled.set()
            await tunnel.opened()
            engine.accepting = True
        if outside and not is_public_url(server.webhook_url):
            raise ConfigError(
                f"{info.label} cannot reach {server.webhook_url}; set a public https URL",
                path=f"{CONFIG_PATH}.publicUrl",
            )
        await stack.enter_async_context(engine.run())
        await stack.enter_async_context(retaining(store, host.seam, lambda: self._config.retention))
        self._rpc.tasks = await stack.enter_async_context(anyio.create_task_group())
        stack.callback(self._rpc.tasks.cancel_scope.cancel)
        self._problems = [f"the phone is starting: {info.label} is told where inbound calls go"]
        url = server.webhook_url
        done = await _announce(carrier, url)
        _log.info("the phone is ready at %s", url)
        if tunnel is not None or not done:
            self._rpc.tasks.start_soon(_keep_announced, carrier, server, url, done, moved)
        operations = CallOperations(
            engine,
            dialling_agent=lambda requested: talking.book.dialling_agent(requested),
            longest_text=talking.longest_text,
            standing=lambda: {
                **refusals(
                    calls=engine.refused,
                    webhooks=server.refused_webhooks,
                    sockets=server.refused_sockets,
                ),
                **providers.troubles.report(),
            },
        )
        needed = tunnel if outside else None
        return _Running(engine, server, operations, providers, talking, needed)

    async def _open_tunnel(
        self, stack: AsyncExitStack, wiring: Wiring, server: CallServer, moved: News
    ) -> TunnelKeeper | None:
        """The tunnel that the configuration selects, already open unless that failed. Carriers are
        given its URL; ``moved`` is notified of each new one."""
        if wiring.tunnel is None:
            return None
        info, _ = require(wiring.tunnel)
        context = self._host.provider_context(CONFIG_PATH)
        provider = await open_provider(wiring.tunnel, context, stack)
        path = normal_path(self._config.serve.path)

        def found(url: str) -> None:
            server.set_public_url(url.rstrip("/") + path)
            moved.tell()

        keeper = TunnelKeeper(
            provider,
            info.label,
            self._host.seam,
            port=server.port,
            paths=(path, normal_path(self._config.media_path)),
            on_url=found,
        )
        await stack.enter_async_context(keeper.run())
        return keeper


def _told(error: Exception) -> str:
    """The messages of voicecall's own errors, including those in an exception group."""
    if isinstance(error, ExceptionGroup):
        return "; ".join(map(_told, error.exceptions))
    if isinstance(error, VoicecallError):
        return str(error)
    return f"internal error ({type(error).__name__}), see the log"


def _is_own(error: Exception) -> bool:
    """Whether an error, or every error in a group, is one of voicecall's own."""
    if isinstance(error, ExceptionGroup):
        return error.split(VoicecallError)[1] is None
    return isinstance(error, VoicecallError)


async def _keep_announced(
    carrier: Any, server: CallServer, url: str, done: bool, moved: News
) -> None:
    """Announce each URL that differs from ``url``, the last one, in order: the newest must win.
    Until one is ``done``, try again after 1 s, then after twice as long each time, up to a minute.
    """
    wait = FIRST_WAIT_S
    while True:
        if server.webhook_url == url:
            if await moved.wait(None if done else wait):
                continue
            wait = min(wait * 2, LONGEST_WAIT_S)
        else:
            url, wait = server.webhook_url, FIRST_WAIT_S
            _log.info("the phone's URL is now %s", url)
        done = await _announce(carrier, url)


async def _announce(carrier: Any, url: str) -> bool:
    """Tell the carrier where to report inbound calls. False if it should be tried again."""
    failed = "the carrier could not be told where inbound calls go"
    try:
        await carrier.register_webhook(url)
    except ProviderError as error:
        # If the carrier has the URL already, it may get it twice.
        if error.retryable or isinstance(error, OutcomeUnknown):
            _log.warning("%s: %s; it will be told again", failed, error)
            return False
        _log.warning("%s: %s", failed, error)
    except (Exception, SystemExit):  # noqa: BLE001 (a carrier's code can raise anything)
        _log.exception("%s", failed)
    return True
