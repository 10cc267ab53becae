"""The carrier's faults: of webhooks and sockets all the time, of requests now and then."""

from __future__ import annotations

import random

import anyio

from voicecall_testing.twilio import Faults, RestFault, SocketFault, WebhookFault

__all__ = ["LATE_S", "Weather"]

LATE_S = 10.0
WEBHOOKS = WebhookFault(duplicate=0.05, late=0.05, late_s=LATE_S, reorder=0.05, lose=0.01)
SOCKETS = SocketFault(drop=0.02)

CREATE, CHANGE, STATUS = ("POST /Calls.json",), ("POST /Calls/",), ("GET /Calls/",)
SQUALLS = (
    lambda: RestFault(status=429, paths=CREATE, times=2),
    lambda: RestFault(status=503, paths=CREATE, times=1),
    lambda: RestFault(ambiguous=True, paths=CREATE, times=1),
    lambda: RestFault(ambiguous=True, paths=CREATE, times=1),
    lambda: RestFault(delay_ms=700, paths=CREATE, times=2),
    lambda: RestFault(status=500, paths=CHANGE, times=1),
    lambda: RestFault(ambiguous=True, paths=CHANGE, times=1),
    lambda: RestFault(status=429, paths=CHANGE, times=2),
    lambda: RestFault(status=503, paths=STATUS, times=2),
    lambda: RestFault(delay_ms=500, times=4),
)


class Weather:
    """``rage`` changes the faults of the requests until it is cancelled."""

    def __init__(self, faults: Faults, rng: random.Random) -> None:
        self._faults = faults
        self._rng = rng

    def break_out(self) -> None:
        self._faults.webhooks, self._faults.sockets = WEBHOOKS, SOCKETS

    def calm(self) -> None:
        self._faults.replace({})

    async def rage(self) -> None:
        while True:
            self._faults.rest = [self._rng.choice(SQUALLS)()]
            await anyio.sleep(self._rng.uniform(0.5, 3.0))
