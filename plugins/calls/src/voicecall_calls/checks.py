"""The phone's checks for ``voicecall setup`` and ``voicecall config check``. Local only: nothing
outside this machine is contacted."""

from __future__ import annotations

import errno
import http.client
import ipaddress
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from voicecall.errors import ConfigError, PluginError, VoicecallError
from voicecall.hosting import SetupCheck, SetupContext
from voicecall.model import MediaPath
from voicecall.providers import ProviderContext, ProviderInfo, ProviderKind, Remark
from voicecall.selection import Selected, Selection, missing_fields
from voicecall_calls.config import CONFIG_PATH, PLUGIN_ID, ServeConfig, VoiceCallConfig
from voicecall_calls.exposure import comes_from_outside, is_one_client, is_public_url
from voicecall_calls.making import make_carrier, making
from voicecall_calls.storing import selected_store, store_directory
from voicecall_calls.wiring import UNVERIFIED, Wiring, passed_over, require, resolve_for
from voicecall_gateway.sections import GatewaySection, url_host
from voicecall_gateway.writable import why_unwritable

__all__ = ["check_sections", "setup_checks"]

_LOOK_S = 2.0
"""How long the program that has our port may take to answer."""
_ONE_CLIENT = (
    "; they all come from this machine, and the limits of one client hold for all of them:"
    f" set {CONFIG_PATH}.webhookSecurity.trustForwardingHeaders to true and"
    " trustedProxyIPs to the address of the tunnel or proxy"
)


def setup_checks(context: SetupContext) -> Sequence[SetupCheck]:
    """The checks, in the order of display."""
    try:
        config: VoiceCallConfig = context.plugin_config(PLUGIN_ID)
    except VoicecallError as error:
        return [_enabled(context, True), SetupCheck("provider-config", False, str(error))]
    local = [
        *_place(config, context.state_dir),
        *_probe_key(context.state_dir),
        *_listening(config.serve, context.section("gateway")),
    ]
    try:
        wiring = resolve_for(context, config, lenient=True)
    except VoicecallError as error:
        wrong = SetupCheck("provider-config", False, str(error))
        return [_enabled(context, config.enabled), wrong, *local]
    # What a carrier needs depends on its block, and is unknown if the package cannot be loaded.
    known = wiring.carrier.message not in wiring.wrong
    loaded = wiring.carrier.outcome is not Selection.MISSING_CONFIGURED_PROVIDER
    checks = [
        _enabled(context, config.enabled),
        *([_provider(wiring)] if known else []),
        _provider_config(wiring),
        *([_exposure(wiring)] if known and loaded else []),
        _mode(wiring),
        _agent(wiring),
    ]
    checks += _carrier(wiring, context.state_dir)
    if config.skip_signature_verification:
        checks.append(SetupCheck("signatures", True, UNVERIFIED))
    told: set[str] = set()
    if wiring.media is MediaPath.STREAM:
        checks.append(_speech(wiring))
        told.update(passed_over(wiring))
    checks += _able(wiring)
    checks += local
    shown = " ".join(check.message for check in checks)
    notes = [note for note in wiring.notes if note not in told and note not in shown]
    if notes := [*notes, *_workspaces(wiring)]:
        checks.append(SetupCheck("notes", True, "; ".join(notes)))
    return checks


def _carrier(wiring: Wiring, state_dir: Path) -> list[SetupCheck]:
    """Whether the carrier can be made and, if our URL is known, what to enter for a number in the
    carrier's settings."""
    info, url = wiring.carrier.info, wiring.config.public_url
    if info is None or wiring.problems:
        return []
    try:
        carrier = make_carrier(*require(wiring.carrier), ProviderContext(state_dir))
        with making(info):
            urls = dict(carrier.number_urls(url)) if url is not None else {}
    except VoicecallError as error:
        return [SetupCheck("carrier", False, str(error))]
    if not urls or _unreachable(wiring) is not None:
        return []
    entered = "; ".join(f"{name}: {url}" for name, url in urls.items())
    return [SetupCheck("number-urls", True, f"for each number, enter {entered}")]


