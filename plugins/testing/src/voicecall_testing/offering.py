"""Providers for a registry, without a package of their own."""

from __future__ import annotations

from collections.abc import Sequence

from voicecall import ProviderInfo, hookimpl
from voicecall.hooks import HOOK_OF_KIND

__all__ = ["offered"]


def offered(info: ProviderInfo) -> tuple[str, str, object]:
    """What a package that offers ``info`` would be: ``Registry(extra=[offered(info)])``."""

    @hookimpl
    def hook() -> Sequence[ProviderInfo]:
        return [info]

    plugin = type("Offer", (), {HOOK_OF_KIND[info.kind]: staticmethod(hook)})()
    return info.kind.group, info.id, plugin
