"""Starts ``voicecall`` commands quickly: imports what they need once, then forks each of them.

Run as a script, with the descriptor of a socket. An order is a byte sent with four descriptors:
one to read the order from, the command's stdout and stderr, and one to which the nursery writes
the command's pid and, when it has ended, its exit status (negative for a signal). The nursery ends
when the socket is closed.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import signal
import socket
import struct
import sys
from unittest import mock

NUMBER = struct.Struct("=i")
"""The binary format of pids and exit statuses."""
NEEDED = (
    "certifi",
    "httpcore",
    "sqlite3",
    "uvicorn.lifespan.off",
    "uvicorn.loops.auto",
    "uvicorn.protocols.http.httptools_impl",
    "uvloop",
    "voicecall_agents.scripted",
    "voicecall_calls.checks",
    "voicecall_calls.commands.calls",
    "voicecall_calls.conversation.nativetalk",
    "voicecall_calls.conversation.realtime.conversation",
    "voicecall_calls.conversation.streaming",
    "voicecall_calls.coordinator",
    "voicecall_calls.probing",
    "voicecall_calls.service",
    "voicecall_calls.store.config",
    "voicecall_gateway.cli",
    "voicecall_gateway.client",
    "voicecall_gateway.commands.gateway",
    "voicecall_gateway.logreader",
    "voicecall_gateway.logs",
    "voicecall_gateway.runtime",
    "voicecall_gateway.schema",
    "voicecall_mock.client",
    "voicecall_mock.exchange",
    "voicecall_mock.provider",
    "voicecall_testing.echo",
    "voicecall_testing.speech",
    "voicecall_turn.provider",
    "voicecall_twilio.provider",
    "websockets.server",
    "websockets.sync.client",
)


def take_orders(orders: socket.socket) -> bool:
    """Return true in each command, ready to run, and false when there are no more orders."""
    while True:
        _, descriptors, _, _ = socket.recv_fds(orders, 1, 4)
        if not descriptors:
            return False
        if os.fork() == 0:
            orders.close()
            _look_after(*descriptors)
            return True
        for descriptor in descriptors:
            os.close(descriptor)
        _bury()


def _bury() -> None:
    """Reap the intermediate processes that have ended."""
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return


def _look_after(order: int, output: int, errors: int, fate: int) -> None:
    """Return in the command; in its parent, report its pid and exit status, and exit."""
    pid = os.fork()
    if pid == 0:
        os.close(fate)
        _set_up(order, output, errors)
        return
    for descriptor in (order, output, errors):
        os.close(descriptor)
    os.write(fate, NUMBER.pack(pid))
    _, status = os.waitpid(pid, 0)
    os.write(fate, NUMBER.pack(os.waitstatus_to_exitcode(status)))
    os._exit(0)


def _set_up(order: int, output: int, errors: int) -> None:
    """Set the process up as a new ``python -c`` would find it."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    for number, descriptor in enumerate((nothing, output, errors)):
        os.dup2(descriptor, number)
        os.close(descriptor)
    with open(order, encoding="utf-8") as stream:
        wanted = json.load(stream)
    os.environ.clear()
    os.environ.update(wanted["environ"])
    os.chdir(wanted["directory"])
    paths = wanted["environ"].get("PYTHONPATH", "").split(os.pathsep)
    sys.path[0:1] = ["", *(path for path in paths if path not in sys.path)]
    importlib.invalidate_caches()
    sys.argv = ["voicecall", *wanted["arguments"]]
    # Those of this run's own HTTP clients.
    mock.patch("certifi.where", return_value=wanted["certificates"]).start()
    # Tests that are started in the background may ignore the terminal's signals.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


if __name__ == "__main__":
    # The terminal's signals are for the commands, and for the process that gives the orders.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    for name in NEEDED:
        importlib.import_module(name)
    gc.freeze()
    with socket.socket(fileno=int(sys.argv[1])) as socket_of_orders:
        is_command = take_orders(socket_of_orders)
    if is_command:
        importlib.import_module("voicecall_gateway.cli").main()