def check_sections(config: VoiceCallConfig, context: SetupContext) -> Sequence[str]:
    """What the phone will ignore, do without or still needs, worded as in its log. A missing
    credential is not an error, since it may come from the gateway's environment. Raises
    ``ConfigError`` if ``agents`` or ``tts`` cannot be read, if a configured carrier, store or agent
    is not installed, or if the block of a provider is wrong."""
    wiring = resolve_for(context, config)
    chosen = [one for name, one in wiring.backends.items() if name not in wiring.optional]
    if "provider" in config.model_fields_set:
        chosen.insert(0, wiring.carrier)
    lost = Selection.MISSING_CONFIGURED_PROVIDER
    wrong = [one.message for one in chosen if one.outcome is lost]
    wrong += _store_problems(config, context)
    if wrong:
        raise ConfigError("; ".join(dict.fromkeys(wrong)))
    unreachable = _unreachable(wiring)
    return [*wiring.problems, *([unreachable] if unreachable else []), *wiring.notes]


def _store_problems(config: VoiceCallConfig, context: SetupContext) -> Iterator[str]:
    if config.store is None:
        return
    try:
        info = context.registry.load(ProviderKind.STORE, config.store.provider)
        missing = set(missing_fields(info, config.store.block, context.environ))
        if config.store.block.get("directory") in (None, ""):
            # It has a default.
            missing.discard("directory")
        if not missing:
            selected_store(config, context.registry, context.environ, context.state_dir)
    except PluginError as error:
        yield f"{CONFIG_PATH}.store.provider: {error}"
    except ConfigError as error:
        yield str(error)


def _enabled(context: SetupContext, phone: bool) -> SetupCheck:
    plugin = context.enabled(PLUGIN_ID)
    if plugin and phone:
        return SetupCheck("plugin-enabled", True, "the phone is enabled")
    path = f"{CONFIG_PATH}.enabled" if plugin else f"plugins.entries.{PLUGIN_ID}.enabled"
    return SetupCheck("plugin-enabled", False, f"the phone is off; set {path} to true")


def _provider(wiring: Wiring) -> SetupCheck:
    if wiring.carrier.info is None:
        return SetupCheck("provider", False, wiring.carrier.message)
    explicit = "provider" in wiring.config.model_fields_set
    hint = "" if explicit else " (the default; set provider for a real carrier)"
    return SetupCheck("provider", True, f"calls go through {wiring.carrier.info.label}{hint}")


def _provider_config(wiring: Wiring) -> SetupCheck:
    if found := dict.fromkeys([*wiring.wrong, *wiring.problems]):
        return SetupCheck("provider-config", False, "; ".join(found))
    return SetupCheck("provider-config", True, "all that is needed is configured")


def _exposure(wiring: Wiring) -> SetupCheck:
    from voicecall_calls.server.urls import normal_path

    name, info, config = "webhook-exposure", wiring.carrier.info, wiring.config
    if (problem := _unreachable(wiring)) is not None:
        return SetupCheck(name, False, problem)
    if info is not None and not comes_from_outside(info, wiring.carrier.config):
        emulated = " at apiBaseUrl, on this machine," if info.capabilities.public_url else ""
        return SetupCheck(name, True, f"{info.label}{emulated} needs no public URL")
    hint = _ONE_CLIENT if is_one_client(config.serve, config.webhook_security) else ""
    tunnel = _tunnel(wiring)
    way = f"through the tunnel {tunnel.label}" if tunnel else f"at {config.public_url}"
    path = urlsplit(config.public_url or "").path
    if not tunnel and normal_path(path) != normal_path(config.serve.path):
        served = f"{CONFIG_PATH}.serve.path, {config.serve.path}"
        way += f", whose path is not {served}: right only if the proxy changes it"
    return SetupCheck(name, True, f"webhooks come in {way}{hint}")


def _unreachable(wiring: Wiring) -> str | None:
    """Why the carrier's webhooks will not arrive, and what to change; None if they will."""
    info, url, key = wiring.carrier.info, wiring.config.public_url, f"{CONFIG_PATH}.publicUrl"
    if info is not None and not comes_from_outside(info, wiring.carrier.config):
        return None
    if (tunnel := _tunnel(wiring)) is not None:
        if tunnel.capabilities is None or tunnel.capabilities.public:
            return None
        why = "is for machines of its own network; the carrier cannot reach the webhooks there"
        return f"the tunnel {tunnel.label} {why}: choose another one, or set {key}"
    if url is None:
        return f"the carrier cannot reach the webhooks: set {key}, or open a tunnel"
    if not is_public_url(url):
        return f"{key}: {url} cannot be reached from the internet over https"
    return None


