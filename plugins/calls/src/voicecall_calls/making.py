"""Making providers. Their code is third-party: errors name the provider that failed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Collection, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import Any

from voicecall.audio.formats import AudioFormat
from voicecall.errors import PluginError, VoicecallError
from voicecall.providers import Provider, ProviderContext, ProviderInfo, ProviderKind
from voicecall.selection import Selected
from voicecall.telephony import TelephonyProvider
from voicecall_calls.apart import held
from voicecall_calls.wiring import require

__all__ = ["make_carrier", "making", "open_provider", "opened"]

_log = logging.getLogger("voicecall.calls")
_SLOW_S = 5.0
"""After this time the log names the provider that the phone is waiting for."""


@contextmanager
def making(info: ProviderInfo) -> Iterator[None]:
    """Wraps a provider's factory and the start of its lifespan. Raises only ``VoicecallError``."""
    try:
        yield
    except VoicecallError:
        raise
    except (Exception, SystemExit) as error:
        _log.info("%s cannot be used", info.label, exc_info=error)
        cause: BaseException = error
        while isinstance(cause, ExceptionGroup) and len(cause.exceptions) == 1:
            cause = cause.exceptions[0]
        if isinstance(cause, VoicecallError):
            raise cause from None
        raise PluginError(
            f"{_whose(info)} cannot be used: {type(cause).__name__}: {cause}"
        ) from error


def _whose(info: ProviderInfo) -> str:
    return f"the {info.kind.value} provider {info.id!r}"


@asynccontextmanager
async def opened(provider: Provider, info: ProviderInfo) -> AsyncIterator[None]:
    """The lifespan of ``provider``. If it hangs, the log says so, and it does not block a stop."""
    text = "%s is still being opened, and the phone waits for it"
    slow = asyncio.get_running_loop().call_later(_SLOW_S, _log.warning, text, _whose(info))
    try:
        async with held(provider.lifespan(), _whose(info)):
            slow.cancel()
            yield
    finally:
        slow.cancel()


def make_carrier(info: ProviderInfo, config: Any, context: ProviderContext) -> TelephonyProvider:
    """Make the carrier, without opening it. Raises ``VoicecallError``."""
    with making(info):
        carrier: Any = info.factory(config, context)
        if not isinstance(carrier, TelephonyProvider):
            raise TypeError(
                f"its factory returns {type(carrier).__name__}, not a TelephonyProvider"
            )
        if getattr(carrier, "capabilities", None) != info.capabilities:
            raise TypeError("its capabilities differ from those in its ProviderInfo")
        sets: Any = carrier.signature_headers
        right = isinstance(sets, Collection) and bool(sets)
        if not right or not all(_is_header_set(names) for names in sets):
            # Any other form would require headers that no webhook has.
            raise TypeError(
                "its signature_headers must be sets of lower-case names, such as"
                " (('x-signature',),)"
            )
    return carrier


def _has_formats(provider: Any) -> bool:
    formats = getattr(getattr(provider, "capabilities", None), "formats", ())
    return bool(formats) and all(isinstance(one, AudioFormat) for one in formats)


def _is_header_set(names: Any) -> bool:
    if isinstance(names, str) or not isinstance(names, Collection) or not names:
        return False
    return all(isinstance(name, str) and name == name.lower() for name in names)


async def open_provider(selected: Selected, context: ProviderContext, stack: AsyncExitStack) -> Any:
    """Make and open the provider of a selection, for as long as ``stack`` is open. Raises
    ``VoicecallError``."""
    info, config = require(selected)
    with making(info):
        provider = info.factory(config, context)
        if not hasattr(provider, "lifespan"):
            raise TypeError(f"its factory returns {type(provider).__name__}, not a provider")
        if info.kind is ProviderKind.REALTIME and not _has_formats(provider):
            # Every call would end before anything is said.
            raise TypeError("its capabilities must name at least one audio format (formats)")
        await stack.enter_async_context(opened(provider, info))
    return provider
