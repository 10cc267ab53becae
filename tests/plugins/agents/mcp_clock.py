"""A tiny MCP server on stdin and stdout: a tool that works, one that fails, one that exits."""

from __future__ import annotations

import os

from mcp.server import MCPServer

server = MCPServer("clock")


@server.tool()
def now(zone: str) -> str:
    """What time it is in a zone."""
    return f"noon in {zone}, says {os.environ.get('CLOCK_NAME', 'nobody')}"


@server.tool()
def broken() -> str:
    """Always fails."""
    raise RuntimeError("the clock is broken")


@server.tool()
def die() -> str:
    """Ends the server."""
    os._exit(1)


if __name__ == "__main__":
    server.run("stdio")