def _tunnel(wiring: Wiring) -> ProviderInfo | None:
    """The tunnel that webhooks come through."""
    return wiring.tunnel.info if wiring.tunnel is not None else None


def _mode(wiring: Wiring) -> SetupCheck:
    speech = wiring.speech[None].selected
    if wiring.media is MediaPath.STREAM and wiring.transcription:
        heard = wiring.transcription.info.label if wiring.transcription.info else ""
        said = speech.info.label if speech.info else ""
        return SetupCheck("mode", True, f"streaming: heard by {heard}, spoken by {said}")
    if wiring.media is MediaPath.REALTIME and wiring.realtime and wiring.realtime.info:
        return SetupCheck("mode", True, f"realtime: held by {wiring.realtime.info.label}")
    if wiring.config.streaming.enabled or wiring.config.realtime.enabled:
        wrong = "depends on what is wrong in provider-config"
        return SetupCheck("mode", False, wrong if wiring.wrong else "; ".join(wiring.off))
    return SetupCheck("mode", True, "turn-based, with the carrier's own voice and recogniser")


def _speech(wiring: Wiring) -> SetupCheck:
    """Which voice speaks, which ones take over, and which could if they were configured."""
    labels = wiring.speech[None].labels
    parts = [f"{labels[0]} speaks"]
    if len(labels) > 1:
        parts.append("if it fails, " + ", then ".join(labels[1:]))
    parts += dict.fromkeys(
        f"WARNING: {over.message}" if over.asked else over.message
        for choice in wiring.speech.values()
        for over in choice.passed_over
    )
    return SetupCheck("speech", True, "; ".join(parts))


def _able(wiring: Wiring) -> Iterator[SetupCheck]:
    """What keeps providers from working as their blocks say, as far as they can tell locally: one
    check for each kind that has such a provider."""
    needed = [wiring.carrier, wiring.transcription, wiring.realtime, wiring.tunnel, wiring.store]
    needed += [choice.selected for choice in wiring.speech.values()]
    spares = [spare for choice in wiring.speech.values() for spare in choice.spares]
    # By kind: sentences, and whether calls are impossible without the provider.
    found: dict[ProviderKind, dict[str, bool]] = {}
    for index, selected in enumerate((*needed, *spares)):
        if selected is None or selected.info is None:
            continue
        word = "" if index < len(needed) else "WARNING: it cannot take over: "
        for text in _unable(selected):
            sentences = found.setdefault(selected.info.kind, {})
            warned = word or ("WARNING: " if isinstance(text, Remark) else "")
            sentences[f"{warned}{selected.info.label}: {text}"] = not warned
    for kind, sentences in found.items():
        yield SetupCheck(kind.value, not any(sentences.values()), "; ".join(sentences))


def _unable(selected: Selected) -> Sequence[str]:
    info, config = require(selected)
    if info.check is None:
        return ()
    try:
        with making(info):
            found: object = info.check(config, ())
            if not isinstance(found, list | tuple):
                raise TypeError(
                    f"its check returns {type(found).__name__}, not a sequence of strings"
                )
            return found
    except VoicecallError as error:
        return [str(error)]


def _agent(wiring: Wiring) -> SetupCheck:
    parts = []
    for agent_id, selected in wiring.backends.items():
        if agent_id in wiring.unusable or selected.info is None:
            return SetupCheck("agent", False, wiring.unusable.get(agent_id, selected.message))
        if agent_id in wiring.optional:
            continue
        parts.append(f"{agent_id}: {selected.info.label}")
    chosen = wiring.agents.backend(wiring.agent_id)
    hint = "" if chosen else " (set agents.defaults.backend for another one)"
    return SetupCheck("agent", True, "agent " + ", ".join(parts) + hint)


def _workspaces(wiring: Wiring) -> Iterator[str]:
    """What keeps a voice model from reading the agents' files; calls are possible without them."""
    wanted = wiring.config.realtime.agent_context
    used = wanted.enabled and wanted.include_workspace_files
    if wiring.media is not MediaPath.REALTIME or not used:
        return
    for key, path in wiring.agents.workspaces().items():
        directory = Path(os.path.expanduser(path))
        if not os.path.isdir(directory):
            yield f"{key}: {directory} is not a directory: create it, or name another"
            continue
        closed = [] if os.access(directory, os.X_OK) else [directory]
        files = filter(os.path.exists, (directory / name for name in wanted.files))
        for place in (*closed, *(file for file in files if not os.access(file, os.R_OK))):
            yield f"{key}: {place} cannot be read: give it to the gateway's user (chown)"


