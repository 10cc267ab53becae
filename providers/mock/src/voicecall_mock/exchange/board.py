"""What all calls of an emulated carrier share."""

from __future__ import annotations

from dataclasses import dataclass

from voicecall.seam import Seam

from .ledger import Ledger
from .options import PhoneOptions
from .sockets import MediaClock
from .voice import Voice

__all__ = ["Switchboard"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Switchboard:
    """A carrier's subclass adds what its own calls need."""

    options: PhoneOptions
    seam: Seam
    ledger: Ledger
    voice: Voice
    clock: MediaClock
