"""Selects the providers of a configuration, for the running service and the setup checks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ParamSpec

from voicecall.errors import ConfigError, VoicecallError
from voicecall.hosting import GatewayHost, SetupContext
from voicecall.model import MediaPath
from voicecall.providers import ProviderInfo, ProviderKind, Remark
from voicecall.registry import Registry
from voicecall.selection import Selected, Selection, select
from voicecall_calls.agents import AgentDirectory
from voicecall_calls.config import CONFIG_PATH, VoiceCallConfig
from voicecall_calls.environment import with_environment
from voicecall_calls.exposure import comes_from_outside, tunnel_block, tunnel_family
from voicecall_calls.knownsecrets import known_secrets
from voicecall_calls.sections import TTS_KEYS, misspelt, speech_keys, speech_layers
from voicecall_calls.speech.choosing import SpeechChoice, choose_speech
from voicecall_calls.storing import selected_store
from voicecall_calls.unused import ignored_blocks, of_other_calls, spoken_fields, unused_keys

__all__ = [
    "UNVERIFIED",
    "Wiring",
    "passed_over",
    "require",
    "resolve",
    "resolve_for",
]

UNVERIFIED = (
    f"SECURITY: {CONFIG_PATH}.skipSignatureVerification is true: anyone who can reach the webhooks"
    " can pose as the carrier; use this for development only"
)


@dataclass(slots=True)
class Wiring:
    """``problems`` keep the phone from running; ``notes`` are worth a warning. ``off`` are the
    notes that say why calls are not streamed (or held by a voice model) although that is enabled.
    ``wrong``: errors in blocks of providers, which then count as not configured."""

    config: VoiceCallConfig
    carrier: Selected
    agents: AgentDirectory
    agent_id: str
    backends: dict[str, Selected] = field(default_factory=dict)
    """By agent id: the default agent, the agents of number routes, and other agents in
    ``agents.list`` that calls may be placed as."""
    unusable: dict[str, str] = field(default_factory=dict)
    """By agent id: why an agent cannot hold calls."""
    optional: set[str] = field(default_factory=set)
    """The agents in ``backends`` without which the phone also runs."""
    transcription: Selected | None = None
    speech: dict[str | None, SpeechChoice] = field(default_factory=dict)
    """By the key of the number route; None is the key for all other calls."""
    realtime: Selected | None = None
    tunnel: Selected | None = None
    """The tunnel to open; None if none is configured or it cannot be used."""
    turn: Selected | None = None
    """The voice activity detector; barge-in works without one."""
    store: Selected | None = None
    """The configured store, if its block is valid."""
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    off: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    one_for_all: bool = False
    """Whether all agents share one main session (``session.scope``)."""

    @property
    def media(self) -> MediaPath:
        """How calls are carried."""
        if self.realtime is not None and self.realtime.outcome is Selection.OK:
            return MediaPath.REALTIME
        usable = (
            self.transcription is not None
            and self.transcription.outcome is Selection.OK
            and self.speech[None].selected.outcome is Selection.OK
        )
        return MediaPath.STREAM if usable else MediaPath.NATIVE


_P = ParamSpec("_P")


def resolve_for(
    host: GatewayHost | SetupContext, config: VoiceCallConfig, *, lenient: bool = False
) -> Wiring:
    """:func:`resolve` with the host's installed providers and configuration."""
    return resolve(
        config,
        registry=host.registry,
        environ=host.environ,
        agents=host.section("agents"),
        tts=host.section("tts"),
        session=host.section("session"),
        lenient=lenient,
    )


