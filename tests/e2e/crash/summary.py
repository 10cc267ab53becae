"""Figures of a campaign, and the minimum that makes it count."""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import fmean

__all__ = ["RECOVERY_S", "TEN", "Summary"]

RECOVERY_S = 30.0
TEN = 10
"""This many calls are connected at every kill."""


@dataclass(slots=True)
class Summary:
    """``live`` and ``others``: one number for each kill, of the calls that the gateway's store and
    the exchange both had as connected when it died, and of the other calls that were not over in
    the store (being dialled, ringing, answered, ended). ``recovered`` and ``finalised`` count
    calls that were live when their gateway was killed, ``heard`` those of the recovered ones on
    which the next gateway was heard speaking."""

    seed: int
    media: str
    live: list[int] = field(default_factory=list)
    others: list[int] = field(default_factory=list)
    recovery_s: list[float] = field(default_factory=list)
    webhooks: int = 0
    ignored: int = 0
    dials: int = 0
    recovered: int = 0
    finalised: int = 0
    heard: int = 0

    @property
    def kills(self) -> int:
        return len(self.live)

    def __str__(self) -> str:
        return (
            f"seed {self.seed}, media {self.media}, kills {self.kills},"
            f" live at a kill min {min(self.live, default=0)} mean {_mean(self.live):.1f},"
            f" others mean {_mean(self.others):.1f},"
            f" webhooks {self.webhooks}, ignored {self.ignored}, dials {self.dials},"
            f" recovered {self.recovered}, finalised {self.finalised}, heard {self.heard},"
            f" recovery max {max(self.recovery_s, default=0.0):.2f} s"
            f" mean {_mean(self.recovery_s):.2f} s"
        )

    def check(self, kills: int) -> None:
        """Raises ``AssertionError`` if there was too little to lose."""
        assert self.kills == kills
        assert min(self.live) >= TEN
        assert any(self.others)
        assert self.webhooks > 5 * kills
        assert self.dials > 2 * kills
        # A kill soon after another finds calls that were live at the first one already.
        assert self.recovered + self.finalised > 8 * kills
        assert self.recovered > 5 * kills
        # One call each time that the gateway is back; a kill may follow another at once.
        assert self.heard >= 0.9 * len(self.recovery_s) - 1
        assert max(self.recovery_s) <= RECOVERY_S


def _mean(values: list[int] | list[float]) -> float:
    return fmean(values) if values else 0.0
