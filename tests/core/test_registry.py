"""The registry, over distributions that are written to disk."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent

import pytest
from importlib_metadata import EntryPoint, distributions

import voicecall
from voicecall import ProviderInfo, ProviderKind, hookimpl
from voicecall.errors import PluginError
from voicecall.registry import Registry

pytestmark = pytest.mark.unit

MODULE = """
from voicecall import ProviderInfo, ProviderKind, hookimpl

@hookimpl
def voicecall_tts_providers():
    return [
        ProviderInfo(kind=ProviderKind.TTS, id={id!r}, label="L", factory=print, {more})
    ]
"""

Install = Callable[..., None]
TTS = ProviderKind.TTS


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


@pytest.fixture
def install(site: Path) -> Install:
    def put(
        distribution: str,
        entry: str,
        *,
        module: str,
        code: str | None = None,
        more: str = "",
        group: str = "voicecall.tts",
    ) -> None:
        text = MODULE.format(id=entry, more=more) if code is None else dedent(code)
        (site / f"{module}.py").write_text(text)
        info = site / f"{distribution.replace('-', '_')}-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.2\n"
        )
        (info / "entry_points.txt").write_text(f"[{group}]\n{entry} = {module}\n")

    return put


def scan(site: Path) -> Registry:
    entries: list[EntryPoint] = [
        entry for dist in distributions(path=[str(site)]) for entry in dist.entry_points
    ]
    return Registry(entries=entries)


def test_listing_imports_nothing(site: Path, install: Install) -> None:
    install("acme-b", "bravo", module="acme_bravo", code="raise RuntimeError('imported')")
    install("acme-a", "alpha", module="acme_alpha")
    install("other", "thing", module="other_thing", group="somebody.else")
    registry = scan(site)
    assert registry.ids(TTS) == ["alpha", "bravo"]
    found = registry.found("voicecall.tts")
    assert [(f.id, f.source, f.version) for f in found] == [
        ("alpha", "acme-a", "1.2"),
        ("bravo", "acme-b", "1.2"),
    ]
    assert registry.found("somebody.else") == []
    assert registry.ids(ProviderKind.AGENT) == []
    assert registry.failures == {}
    assert not {"acme_alpha", "acme_bravo"} & set(sys.modules)


def test_loading_imports_only_what_is_asked_for(site: Path, install: Install) -> None:
    install("acme-a", "alpha", module="acme_alpha")
    install("acme-b", "bravo", module="acme_bravo")
    registry = scan(site)
    info = registry.load(TTS, "alpha")
    assert info.id == "alpha"
    assert "acme_alpha" in sys.modules
    assert "acme_bravo" not in sys.modules
    assert registry.load(TTS, "alpha") is info


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("raise RuntimeError('no driver')", "RuntimeError: no driver"),
        ("import a_module_that_is_not_there", "ModuleNotFoundError"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("def broken(:", "SyntaxError"),
    ],
)
def test_a_broken_package_is_recorded_and_disturbs_nobody(
    site: Path, install: Install, code: str, text: str
) -> None:
    install("acme-bad", "bad", module="acme_bad", code=code)
    install("acme-good", "good", module="acme_good")
    registry = scan(site)
    assert [info.id for info in registry.load_all(TTS)] == ["good"]
    assert text in registry.failures["voicecall.tts", "bad"]
    with pytest.raises(PluginError, match=f"'bad' of acme-bad cannot be imported: {text}"):
        registry.load(TTS, "bad")


HOOK = "from voicecall import ProviderInfo, ProviderKind, hookimpl\n@hookimpl\n"
ONE = "ProviderInfo(kind=ProviderKind.TTS, id='bad', label='L', factory=print)"


@pytest.mark.parametrize(
    ("hook", "text"),
    [
        ("def voicecall_tts_provider(): return []", "unknown hook 'voicecall_tts_provider'"),
        (
            "def voicecall_tts_providers(more): return []",
            r"Plugin 'voicecall\.tts:bad' for .*Argument\(s\) {'more'}",
        ),
        ("def voicecall_tts_providers(): import a_module_that_is_not_there", "ModuleNotFoundError"),
        ("def voicecall_tts_providers(): raise SystemExit(3)", "SystemExit: 3"),
        ("def voicecall_tts_providers(): return None", "voicecall_tts_providers returns NoneType"),
        (f"def voicecall_tts_providers(): return {ONE}", "returns ProviderInfo, not a sequence"),
        ("def voicecall_tts_providers(): return ['bad']", "returns list, not a sequence"),
        ("async def voicecall_tts_providers(): return []", "is async, but hooks are not awaited"),
    ],
)
def test_a_wrong_hook_is_its_packages_fault_and_no_one_elses(
    site: Path, install: Install, hook: str, text: str
) -> None:
    install("acme-bad", "bad", module="acme_bad", code=HOOK + hook)
    install("acme-good", "good", module="acme_good", more="aliases=('fine',)")
    registry = scan(site)
    assert registry.load(TTS, "fine").id == "good"
    assert [info.id for info in registry.load_all(TTS)] == ["good"]
    assert re.search(text, registry.failures["voicecall.tts", "bad"])
    for _ in range(2):
        with pytest.raises(PluginError, match=f"voicecall.tts 'bad' of acme-bad .*{text}"):
            registry.load(TTS, "bad")


def test_a_carrier_says_what_it_can_do(site: Path, install: Install) -> None:
    code = MODULE.replace("tts", "telephony").replace("TTS", "TELEPHONY")
    for entry, more in (("mute", ""), ("plain", "capabilities=TelephonyCapabilities()")):
        install(
            f"acme-{entry}",
            entry,
            module=f"acme_{entry}",
            code="from voicecall.telephony import TelephonyCapabilities\n"
            + code.format(id=entry, more=more),
            group="voicecall.telephony",
        )
    registry = scan(site)
    with pytest.raises(PluginError, match=r"'mute' of acme-mute does not say .* has no capab"):
        registry.load(ProviderKind.TELEPHONY, "mute")
    assert [info.id for info in registry.load_all(ProviderKind.TELEPHONY)] == ["plain"]


@pytest.mark.parametrize(
    ("capabilities", "words"),
    [
        ("{'marks': True}", "capabilities of type dict, not TelephonyCapabilities"),
        ("TelephonyCapabilities", "capabilities of type type, not TelephonyCapabilities"),
        ("TelephonyCapabilities(codecs=['mulaw'])", "codecs are not AudioFormat, such as "),
        ("TelephonyCapabilities(stream={'dial', 'command'})", "StreamPoint.DIAL, which dial"),
        ("TelephonyCapabilities(stream={'answer'}, codecs=())", "media sockets but without codecs"),
        ("TelephonyCapabilities(stream='command')", "stream is not a set of StreamPoint"),
        ("TelephonyCapabilities(stream={'anser'})", "stream is not a set of StreamPoint"),
        ("TelephonyCapabilities(longest_speech=0)", "longest_speech is neither an int above 0"),
        ("TelephonyCapabilities(longest_pre_connect_dtmf='32')", "_dtmf is neither an int above"),
    ],
)
def test_what_a_carrier_can_do_has_a_form(
    site: Path, install: Install, capabilities: str, words: str
) -> None:
    code = MODULE.replace("tts", "telephony").replace("TTS", "TELEPHONY")
    install(
        "acme-odd",
        "odd",
        module="acme_odd",
        code="from voicecall.telephony import TelephonyCapabilities\n"
        + code.format(id="odd", more=f"capabilities={capabilities}"),
        group="voicecall.telephony",
    )
    match = f"'odd' of acme-odd does not say .* its ProviderInfo has .*{words}"
    with pytest.raises(PluginError, match=match):
        scan(site).load(ProviderKind.TELEPHONY, "odd")


def test_an_id_claimed_twice_names_both_distributions(site: Path, install: Install) -> None:
    install("acme-one", "same", module="acme_one")
    install("acme-two", "same", module="acme_two")
    registry = scan(site)
    with pytest.raises(PluginError, match="claimed by two distributions, acme-one and acme-two"):
        registry.load(TTS, "same")
    assert registry.load_all(TTS) == []
    assert "acme-two" in registry.failures["voicecall.tts", "same"]
    assert not {"acme_one", "acme_two"} & set(sys.modules)


def test_a_distribution_that_is_found_twice_is_one(site: Path, install: Install) -> None:
    install("acme-a", "alpha", module="acme_alpha")
    entries = [e for d in distributions(path=[str(site)]) for e in d.entry_points]
    registry = Registry(entries=entries * 2)
    assert len(registry.found("voicecall.tts")) == 1
    assert registry.load(TTS, "alpha").id == "alpha"


def test_an_alias_leads_to_the_provider(site: Path, install: Install) -> None:
    install("acme-a", "alpha", module="acme_alpha", more='aliases=("first", "log"),')
    assert scan(site).load(TTS, "log").id == "alpha"


def test_an_alias_of_two_providers_is_neither(site: Path, install: Install) -> None:
    install("acme-a", "alpha", module="acme_alpha", more='aliases=("log",),')
    install("acme-b", "bravo", module="acme_bravo", more='aliases=("log", "alpha"),')
    registry = scan(site)
    with pytest.raises(PluginError, match="'log' is an alias of 'alpha' and 'bravo': write"):
        registry.load(TTS, "log")
    # An id takes precedence over any alias.
    assert registry.load(TTS, "alpha").id == "alpha"


def test_an_unknown_id_gets_a_suggestion(site: Path, install: Install) -> None:
    install("acme-a", "alpha", module="acme_alpha")
    registry = scan(site)
    with pytest.raises(PluginError, match=r"'alhpa' is installed .*did you mean 'alpha'\?"):
        registry.load(TTS, "alhpa")
    with pytest.raises(PluginError, match=r"'zz' is installed \(installed: alpha\)$"):
        registry.load(TTS, "zz")
    with pytest.raises(PluginError, match=r"\(installed: none\)$"):
        registry.load(ProviderKind.STORE, "sqlite")


def test_an_id_in_another_group_is_pointed_at(site: Path, install: Install) -> None:
    install("acme-a", "alpha", module="acme_alpha", group="voicecall.speech")
    words = r"\(installed: none\); a package has it in the group voicecall\.speech instead$"
    with pytest.raises(PluginError, match=words):
        scan(site).load(TTS, "alpha")


WRONG_FIELDS = [
    ("api_version='1',", "api_version must be an int"),
    ("auto_select_order='10',", "auto_select_order must be an int"),
    ("demo='no',", "demo must be a bool"),
    ("legacy_keys=('old',),", "legacy_keys must be a list or tuple of LegacyKey"),
    ("secrets={'apiKey': None},", "secrets must be a mapping of str to str"),
    ("aliases='first',", "aliases must be a list or tuple of str"),
    ("required='apiKey',", "required must be a list or tuple of str"),
    ("secrets=['apiKey'],", "secrets must be a mapping of str to str"),
    ("environ='NUMBER',", "environ must be a mapping of str to str"),
    ("config_model=dict,", "config_model must be a function that returns the model"),
    ("check=['a'],", r"check must be a function \(config, models\)"),
]


@pytest.mark.parametrize(("more", "words"), WRONG_FIELDS)
def test_a_field_of_another_form_is_named(
    site: Path, install: Install, more: str, words: str
) -> None:
    install("acme-a", "alpha", module="acme_alpha", more=more)
    with pytest.raises(PluginError, match=f"TypeError: ProviderInfo 'alpha': {words}"):
        scan(site).load(TTS, "alpha")


@pytest.mark.parametrize(
    ("right", "wrong", "words"),
    [
        ("kind=ProviderKind.TTS", "kind='tts'", "kind must be a ProviderKind"),
        ('label="L"', "label=None", "label must be a str"),
    ],
)
def test_a_provider_of_no_kind_harms_nobody(
    site: Path, install: Install, right: str, wrong: str, words: str
) -> None:
    code = MODULE.format(id="alpha", more="").replace(right, wrong)
    install("acme-a", "alpha", module="acme_alpha", code=code)
    install("acme-b", "bravo", module="acme_bravo")
    registry = scan(site)
    assert [info.id for info in registry.load_all(TTS)] == ["bravo"]
    assert words in registry.failures["voicecall.tts", "alpha"]


def test_another_api_version_is_refused(site: Path, install: Install) -> None:
    install("acme-a", "alpha", module="acme_alpha", more="api_version=99,")
    registry = scan(site)
    words = r"of acme-a is .* API version 99, but voicecall has 1: update voicecall$"
    with pytest.raises(PluginError, match=words):
        registry.load(TTS, "alpha")
    assert registry.load_all(TTS) == []
    assert ("voicecall.tts", "alpha") in registry.failures


def test_a_package_of_the_first_version_is_refused_by_a_later_host(
    site: Path, install: Install
) -> None:
    install("acme-a", "alpha", module="acme_alpha")
    host = site / "voicecall"
    shutil.copytree(Path(voicecall.__file__).parent, host)
    contract = (host / "providers.py").read_text()
    assert contract.count("\nAPI_VERSION = 1\n") == 1
    later = contract.replace("\nAPI_VERSION = 1\n", "\nAPI_VERSION = 2\n")
    (host / "providers.py").write_text(later)
    program = """
        from voicecall.providers import ProviderKind
        from voicecall.registry import Registry
        registry = Registry()
        assert "alpha" not in {info.id for info in registry.load_all(ProviderKind.TTS)}
        print(registry.failures["voicecall.tts", "alpha"])
    """
    run = subprocess.run(
        [sys.executable, "-c", dedent(program)],
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=False,
    )
    words = (
        "'alpha' of acme-a is written for API version 1, but voicecall has 2: update that package"
    )
    assert words in run.stdout, run.stderr


def test_a_module_without_its_provider(site: Path, install: Install) -> None:
    install("acme-a", "alpha", module="acme_alpha", code="")
    install("acme-b", "bravo", module="acme_bravo", code=MODULE.format(id="brave", more=""))
    words = "of acme-a: .* with this id .*no function voicecall_tts_providers marked with @hook"
    with pytest.raises(PluginError, match=words):
        scan(site).load(TTS, "alpha")
    with pytest.raises(PluginError, match=r"with this id \(it offers tts 'brave'\)$"):
        scan(site).load(TTS, "bravo")


def test_the_order_of_automatic_selection(site: Path, install: Install) -> None:
    install("acme-a", "alpha", module="acme_alpha", more="auto_select_order=50,")
    install("acme-b", "bravo", module="acme_bravo", more="auto_select_order=10,")
    install("acme-c", "charlie", module="acme_charlie", more="auto_select_order=50,")
    assert [info.id for info in scan(site).load_all(TTS)] == ["bravo", "alpha", "charlie"]


def test_extra_modules_need_no_installation() -> None:
    class Plugin:
        @hookimpl
        def voicecall_tts_providers(self) -> list[ProviderInfo]:
            info = ProviderInfo(
                kind=TTS, id="mine", label="Mine", factory=lambda config, context: config
            )
            return [info]

    registry = Registry(entries=[], extra=[("voicecall.tts", "mine", Plugin())])
    assert registry.load(TTS, "mine").label == "Mine"
    assert registry.found("voicecall.tts")[0].source == "extra"


def test_the_installed_packages_load() -> None:
    registry = Registry()
    assert "mock" in registry.ids(ProviderKind.TELEPHONY)
    assert registry.load(ProviderKind.TELEPHONY, "log").id == "mock"
