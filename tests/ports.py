"""Ports on loopback for servers that are told theirs."""

from __future__ import annotations

import atexit
import socket
from contextlib import ExitStack

__all__ = ["reserve_port"]

_reserved = ExitStack()
atexit.register(_reserved.close)


def reserve_port() -> int:
    """A port that the system gives to nobody else while this process runs.

    A socket that does not listen keeps it: servers bind to it as often as they like, the others
    that the system chooses ports for, here and in processes beside, are given different ones, and
    who connects to it while no server is there is refused (and never connected to himself).
    """
    keeper = _reserved.enter_context(socket.socket())
    keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    keeper.bind(("127.0.0.1", 0))
    port: int = keeper.getsockname()[1]
    return port
