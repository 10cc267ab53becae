"""Options of the emulator. All times can be made short for tests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from voicecall_mock.exchange.options import PhoneOptions

__all__ = ["DEFAULT_ACCOUNT_SID", "DEFAULT_AUTH_TOKEN", "TwilioOptions"]

DEFAULT_ACCOUNT_SID = "AC" + 8 * "e3a1"
DEFAULT_AUTH_TOKEN = 8 * "7e57"
"""Not a secret: the emulator listens on loopback."""

_TEST_NUMBERS = MappingProxyType(
    {
        "+15005550001": 21211,
        "+15005550002": 21214,
        "+15005550003": 21215,
        "+15005550004": 21216,
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TwilioOptions(PhoneOptions):
    """Options of the emulator.

    - ``api_keys``: secrets by key SID, accepted like the auth token
    - ``shared_key``: id and secret; webhooks are signed with this key (HMAC-SHA256) instead of the
      auth token
    - ``numbers``: numbers of the account; each gets ``voice_url`` and ``status_callback``
    - ``caller_ids``: other numbers that the account has verified and may call from
    - ``refused_numbers``: numbers that cannot be called, with the error code for each
    - ``longest_call_s``: the greatest ``TimeLimit`` that the account accepts
    - ``calls_per_second``: the rate at which queued calls are dialled
    - ``second_s``: real length of a protocol second (``Timeout``, ``TimeLimit``, ``<Pause>``, the
      timeouts of ``<Gather>``, ``w`` and ``W``)
    - ``speech_pause_s``: the silence, in protocol seconds, that ends speech if ``speechTimeout`` is
      ``auto``
    - ``retry_pause_s``: pause before a webhook is delivered again
    - ``seed``: of the random generator for faults
    """

    account_sid: str = DEFAULT_ACCOUNT_SID
    auth_token: str = DEFAULT_AUTH_TOKEN
    api_keys: Mapping[str, str] = field(default_factory=dict)
    shared_key: tuple[str, str] | None = None
    numbers: tuple[str, ...] = ("+15550100000",)
    voice_url: str = ""
    status_callback: str = ""
    caller_ids: tuple[str, ...] = ()
    refused_numbers: Mapping[str, int] = field(default_factory=lambda: _TEST_NUMBERS)
    longest_call_s: int = 14_400
    calls_per_second: float = 1.0
    second_s: float = 1.0
    speech_pause_s: float = 1.0
    retry_pause_s: float = 0.2
    seed: int = 0