def _place(config: VoiceCallConfig, state_dir: Path) -> Iterator[SetupCheck]:
    """What keeps calls from being stored. Nothing is created."""
    try:
        directory = store_directory(config, state_dir)
    except ConfigError:
        # It is reported as a problem of the configuration.
        return
    files = ["lock", "calls.jsonl"]
    if config.store is None or config.store.provider == "sqlite":
        files += ["calls.db", "calls.db-wal", "calls.db-shm"]
    why = why_unwritable(directory, files)
    if why is None and "calls.db" in files and not _is_sqlite(directory / "calls.db"):
        why = (
            f"{directory / 'calls.db'} is not an SQLite database: restore a backup or move it away"
        )
    if why is not None:
        keys = f"set VOICECALL_STATE_DIR or {CONFIG_PATH}.store"
        yield SetupCheck("store", False, f"calls cannot be stored in {directory}: {why}; {keys}")


def _probe_key(state_dir: Path) -> Iterator[SetupCheck]:
    """What keeps the phone from reading its key, without which it does not start."""
    from voicecall_calls.server.challenge import key_file

    file = key_file(state_dir.absolute())
    if os.path.lexists(file) and not os.access(file, os.R_OK):
        text = f"{file} cannot be read: delete it, or give it to the gateway's user (chown)"
        yield SetupCheck("probe-key", False, text)


def _is_sqlite(file: Path) -> bool:
    """Whether SQLite can use the file: it does not exist yet, is empty, or begins as a database."""
    try:
        with file.open("rb") as stream:
            return stream.read(16) in (b"", b"SQLite format 3\0")
    except FileNotFoundError:
        return True


def _listening(serve: ServeConfig, gateway: Mapping[str, Any]) -> Iterator[SetupCheck]:
    """What keeps the server from accepting webhooks."""
    if _is_admin_port(serve, gateway):
        text = f"{CONFIG_PATH}.serve.port: {serve.port} is gateway.port too; choose another one"
        yield SetupCheck("listening", False, text)
        return
    try:
        found = socket.getaddrinfo(
            serve.bind, serve.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except OSError as error:
        yield _refused(serve, error)
        return
    family, kind, protocol, _, address = found[0]
    with socket.socket(family, kind, protocol) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(address)
        except OSError as error:
            in_use = error.errno == errno.EADDRINUSE
            yield _taken(serve, str(address[0])) if in_use else _refused(serve, error)


def _taken(serve: ServeConfig, address: str) -> SetupCheck:
    at = f"port {serve.port} of {serve.bind} is in use by"
    if _is_ours(address, serve.port):
        return SetupCheck("listening", True, f"{at} a running gateway")
    text = f"{CONFIG_PATH}.serve.port: {at} another program: stop it or choose another port"
    return SetupCheck("listening", False, text)


def _is_ours(address: str, port: int) -> bool:
    """Whether a gateway answers on the port of the webhooks, as far as that can be seen."""
    connection = http.client.HTTPConnection(url_host(address).strip("[]"), port, timeout=_LOOK_S)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().read(16) == b"ok"
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _is_admin_port(serve: ServeConfig, gateway: Mapping[str, Any]) -> bool:
    """Whether the gateway itself listens on the port. False if a variable stands for either."""
    given = {key: gateway[key] for key in ("port", "bind") if key in gateway}
    try:
        admin = GatewaySection.model_validate(given)
        addresses = {ipaddress.ip_address(text) for text in (admin.bind, serve.bind)}
    except ValueError:
        return False
    shared = len(addresses) == 1 or any(each.is_unspecified for each in addresses)
    return shared and admin.port == serve.port != 0


def _refused(serve: ServeConfig, error: OSError) -> SetupCheck:
    at = f"port {serve.port} of {serve.bind}"
    key = f"{CONFIG_PATH}.serve.{'port' if error.errno == errno.EACCES else 'bind'}"
    return SetupCheck("listening", False, f"{key}: cannot listen on {at}: {error.strerror}")
