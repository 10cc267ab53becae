"""Gateway plugins that are wrong, in a gateway and in every command that looks at them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from voicecall import hookimpl
from voicecall.hosting import PluginInfo

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
