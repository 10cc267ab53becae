"""The source of a third-party gateway plugin that logs a credential of the environment."""

from __future__ import annotations

TELLER = """
import os
from contextlib import asynccontextmanager
from voicecall import hookimpl

class Service:
    name = "teller"
    def __init__(self, host):
        self.host = host
    @asynccontextmanager
    async def run(self):
        self.host.logger("teller").warning("refused is %s", os.environ["ACME_API_KEY"])
        yield
    async def drain(self):
        return None
    def problems(self):
        return []

@hookimpl
def voicecall_services(host):
    return [Service(host)]
"""