def resolve(
    config: VoiceCallConfig,
    *,
    registry: Registry,
    environ: Mapping[str, str],
    agents: Mapping[str, Any],
    tts: Mapping[str, Any],
    session: Mapping[str, Any] | None = None,
    lenient: bool = False,
) -> Wiring:
    """Select every provider. Raises ``ConfigError`` only for invalid values. ``lenient``: those in
    blocks of providers do not raise; they are in ``Wiring.wrong``."""
    wrong: list[str] = []
    carrier = _unless_wrong(
        wrong,
        select,
        registry,
        ProviderKind.TELEPHONY,
        config.provider,
        config.carriers,
        environ,
        CONFIG_PATH,
        named_at=f"{CONFIG_PATH}.provider",
    )
    info = carrier.info
    if carrier.outcome is Selection.PROVIDER_NOT_CONFIGURED:
        # Everything else that it needs is reported at the same time.
        info = registry.load(ProviderKind.TELEPHONY, config.provider)
    config = with_environment(config, info, environ)
    directory = AgentDirectory(agents)
    wiring = Wiring(config, carrier, directory, directory.agent_id(config.agent_id), wrong=wrong)
    wiring.notes.extend([*directory.notes(), *misspelt("tts", tts, TTS_KEYS)])
    wiring.one_for_all = (session or {}).get("scope") == "global"
    _check_store(wiring, registry, environ)
    if carrier.outcome is not Selection.OK:
        wiring.problems.append(carrier.message)
    _select_backends(wiring, registry, environ)
    _select_speech(wiring, registry, environ, tts)
    _check_tunnel(wiring, info, registry, environ)
    if config.streaming.enabled:
        _select_streaming(wiring, registry, environ)
        _select_turn(wiring, registry, environ)
    if config.realtime.enabled:
        _select_realtime(wiring, registry, environ)
    _check_carrier(wiring, info)
    # While something is wrong, it is not known how calls would be carried.
    wiring.notes.extend([] if wrong else wiring.off)
    wiring.notes.extend([*ignored_blocks(config, registry), *spoken_fields(config)])
    if config.inbound_policy == "allowlist" and not config.allow_from:
        wiring.notes.append(f"{CONFIG_PATH}.allowFrom is empty: every inbound call is refused")
    if config.inbound_policy == "disabled" and config.allow_from:
        why = "inboundPolicy is disabled, and every inbound call is refused"
        wiring.notes.append(f"{CONFIG_PATH}.allowFrom has no effect: {why}")
    if config.skip_signature_verification:
        wiring.notes.append(UNVERIFIED)
    wiring.notes.extend([] if wrong else of_other_calls(config, wiring.media))
    tunnelled = wiring.tunnel is not None
    wiring.notes.extend(known_secrets(carrier, config, tunnel=tunnelled))
    family = tunnel_family(config.tunnel_id or "") if tunnelled else None
    for key in unused_keys(config):
        if family is None or not key.startswith((f"tunnel.{family}", f"{family}.")):
            wiring.notes.append(f"{CONFIG_PATH}.{key} has no effect yet")
    if wrong and not lenient:
        raise ConfigError(wrong[0])
    return wiring


def _unless_wrong(
    wrong: list[str], choose: Callable[_P, Selected], *args: _P.args, **kwargs: _P.kwargs
) -> Selected:
    """What ``choose`` selects; an error in a block is added to ``wrong``."""
    try:
        return choose(*args, **kwargs)
    except ConfigError as error:
        wrong.append(str(error))
        return Selected(Selection.PROVIDER_NOT_CONFIGURED, str(error))


def _check_store(wiring: Wiring, registry: Registry, environ: Mapping[str, str]) -> None:
    if wiring.config.store is None:
        return
    try:
        # The state directory makes no difference to the result.
        wiring.store = selected_store(wiring.config, registry, environ, Path())
    except VoicecallError as error:
        wiring.problems.append(str(error))


def _select_backends(wiring: Wiring, registry: Registry, environ: Mapping[str, str]) -> None:
    directory = wiring.agents
    routed = [
        directory.agent_id(route.agent_id, f"{CONFIG_PATH}.numbers.{number}.agentId")
        for number, route in wiring.config.numbers.items()
        if route.agent_id
    ]
    for agent_id in dict.fromkeys((wiring.agent_id, *routed)):
        selected = _unless_wrong(wiring.wrong, directory.select, agent_id, registry, environ)
        wiring.backends[agent_id] = selected
        if found := _backend_problems(wiring, agent_id, selected):
            wiring.unusable[agent_id] = "; ".join(found)
            wiring.problems.extend(text for text in found if text not in wiring.problems)
    for agent_id in directory.ids:
        if agent_id in wiring.backends:
            continue
        try:
            selected = directory.select(agent_id, registry, environ)
            found = _backend_problems(wiring, agent_id, selected)
        except ConfigError as error:
            found = [str(error)]
        if found:
            wiring.unusable[agent_id] = "; ".join(found)
        else:
            wiring.backends[agent_id] = selected
            wiring.optional.add(agent_id)
    wiring.notes.extend(directory.unmatched(wiring.backends))


