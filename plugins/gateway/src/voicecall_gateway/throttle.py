"""Delays for clients that try wrong tokens over the network. Programs on this machine are exempt,
because one of them could lock out the others."""

from __future__ import annotations

import ipaddress
import math
from collections import OrderedDict, deque

from voicecall.seam import Seam

__all__ = ["Throttle"]

FAILURES = 10
WINDOW_SECONDS = 60.0
MAX_CLIENTS = 1024


class Throttle:
    """Counts failures by address. Memory is bounded: the address whose last failure is the oldest
    is forgotten first."""

    def __init__(self, seam: Seam) -> None:
        self._seam = seam
        self._failures: OrderedDict[str, deque[float]] = OrderedDict()

    def wait(self, client: str) -> int:
        """The seconds that ``client`` has to wait; 0 if it may try."""
        times = self._failures.get(client)
        if times is None or len(times) < FAILURES:
            return 0
        return max(0, math.ceil(times[0] + WINDOW_SECONDS - self._seam.monotonic()))

    def failed(self, client: str) -> None:
        """Count a wrong token from ``client``."""
        try:
            if ipaddress.ip_address(client).is_loopback:
                return
        except ValueError:
            return
        times = self._failures.setdefault(client, deque(maxlen=FAILURES))
        times.append(self._seam.monotonic())
        self._failures.move_to_end(client)
        while len(self._failures) > MAX_CLIENTS:
            self._failures.popitem(last=False)
