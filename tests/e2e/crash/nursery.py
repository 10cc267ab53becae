"""Starts gateways quickly: imports what a gateway needs once, then forks one for each order.

Run as a script. Orders on standard input, one answer a line on standard output: ``start`` (the
gateway's pid; its output goes to the file named in the first argument, the others are its
command line) and ``wait`` (the exit status, negative for a signal, once it is gone). A gateway
that still lives when the orders end is killed.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys

NEEDED = (
    "httpcore",
    "sqlite3",
    "uvicorn.lifespan.off",
    "uvicorn.loops.auto",
    "uvicorn.protocols.http.httptools_impl",
    "uvloop",
    "voicecall_agents.scripted",
    "voicecall_calls.commands.calls",
    "voicecall_calls.conversation.nativetalk",
    "voicecall_calls.conversation.realtime",
    "voicecall_calls.conversation.streaming",
    "voicecall_calls.coordinator",
    "voicecall_calls.service",
    "voicecall_calls.store.config",
    "voicecall_gateway.cli",
    "voicecall_gateway.commands.gateway",
    "voicecall_gateway.logs",
    "voicecall_gateway.runtime",
    "voicecall_mock.client",
    "voicecall_mock.provider",
    "voicecall_testing.echo",
    "voicecall_testing.speech",
    "voicecall_turn.provider",
    "voicecall_twilio.provider",
    "websockets.server",
)


def become_gateway(output: str, arguments: list[str]) -> None:
    """Never returns."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    written = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(nothing, 0)
    os.dup2(written, 1)
    os.dup2(written, 2)
    sys.argv = ["voicecall", *arguments]
    importlib.import_module("voicecall_gateway.cli").main()
    os._exit(0)


def main() -> None:
    output, *arguments = sys.argv[1:]
    for name in NEEDED:
        importlib.import_module(name)
    pid = 0
    try:
        for order in sys.stdin:
            if order == "start\n":
                pid = os.fork()
                if pid == 0:
                    become_gateway(output, arguments)
                answer = pid
            else:
                _, status = os.waitpid(pid, 0)
                answer, pid = os.waitstatus_to_exitcode(status), 0
            print(answer, flush=True)
    finally:
        if pid:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


if __name__ == "__main__":
    main()
