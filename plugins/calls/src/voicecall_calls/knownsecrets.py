"""Secrets of a carrier that are publicly known because they are defaults."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

from pydantic import BaseModel
from pydantic.alias_generators import to_snake

from voicecall.configuring import is_loopback
from voicecall.selection import Selected
from voicecall_calls.config import CONFIG_PATH, VoiceCallConfig

__all__ = ["known_secrets"]


def known_secrets(carrier: Selected, config: VoiceCallConfig, *, tunnel: bool) -> Iterator[str]:
    """A warning for each secret of ``carrier`` that has its default value although other machines
    can reach the webhooks. ``tunnel``: whether a tunnel is opened."""
    info, block = carrier.info, carrier.config
    where = _reached_from_outside(config, tunnel=tunnel)
    if where is None or info is None or not isinstance(block, BaseModel):
        return
    for key, variable in info.secrets.items():
        field = type(block).model_fields.get(to_snake(key))
        if field is None or not field.default or getattr(block, to_snake(key)) != field.default:
            continue
        yield (
            f"SECURITY: {CONFIG_PATH}.{info.id}.{key} has its default value, which is public, and"
            f" {where}: anyone who can reach the webhooks can pose as the carrier; set a secret of"
            f" your own (there, or in {variable}), or set provider to the carrier that you mean"
        )


def _reached_from_outside(config: VoiceCallConfig, *, tunnel: bool) -> str | None:
    host = urlsplit(config.public_url or "").hostname
    if host is not None and not is_loopback(host):
        return "publicUrl is set"
    if tunnel:
        return "a tunnel is opened"
    return None if is_loopback(config.serve.bind) else f"serve.bind is {config.serve.bind}"
