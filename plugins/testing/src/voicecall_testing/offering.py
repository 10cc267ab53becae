"""Offer a provider to a registry without a package."""

from __future__ import annotations

from collections.abc import Sequence

from voicecall import ProviderInfo, hookimpl
from voicecall.hooks import HOOK_OF_KIND

__all__ = ["offered"]


def offered(info: ProviderInfo) -> tuple[str, str, object]:
    """The entry for a package that offers ``info``: ``Registry(extra=[offered(info)])``."""

    @hookimpl
    def hook() -> Sequence[ProviderInfo]:
        return [info]

    plugin = type("Offer", (), {HOOK_OF_KIND[info.kind]: staticmethod(hook)})()
    return info.kind.group, info.id, plugin