def _backend_problems(wiring: Wiring, agent_id: str, selected: Selected) -> list[str]:
    """Why the selected backend of an agent cannot be used with its models."""
    config = wiring.config
    if selected.outcome is not Selection.OK or selected.info is None:
        return [selected.message]
    if selected.info.check is None:
        return []
    models = [config.response_model or wiring.agents.model(agent_id)]
    models += [
        route.response_model
        for route in config.numbers.values()
        if agent_id == (route.agent_id or wiring.agent_id)
    ]
    check, named = selected.info.check, [name for name in models if name]
    try:
        found = check(selected.config, named)
        if isinstance(found, list | tuple):
            remarks = [text for text in found if isinstance(text, Remark)]
            wiring.notes.extend(text for text in remarks if text not in wiring.notes)
            # Models of one vendor may all lack the same key.
            problems = list(dict.fromkeys(str(text) for text in found if text not in remarks))
            spares = wiring.agents.fallback_models(agent_id)
            for text in check(selected.config, [*named, *spares]) if spares else ():
                note = f"a fallback model cannot be used: {text}"
                if text not in (*problems, *remarks) and note not in wiring.notes:
                    wiring.notes.append(note)
            return [wiring.agents.located(selected.info, text) for text in problems]
        what = f"it returns {type(found).__name__}, not a sequence of strings"
    except VoicecallError as error:
        return [str(error)]
    except (Exception, SystemExit) as error:  # noqa: BLE001 (a stranger's check)
        what = f"{type(error).__name__}: {error}"
    return [f"the check of the agent provider {selected.info.id!r} fails: {what}"]


def _select_speech(
    wiring: Wiring, registry: Registry, environ: Mapping[str, str], section: Mapping[str, Any]
) -> None:
    """Select the provider of each layer of ``tts``."""
    off = Selected(Selection.PROVIDER_NOT_CONFIGURED, "media streams are off")
    # On calls held by a voice model, a separate voice says what the model cannot.
    spoken = wiring.config.streaming.enabled or wiring.config.realtime.enabled
    for route_key, tts in speech_layers(wiring.config, section).items():
        wiring.speech[route_key] = SpeechChoice(tts, off)
        if not spoken:
            continue
        keys = speech_keys(wiring.config, section, route_key)
        try:
            wiring.speech[route_key] = choose_speech(tts, registry, environ, *keys)
        except ConfigError as error:
            wiring.wrong.append(str(error))


def _check_carrier(wiring: Wiring, info: ProviderInfo | None) -> None:
    if info is None:
        return
    config = wiring.config
    if info.capabilities.from_number_required and config.from_number is None:
        variable = info.environ.get("fromNumber")
        instead = f" (or set {variable})" if variable else ""
        wiring.problems.append(f"{CONFIG_PATH}.fromNumber is required by {info.label}{instead}")
    for name, mode in (("streaming", config.streaming), ("realtime", config.realtime)):
        if mode.enabled and not info.capabilities.stream:
            wiring.problems.append(
                f"{CONFIG_PATH}.{name}.enabled: {info.label} has no media streams"
            )
    if wiring.media is not MediaPath.NATIVE or wiring.wrong:
        return
    streams = f"media streams ({CONFIG_PATH}.streaming)"
    if not info.capabilities.native_speech:
        wiring.problems.append(f"{info.label} has no voice of its own, and calls need {streams}")
    elif not info.capabilities.native_listening:
        text = f"{info.label} has no recogniser of its own: without {streams} callers are not heard"
        wiring.notes.append(text)


