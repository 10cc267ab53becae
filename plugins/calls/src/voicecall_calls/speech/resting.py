"""How long a provider that failed is asked last."""

from __future__ import annotations

from voicecall.seam import Seam

__all__ = ["Rest"]

_FIRST_S = 30.0
_LONGEST_S = 300.0


class Rest:
    """One a provider, shared by all calls: 30 s of rest after a failure, twice as long after each
    further one without a success in between, 5 minutes at most.

    Calls that fail while it rests make it no longer: they found out about the same thing.
    """

    def __init__(self, seam: Seam) -> None:
        self._seam = seam
        self._until = 0.0
        self._next_s = _FIRST_S

    @property
    def resting(self) -> bool:
        return self._seam.monotonic() < self._until

    def failed(self) -> None:
        if not self.resting:
            self._until = self._seam.monotonic() + self._next_s
            self._next_s = min(self._next_s * 2, _LONGEST_S)

    def spoke(self) -> None:
        self._until, self._next_s = 0.0, _FIRST_S
