"""The tutorial's provider, extracted from its page, against the conformance suite."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from voicecall import ProviderContext, ProviderKind
from voicecall.configuring import validate
from voicecall.errors import ConfigError
from voicecall.registry import Registry
from voicecall.tts import SpeechProvider
from voicecall_testing.contracts.tts import SpeechContract

pytestmark = [pytest.mark.contract, pytest.mark.anyio]

PAGE = Path(__file__).parents[2] / "docs" / "tutorial" / "your-first-provider.md"
FILE = re.compile(r"^`([\w.]+)`:\n\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def files() -> dict[str, str]:
    """The files that the page tells the reader to write."""
    return dict(FILE.findall(PAGE.read_text(encoding="utf-8")))


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The tutorial's module, imported from the files of the page."""
    for name, text in files().items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    spec = importlib.util.spec_from_file_location("voicecall_hum", tmp_path / "voicecall_hum.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "voicecall_hum", module)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def registry(module: ModuleType) -> Registry:
    return Registry(extra=[("voicecall.tts", "hum", module)])


class TestHum(SpeechContract):
    @pytest.fixture
    def provider(self, registry: Registry, tmp_path: Path) -> SpeechProvider:
        info = registry.load(ProviderKind.TTS, "hum")
        assert info.config_model is not None
        config = info.config_model()()
        made: Any = info.factory(config, ProviderContext(tmp_path))
        assert isinstance(made, SpeechProvider)
        return made


def test_the_page_holds_three_files_and_the_entry_point_names_the_module() -> None:
    assert set(files()) == {"pyproject.toml", "voicecall_hum.py", "test_hum.py"}
    project = tomllib.loads(files()["pyproject.toml"])["project"]
    assert project["entry-points"]["voicecall.tts"] == {"hum": "voicecall_hum"}
    assert "voicecall-core" in project["dependencies"]


def test_it_is_installed_with_the_certificates_that_make_setup_trusts() -> None:
    makefile = (PAGE.parents[2] / "Makefile").read_text(encoding="utf-8")
    [typed] = re.findall(
        r"^\$ \.venv/bin/(uv pip install .*)$", PAGE.read_text("utf-8"), re.MULTILINE
    )
    assert "--system-certs" in makefile
    assert "--system-certs" in typed


def test_its_configuration_is_as_the_page_says(registry: Registry) -> None:
    info = registry.load(ProviderKind.TTS, "hum")
    assert info.config_model is not None
    model = info.config_model()
    validate(model, {"hertz": 180, "wordMs": 300}, "tts.providers.hum")
    with pytest.raises(ConfigError) as error:
        validate(model, {"hertzz": 180}, "tts.providers.hum")
    assert f"FAIL provider-config: {error.value}\n" in PAGE.read_text(encoding="utf-8")


def test_the_tutorials_own_test_collects(module: ModuleType, tmp_path: Path) -> None:
    namespace: dict[str, Any] = {"__name__": "test_hum"}
    exec(
        compile((tmp_path / "test_hum.py").read_text(encoding="utf-8"), "test_hum.py", "exec"),
        namespace,
    )
    suite = namespace["TestHum"]
    assert issubclass(suite, SpeechContract)
    assert not suite.__abstractmethods__


def test_pytest_knows_the_mark_of_the_tutorials_test(module: ModuleType, tmp_path: Path) -> None:
    options = ["--collect-only", "--strict-markers", "-p", "no:cacheprovider", "-W", "error"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "test_hum.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "TestHum" in done.stdout
