"""Faulty gateway plugins, in a gateway and in every command that loads them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from pydantic import field_validator

from voicecall import hookimpl
from voicecall.configuring import ConfigModel
from voicecall.hosting import LegacyRule, PluginInfo, Service, SetupCheck, SetupProbe

pytestmark = [pytest.mark.integration, pytest.mark.anyio]

COMMANDS = (
    ("plugins", "list"),
    ("config", "check"),
    ("config", "schema"),
    ("setup",),
    ("doctor",),
)
"""Which load the plugins."""


class Odd:
    """A plugin that describes itself in its own way."""

    id = "odd"

    def __init__(self, info: Callable[[], Any]) -> None:
        self._info = info

    @hookimpl
    def voicecall_plugin_info(self) -> Any:
        return self._info()


def described(**fields: Any) -> Callable[[], PluginInfo]:
    return lambda: PluginInfo("odd", "Odd", **fields)


def not_there() -> Any:
    raise ModuleNotFoundError("No module named 'odd_models'")


@pytest.mark.parametrize(
    ("info", "words"),
    [
        (lambda: {"id": "odd"}, "voicecall_plugin_info returns dict, not a PluginInfo"),
        (described(config_model=not_there), "ModuleNotFoundError: No module named 'odd_models'"),
        (described(config_model=dict), "config_model must be a function that returns the pydantic"),
        (described(legacy_rules=not_there), "ModuleNotFoundError: No module named 'odd_models'"),
        (described(legacy_rules=lambda: None), "legacy_rules must be a function that returns a"),
        (described(legacy_rules=lambda: ["a"]), "legacy_rules must be a function that returns a"),
        (described(provider_blocks=["voices"]), "provider_blocks must be a mapping of paths to"),
        (described(provider_blocks={"": "tts"}), "provider_blocks must be a mapping of paths to"),
        (described(api_version="1"), "api_version must be a whole number"),
    ],
)
async def test_a_description_that_is_wrong_is_reported_and_harms_nobody(
    lab: Any, shell: Any, fake_plugin: Any, info: Callable[[], Any], words: str
) -> None:
    told = f"the plugin 'odd' cannot be loaded: {'' if ': ' in words else 'TypeError: '}{words}"
    async with lab.gateway(Odd(info), fake_plugin("plain")).run() as gateway:
        (problem,) = await gateway.wait_started()
        assert problem.startswith(told)
    shell.extra = [("voicecall.gateway", "odd", Odd(info))]
    for command in COMMANDS:
        code, out, err = shell(*command)
        assert (code in (0, 1), told in out + err) == (True, True), command


class Later(Odd):
    """A plugin for contracts that do not exist yet."""

    def __init__(self) -> None:
        super().__init__(described(api_version=99))
        self.used: list[str] = []

    @hookimpl
    def voicecall_commands(self) -> None:
        self.used.append("commands")

    @hookimpl
    def voicecall_services(self) -> Sequence[Service]:
        self.used.append("services")
        return []


async def test_a_plugin_for_other_contracts_is_refused_and_harms_nobody(
    lab: Any, shell: Any, fake_plugin: Any
) -> None:
    plugin = Later()
    told = "the plugin 'odd' is written for API version 99, but voicecall has 1: update voicecall"
    async with lab.gateway(plugin, fake_plugin("plain")).run() as gateway:
        assert await gateway.wait_started() == [told]
    shell.extra = [("voicecall.gateway", "odd", plugin)]
    for command in COMMANDS:
        _, out, err = shell(*command)
        assert told in out + err, command
    assert plugin.used == []


class Leaving:
    """A plugin that raises SystemExit in one of its hooks, as a program does that was made into a
    plugin."""

    id = "leaving"

    def __init__(self, hook: str) -> None:
        self._hook = hook

    def _leave(self, hook: str) -> None:
        if hook == self._hook:
            raise SystemExit(3)

    @hookimpl
    def voicecall_plugin_info(self) -> PluginInfo:
        self._leave("info")
        return PluginInfo(self.id, "Leaving", check_sections=self._check)

    def _check(self, config: Any, context: Any) -> Sequence[str]:
        self._leave("sections")
        return []

    @hookimpl
    def voicecall_services(self) -> Sequence[Service]:
        self._leave("services")
        return []

    @hookimpl
    def voicecall_commands(self) -> None:
        self._leave("commands")

    @hookimpl
    def voicecall_setup_checks(self) -> Sequence[SetupCheck]:
        self._leave("checks")
        return []

    @hookimpl
    def voicecall_setup_probes(self) -> Sequence[SetupProbe]:
        self._leave("probes")
        return []

    @hookimpl
    def voicecall_call_ended(self) -> None:
        self._leave("ended")


@pytest.mark.parametrize(
    ("hook", "problems"),
    [
        ("info", ["the plugin 'leaving' cannot be loaded: SystemExit: 3"]),
        ("services", ["the plugin 'leaving' failed: SystemExit: 3"]),
        ("ended", []),
    ],
)
async def test_a_plugin_that_raises_system_exit_stops_no_gateway(
    lab: Any, fake_plugin: Any, caplog: pytest.LogCaptureFixture, hook: str, problems: list[str]
) -> None:
    async with lab.gateway(Leaving(hook), fake_plugin("plain")).run() as gateway:
        assert await gateway.wait_started() == problems
        gateway.host.observe_end("record")
    assert caplog.text.count("SystemExit: 3") >= 1


@pytest.mark.parametrize(
    ("hook", "command", "told"),
    [
        ("info", "plugins list", "error: the plugin 'leaving' cannot be loaded: SystemExit: 3"),
        ("commands", "plugins list", "the commands of the plugin 'leaving' cannot be added: "),
        ("sections", "config check", "the plugin 'leaving' cannot check the file: SystemExit: 3"),
        ("checks", "setup", "FAIL plugin:leaving: its checks failed: SystemExit: 3"),
        ("probes", "setup --probe", "FAIL plugin:leaving: its probes failed: SystemExit: 3"),
    ],
)
def test_a_plugin_that_raises_system_exit_ends_no_command(
    shell: Any, hook: str, command: str, told: str
) -> None:
    shell.extra = [("voicecall.gateway", "leaving", Leaving(hook))]
    code, out, err = shell(*command.split())
    assert (code in (0, 1), told in out + err) == (True, True)


class Answering:
    """A plugin all of whose hooks return what the test says."""

    id = "answering"

    def __init__(self, answer: Any) -> None:
        self._answer = answer

    @hookimpl
    def voicecall_plugin_info(self) -> PluginInfo:
        return PluginInfo(self.id, "Answering", check_sections=lambda config, context: self._answer)

    @hookimpl
    def voicecall_services(self) -> Any:
        return self._answer

    @hookimpl
    def voicecall_setup_checks(self) -> Any:
        return self._answer

    @hookimpl
    def voicecall_setup_probes(self) -> Any:
        return self._answer


class Probe:
    async def run(self) -> Any:
        return ["the number is not ours"]


async def test_a_plugin_that_returns_no_services_is_told_what_it_returned(lab: Any) -> None:
    async with lab.gateway(Answering(None)).run() as gateway:
        (problem,) = await gateway.wait_started()
    words = "TypeError: voicecall_services returns NoneType, not a sequence of Service"
    assert problem == f"the plugin 'answering' failed: {words}"


@pytest.mark.parametrize(
    ("answer", "command", "told"),
    [
        (None, "setup", "checks failed: TypeError: voicecall_setup_checks returns NoneType, not a"),
        (["fine"], "setup", "checks failed: TypeError: voicecall_setup_checks returns list, not a"),
        (None, "setup --probe", "TypeError: voicecall_setup_probes returns NoneType, not a"),
        ([Probe()], "setup --probe", "TypeError: a probe must return a sequence"),
        ("a text", "config check", "check the file: TypeError: it returns str, not a sequence of"),
        (5, "config check", "check the file: TypeError: it returns int, not a sequence of"),
    ],
)
def test_a_plugin_that_returns_something_else_is_told_what(
    shell: Any, answer: Any, command: str, told: str
) -> None:
    shell.extra = [("voicecall.gateway", "answering", Answering(answer))]
    code, out, _ = shell(*command.split())
    assert (code, told in out) == (1, True)


async def test_a_rule_that_fails_ignores_its_old_key_and_harms_nobody(
    lab: Any, shell: Any, caplog: pytest.LogCaptureFixture
) -> None:
    rules = [LegacyRule("kind", "sort", convert={"a": 1}.__getitem__)]
    odd = Odd(described(legacy_rules=lambda: rules))
    tree = {"plugins": {"entries": {"odd": {"config": {"kind": "b"}}}}}
    path = "plugins.entries.odd.config.kind"
    told = f"{path} is ignored (KeyError: 'b'): remove it"
    async with lab.gateway(odd, tree=tree).run() as gateway:
        assert await gateway.wait_started() == []
    assert told in caplog.text
    shell.extra = [("voicecall.gateway", "odd", odd)]
    shell.config.write_text(json.dumps(tree))
    for command, code in (("plugins list", 0), ("config check", 0), ("doctor", 1)):
        got, out, _ = shell(*command.split())
        assert (got, told in out) == (code, command != "plugins list"), command


class Failing(ConfigModel):
    """A configuration model that fails on validation and has no schema."""

    sort: Any = None
    made: Callable[[], None] = print

    @field_validator("sort")
    @classmethod
    def _known(cls, value: Any) -> Any:
        return {"a": 1}[value]


@pytest.mark.parametrize("rules", [(), (LegacyRule("kind", "sort"),)])
async def test_a_model_that_fails_is_its_plugins_fault_and_no_one_elses(
    lab: Any, shell: Any, fake_plugin: Any, rules: tuple[LegacyRule, ...]
) -> None:
    odd = Odd(described(config_model=lambda: Failing, legacy_rules=lambda: rules))
    entries = {"odd": {"config": {"sort": "b"}}}
    told = "the configuration model of the plugin 'odd' fails with KeyError"
    plain = fake_plugin("plain")
    async with lab.gateway(odd, plain, tree={"plugins": {"entries": entries}}).run() as gateway:
        assert await gateway.wait_started() == [told]
    shell.extra = [("voicecall.gateway", "odd", odd)]
    shell.config.write_text(json.dumps({"plugins": {"entries": entries}}))
    for command, code in (("plugins list", 0), ("config check", 1), ("doctor", 1)):
        got, out, _ = shell(*command.split())
        assert (got, told in out) == (code, True), command
    code, _, err = shell("config", "schema")
    assert (code, "warning: the plugin 'odd': PydanticInvalidForJsonSchema: " in err) == (0, True)
