"""Creates the library's model objects from a name, an address and a key."""

from __future__ import annotations

import inspect
import re
from collections.abc import Collection
from typing import Any

from pydantic_ai.models import Model, infer_model
from pydantic_ai.providers import Provider, infer_provider_class

from voicecall.errors import ConfigError
from voicecall_agents.llm.config import BACKEND_PATH, LlmConfig

__all__ = ["configured_model", "make_model", "model_problems", "split_name"]

_DEFAULT_PROVIDER = "openai"
_MODEL_KINDS = {"openai": "openai-chat"}
"""Servers compatible with OpenAI's speak Chat Completions; ``openai-responses:…`` selects the other
protocol."""
_MODEL_PATH = f"{BACKEND_PATH}.model"
_KEY_PATH = f"{BACKEND_PATH}.apiKey"
_PLACEHOLDER = re.compile(r"\$\{(?:([A-Z][A-Z0-9_]*)|[^{}]*)\}")
_UNAVAILABLE = "${SECRET_UNAVAILABLE}"
"""What the gateway leaves in place of a reference to a secret that it cannot read."""
_VARIABLE = re.compile(r"[A-Z][A-Z0-9_]+_(?:API_)?(?:KEY|TOKEN)")


def split_name(name: str, usual: str = _DEFAULT_PROVIDER) -> tuple[str, str]:
    """Provider and model of ``provider:model`` or ``provider/model``; ``usual`` is the provider if
    the name has none."""
    parts = [part.strip() for part in re.split("[:/]", name, maxsplit=1)]
    if len(parts) == 1:
        return usual, parts[0]
    return parts[0].lower(), parts[1]


def make_model(name: str, *, base_url: str | None = None, api_key: str | None = None) -> Model[Any]:
    """The model ``name``. Raises :exc:`ConfigError` for a name without a model, for an unknown
    provider, and if the provider's client is not installed or its key is missing."""
    provider_id, model = split_name(name)
    if not (provider_id and model):
        raise ConfigError(f"{name!r} is not the name of a model", path=_MODEL_PATH)

    def provider(_: str) -> Provider[Any]:
        return _make_provider(provider_id, base_url, api_key)

    try:
        return infer_model(f"{_MODEL_KINDS.get(provider_id, provider_id)}:{model}", provider)
    except ConfigError:
        raise
    except Exception as error:  # noqa: BLE001 (clients of vendors raise anything)
        raise _config_error(provider_id, error) from None


def configured_model(config: LlmConfig, name: str | None = None) -> Model[Any]:
    """The configured model, or the model ``name``. A name without a provider means the configured
    provider, and address and key apply only to that provider's models. Raises what
    :func:`make_model` raises."""
    provider_id, model = split_name(name or config.model, split_name(config.model)[0])
    wanted = f"{provider_id}:{model}"
    same = _same_provider(config, wanted)
    if same and config.api_key is not None:
        unset = _PLACEHOLDER.fullmatch(config.api_key)
        if config.api_key == _UNAVAILABLE:
            raise ConfigError("refers to a secret that cannot be read", path=_KEY_PATH)
        if unset is not None:
            text = "holds a variable without a value"
            raise ConfigError(text, path=_KEY_PATH, env=unset.group(1))
        if not config.api_key.strip():
            text = f"is blank; remove it to use the environment variable of {provider_id}"
            raise ConfigError(text, path=_KEY_PATH)
    return make_model(
        wanted,
        base_url=config.base_url if same else None,
        api_key=config.api_key if same else None,
    )


def model_problems(config: LlmConfig, others: Collection[str] = ()) -> list[str]:
    """Why the configured model, or one of ``others``, cannot be used. Nothing is contacted."""
    problems = []
    for name in dict.fromkeys((config.model, *others)):
        try:
            configured_model(config, name)
        except ConfigError as error:
            text = str(error)
            if name != config.model and error.path == _MODEL_PATH:
                # Another key names this model.
                text = f"the model {name!r}{text.removeprefix(_MODEL_PATH)}"
            if error.env is not None and not _same_provider(config, name):
                text = f"the model {name!r} needs a key: set {error.env}"
            problems.append(text)
    return problems


def _same_provider(config: LlmConfig, name: str) -> bool:
    own = split_name(config.model)[0]
    return split_name(name, own)[0] == own


def _make_provider(provider_id: str, base_url: str | None, api_key: str | None) -> Provider[Any]:
    made_by = infer_provider_class(provider_id)
    given = {"base_url": base_url, "api_key": api_key}
    wanted = {key: value for key, value in given.items() if value is not None}
    known = inspect.signature(made_by).parameters
    for key in wanted:
        if key not in known:
            field = {"base_url": "baseUrl", "api_key": "apiKey"}[key]
            text = f"is not used by {provider_id}; remove it"
            raise ConfigError(text, path=f"{BACKEND_PATH}.{field}")
    return made_by(**wanted)


def _config_error(provider_id: str, error: Exception) -> ConfigError:
    text = str(error)
    if isinstance(error, ImportError):
        return ConfigError(
            f"the client of {provider_id!r} is not installed: "
            f'pip install "pydantic-ai-slim[{provider_id}]"',
            path=_MODEL_PATH,
        )
    variable = _VARIABLE.search(text)
    if variable is not None:
        return ConfigError(f"is required by {provider_id}", path=_KEY_PATH, env=variable.group())
    return ConfigError(text, path=_MODEL_PATH)
