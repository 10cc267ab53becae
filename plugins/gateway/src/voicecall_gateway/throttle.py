"""Who tries tokens over the network has to wait. Programs on this machine need not: one of them
must not be able to lock out the others."""

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
    """Counts failures by address. Its memory is bounded: the address that was quiet for longest
    is forgotten first."""

    def __init__(self, seam: Seam) -> None:
        self._seam = seam
        self._failures: OrderedDict[str, deque[float]] = OrderedDict()

    def wait(self, client: str) -> int:
        """How many seconds ``client`` has to wait; 0: it may try."""
        times = self._failures.get(client)
        if times is None or len(times) < FAILURES:
            return 0
        return max(0, math.ceil(times[0] + WINDOW_SECONDS - self._seam.monotonic()))

    def failed(self, client: str) -> None:
        """``client`` came with a wrong token."""
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