def _check_tunnel(
    wiring: Wiring, info: ProviderInfo | None, registry: Registry, environ: Mapping[str, str]
) -> None:
    """Select the tunnel, or say why there will be none: a problem if the carrier needs one, else a
    note."""
    config = wiring.config
    tunnel = config.tunnel_id
    if tunnel is None:
        return
    key = "tunnel.provider" if config.tunnel.provider != "none" else "tailscale.mode"
    if tunnel not in registry.ids(ProviderKind.TUNNEL):
        why = f"no tunnel {tunnel[:80]!r} is installed"
        if config.public_url is not None:
            wiring.notes.append(f"{CONFIG_PATH}.{key}: {why}; publicUrl is used")
            return
    elif config.public_url is not None:
        wiring.notes.append(f"{CONFIG_PATH}.{key} has no effect: publicUrl is set")
        return
    else:
        blocks = {tunnel: tunnel_block(tunnel, config.tunnel, config.tailscale)}
        path = f"{CONFIG_PATH}.tunnel.providers"
        args = (registry, ProviderKind.TUNNEL, tunnel, blocks, environ, path)
        selected = _unless_wrong(wiring.wrong, select, *args)
        if selected.outcome is Selection.OK:
            wiring.tunnel = selected
            return
        why = selected.message
    text = f"{CONFIG_PATH}.{key}: {why}; set {CONFIG_PATH}.publicUrl to a URL of your own"
    outside = info is not None and comes_from_outside(info, wiring.carrier.config)
    (wiring.problems if outside else wiring.notes).append(text)


def _select_streaming(wiring: Wiring, registry: Registry, environ: Mapping[str, str]) -> None:
    streaming = wiring.config.streaming
    wiring.transcription = _unless_wrong(
        wiring.wrong,
        select,
        registry,
        ProviderKind.TRANSCRIPTION,
        streaming.provider,
        streaming.providers,
        environ,
        f"{CONFIG_PATH}.streaming.providers",
        named_at=f"{CONFIG_PATH}.streaming.provider",
    )
    chosen = (wiring.transcription, *(choice.selected for choice in wiring.speech.values()))
    lost = dict.fromkeys(one.message for one in chosen if one.outcome is not Selection.OK)
    wiring.off.extend(f"streaming stays off: {message}" for message in lost)
    wiring.notes.extend(dict.fromkeys(passed_over(wiring)))


def passed_over(wiring: Wiring) -> Iterator[str]:
    """Notes on configured voices that cannot be used."""
    for choice in wiring.speech.values():
        for over in choice.passed_over:
            if over.asked:
                yield f"{choice.labels[0]} speaks: {over.message}"


def _select_turn(wiring: Wiring, registry: Registry, environ: Mapping[str, str]) -> None:
    """Select the detector, even if barge-in is off: that may change while the phone runs."""
    named = wiring.config.barge_in.detector
    path = f"{CONFIG_PATH}.bargeIn.detector"
    wiring.turn = select(registry, ProviderKind.TURN, named, {}, environ, path)
    if named is not None and wiring.turn.outcome is not Selection.OK:
        wiring.notes.append(f"{path}: {wiring.turn.message}; speech recognition alone interrupts")


def _select_realtime(wiring: Wiring, registry: Registry, environ: Mapping[str, str]) -> None:
    realtime = wiring.config.realtime
    wiring.realtime = _unless_wrong(
        wiring.wrong,
        select,
        registry,
        ProviderKind.REALTIME,
        realtime.provider,
        realtime.providers,
        environ,
        f"{CONFIG_PATH}.realtime.providers",
        named_at=f"{CONFIG_PATH}.realtime.provider",
    )
    if wiring.realtime.outcome is not Selection.OK:
        wiring.off.append(f"realtime stays off: {wiring.realtime.message}")
    elif wiring.config.inbound_policy == "disabled":
        wiring.notes.append(
            f"{CONFIG_PATH}.realtime serves outbound calls only: inboundPolicy is disabled"
        )


def require(selected: Selected) -> tuple[Any, Any]:
    """The info and configuration of a selection. Raises ``ConfigError`` if it has none."""
    if selected.info is None:
        raise ConfigError(selected.message)
    return selected.info, selected.config
