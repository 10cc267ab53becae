"""The pytest plugin of voicecall-testing: registers the mark of the conformance suites, and reports
incomplete ones."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

__all__ = ["pytest_configure", "pytest_pycollect_makeitem"]

_SUITES = "voicecall_testing.contracts."


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "contract: a provider against its conformance suite")


def pytest_pycollect_makeitem(collector: pytest.Module | pytest.Class, name: str, obj: Any) -> None:
    """Refuse a suite that does not override all abstract fixtures and methods: pytest would skip
    the class silently."""
    if not (inspect.isclass(obj) and inspect.isabstract(obj) and collector.classnamefilter(name)):
        return
    if any(base.__module__.startswith(_SUITES) for base in obj.__mro__):
        missing = ", ".join(sorted(getattr(obj, "__abstractmethods__", ())))
        raise collector.CollectError(
            f"{name} must override these of its conformance suite: {missing}"
        )
