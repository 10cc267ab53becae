"""Fixtures of the end-to-end tests."""

from __future__ import annotations

import pytest

from .lab.carriers import CARRIERS


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(params=sorted(CARRIERS))
def carrier(request: pytest.FixtureRequest) -> str:
    """Each carrier that has an emulator."""
    return str(request.param)
