"""Where calls are stored: the key ``store``, which is a directory or an object with a provider."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from voicecall.errors import ConfigError, PluginError
from voicecall.providers import ProviderKind
from voicecall.registry import Registry
from voicecall.selection import Selected, Selection, provider_config
from voicecall_calls.config import CONFIG_PATH, StoreConfig, VoiceCallConfig

__all__ = ["selected_store", "store_directory"]

_PATH = f"{CONFIG_PATH}.store"
_DEFAULT = StoreConfig(provider="sqlite")


def store_directory(config: VoiceCallConfig, state_dir: Path) -> Path:
    """The directory of the journal, and of the database if that is a file. It is not created here.
    Raises ``ConfigError`` for an invalid path."""
    named = (config.store or _DEFAULT).block.get("directory")
    if named is None or named == "":
        return (state_dir / "voice-calls").absolute()
    if not isinstance(named, str) or "\0" in named:
        raise ConfigError("must be the path of a directory", path=_PATH)
    if "://" in named:
        # It may contain a password, and is not quoted.
        raise ConfigError(
            "must be the path of a directory, not a URL; for a database, write an object,"
            ' { provider: "...", url: "..." }',
            path=_PATH,
        )
    try:
        return Path(named).expanduser().absolute()
    except RuntimeError:
        raise ConfigError(
            f"{named}: the home directory that ~ stands for is not known; write the path in full",
            path=_PATH,
        ) from None


def selected_store(
    config: VoiceCallConfig, registry: Registry, environ: Mapping[str, str], state_dir: Path
) -> Selected:
    """The chosen provider. Raises ``PluginError`` if it is not installed and ``ConfigError`` if a
    key is missing or wrong."""
    chosen = config.store or _DEFAULT
    try:
        info = registry.load(ProviderKind.STORE, chosen.provider)
    except PluginError as error:
        raise PluginError(f"{_PATH}.provider: {error}") from error
    block = dict(chosen.block)
    if "directory" in block or "directory" in info.required:
        block["directory"] = str(store_directory(config, state_dir))
    values = provider_config(info, block, environ, _PATH)
    return Selected(Selection.OK, info=info, config=values)
