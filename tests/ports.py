"""Loopback ports for servers that must be given one."""

from __future__ import annotations

import atexit
import socket
from contextlib import ExitStack

__all__ = ["reserve_port"]

_reserved = ExitStack()
atexit.register(_reserved.close)


def reserve_port() -> int:
    """A port that the system assigns to no other socket while this process runs.

    A socket that is bound but does not listen reserves it. Servers can bind to it any number of
    times; sockets for which the system chooses a port, here or in other processes, get different
    ones; and connecting while no server listens is refused (and never connects to itself).
    """
    keeper = _reserved.enter_context(socket.socket())
    keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    keeper.bind(("127.0.0.1", 0))
    port: int = keeper.getsockname()[1]
    return port
