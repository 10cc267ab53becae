"""What the calls of the emulated account share: dialling rate, webhook sender, faults, options."""

from __future__ import annotations

from dataclasses import dataclass

import anyio

from voicecall.seam import Seam
from voicecall_mock.exchange.board import Switchboard

from .delivery import Signer, WebhookSender
from .faults import Faults
from .options import TwilioOptions

__all__ = ["Dialler", "TwilioBoard", "new_sid"]


def new_sid(seam: Seam, prefix: str) -> str:
    """A SID: ``prefix`` (CA, MZ, PN, ...) and 32 hexadecimal digits."""
    return prefix + seam.new_id().replace("-", "")


class Dialler:
    """Releases queued calls at the account's rate."""

    def __init__(self, seam: Seam, calls_per_second: float) -> None:
        self._seam = seam
        self._interval = 1 / calls_per_second
        self._free_at = 0.0

    async def turn(self) -> None:
        """Wait for this call's turn."""
        now = self._seam.monotonic()
        at = max(now, self._free_at)
        self._free_at = at + self._interval
        await anyio.sleep(at - now)


@dataclass(frozen=True, slots=True, kw_only=True)
class TwilioBoard(Switchboard):
    """What all calls of the account share."""

    options: TwilioOptions
    sender: WebhookSender
    signer: Signer
    faults: Faults
    dialler: Dialler
