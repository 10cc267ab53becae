"""Which recogniser, voice, voice model or agent failed last, when and why, for the status.

Only the class of the error is kept as the reason: a vendor's message may quote a caller or a
credential. The log has the rest.
"""

from __future__ import annotations

from typing import Any

from voicecall.providers import ProviderKind
from voicecall.seam import Seam

__all__ = ["Trouble", "Troubles"]


class Trouble:
    """The failures of one provider on all calls. ``in_a_row``: how many since it last worked."""

    def __init__(self, seam: Seam) -> None:
        self._seam = seam
        self.in_a_row = 0
        self.at: int | None = None
        self._reason = self._call_id = ""

    def failed(self, call_id: str, reason: str) -> None:
        self.at = self._seam.now_ms()
        self.in_a_row += 1
        self._reason, self._call_id = reason, call_id

    def worked(self) -> None:
        self.in_a_row = 0

    def report(self) -> dict[str, Any]:
        """``at``: milliseconds since the epoch."""
        return {
            "at": self.at,
            "reason": self._reason,
            "callId": self._call_id,
            "inARow": self.in_a_row,
        }


class Troubles:
    """The failures of all providers that speak, listen or answer, since the phone started."""

    def __init__(self, seam: Seam) -> None:
        self._seam = seam
        self._all: dict[tuple[ProviderKind, str], Trouble] = {}

    def of(self, kind: ProviderKind, provider_id: str) -> Trouble:
        """The provider's :class:`Trouble`, the same one each time."""
        return self._all.setdefault((kind, provider_id), Trouble(self._seam))

    def report(self) -> dict[str, Any]:
        """``{"failures": [...]}``, the newest first; empty if nothing has failed."""
        failed = [(key, trouble) for key, trouble in self._all.items() if trouble.at is not None]
        failed.sort(key=lambda one: one[1].at or 0, reverse=True)
        told = [{"kind": kind.value, "provider": id_, **t.report()} for (kind, id_), t in failed]
        return {"failures": told} if told else {}
