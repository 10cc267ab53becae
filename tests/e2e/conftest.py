"""Fixtures of the end-to-end tests."""

from __future__ import annotations

import pytest

from .lab.carriers import CARRIERS


@pytest.fixture(params=sorted(CARRIERS))
def carrier(request: pytest.FixtureRequest) -> str:
    """Each carrier that has an emulator."""
    return str(request.param)
