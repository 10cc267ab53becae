"""The pytest plugin of voicecall-testing: it knows the mark of the conformance suites, and does not
let one pass that lacks what it needs."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

__all__ = ["pytest_configure", "pytest_pycollect_makeitem"]

_SUITES = "voicecall_testing.contracts."


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "contract: a provider against its conformance suite")


def pytest_pycollect_makeitem(collector: pytest.Module | pytest.Class, name: str, obj: Any) -> None:
    """Refuse a suite without all of its fixtures and methods: pytest passes abstract classes over
    without a word."""
    if not (inspect.isclass(obj) and inspect.isabstract(obj) and collector.classnamefilter(name)):
        return
    if any(base.__module__.startswith(_SUITES) for base in obj.__mro__):
        missing = ", ".join(sorted(getattr(obj, "__abstractmethods__", ())))
        raise collector.CollectError(f"{name} lacks of its conformance suite: {missing}")
