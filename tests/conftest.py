"""Fixtures for all tests, and the order in which tests run."""

from __future__ import annotations

import atexit
import gc
import subprocess
import sys
from collections.abc import AsyncIterator, Generator, Iterator
from importlib.util import cache_from_source
from itertools import groupby
from pathlib import Path

import certifi
import pytest
from hypothesis import HealthCheck, settings, strategies

from . import backstage

# The time that an example takes says more about the machine than about the code.
settings.register_profile(
    "patient", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("patient")

# At exit an interpreter collects garbage several times, which takes seconds in each worker.
atexit.register(gc.freeze)


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """Real time. Modules on virtual time override this fixture."""
    return "asyncio"


@pytest.fixture(scope="module", name="backstage")
async def _backstage(anyio_backend: object) -> AsyncIterator[None]:
    """Open a stage for modules that use :func:`tests.backstage.closed_backstage`."""
    async with backstage.opened():
        yield


@pytest.fixture(scope="session", autouse=True)
def _one_authority(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """Give HTTP clients a single certificate authority, except in runs with live tests. Loading
    all of them takes a client longer than most tests, which use no TLS server."""
    if any(test.get_closest_marker("live") for test in request.session.items):
        yield
        return
    end = "-----END CERTIFICATE-----\n"
    first = Path(certifi.where()).read_text(encoding="utf-8").partition(end)[0]
    file = tmp_path_factory.mktemp("certificates") / "one.pem"
    file.write_text(first + end, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(certifi, "where", lambda: str(file))
        yield


@pytest.hookimpl(wrapper=True)
def pytest_sessionstart(session: pytest.Session) -> Generator[None, object, object]:
    """Make once what each worker would make for itself in a new clone: before they start, the
    bytecode of all tests and of what they import; while they start, the table of all characters
    that hypothesis keeps in a file."""
    in_workers = session.config.pluginmanager.hasplugin("dsession")
    if in_workers and session.config.args == session.config.getini("testpaths"):
        _compile_tests()
    started = yield
    if in_workers:
        strategies.characters(exclude_categories=["Cs"]).validate()
    return started


def _compile_tests() -> None:
    """Collect all tests in two processes, half in each. The workers report any errors."""
    kept = cache_from_source(str(Path(__file__).with_name("test_boundaries.py")))
    compiled = Path(f"{kept.removesuffix('.pyc')}-pytest-{pytest.__version__}.pyc")
    if sys.dont_write_bytecode or compiled.exists():
        return
    largest = "tests/plugins/calls"
    collect = [sys.executable, "-m", "pytest", "--collect-only", "-qq", "-p", "no:cacheprovider"]
    halves = [
        subprocess.Popen([*collect, *half], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for half in ([largest], ["tests", f"--ignore={largest}"])
    ]
    for process in halves:
        process.wait()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Spread the end-to-end tests, which mostly wait, evenly among the others, which compute. Each
    worker takes a stretch of tests, and so the cores are busy but never overloaded for long."""
    modules = [list(tests) for _, tests in groupby(items, key=lambda item: item.path)]
    waiting = [tests for tests in modules if tests[0].get_closest_marker("e2e")]
    computing = [tests for tests in modules if not tests[0].get_closest_marker("e2e")]
    placed = [*_places(waiting), *_places(computing)]
    items[:] = [test for _, tests in sorted(placed, key=lambda place: place[0]) for test in tests]


def _places(modules: list[list[pytest.Item]]) -> list[tuple[float, list[pytest.Item]]]:
    """Each module with its relative position (0 to 1): that of the middle of its tests."""
    count = sum(map(len, modules))
    before, places = 0, []
    for tests in modules:
        places.append(((before + len(tests) / 2) / count, tests))
        before += len(tests)
    return places
