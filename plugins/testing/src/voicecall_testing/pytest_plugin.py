"""The pytest plugin of voicecall-testing: it knows the mark of the conformance suites."""

from __future__ import annotations

import pytest

__all__ = ["pytest_configure"]


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "contract: a provider against its conformance suite")
