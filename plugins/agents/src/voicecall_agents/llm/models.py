"""Making the library's model objects from a name, an address and a key."""

from __future__ import annotations

import inspect
import re
from typing import Any

from pydantic_ai.exceptions import UserError
from pydantic_ai.models import Model, infer_model
from pydantic_ai.providers import Provider, infer_provider_class

from voicecall.errors import ConfigError
from voicecall_agents.llm.config import BACKEND_PATH

__all__ = ["make_model", "split_name"]

_DEFAULT_PROVIDER = "openai"
_MODEL_KINDS = {"openai": "openai-chat"}
"""Chat Completions is what servers compatible with OpenAI's speak; ``openai-responses:…`` asks
for the other protocol."""
_VARIABLE = re.compile(r"[A-Z][A-Z0-9_]+_(?:API_)?(?:KEY|TOKEN)")


def split_name(name: str) -> tuple[str, str]:
    """Provider and model of ``provider:model`` or ``provider/model``."""
    parts = re.split("[:/]", name.strip(), maxsplit=1)
    if len(parts) == 1:
        return _DEFAULT_PROVIDER, parts[0]
    return parts[0].lower(), parts[1]


def make_model(name: str, *, base_url: str | None = None, api_key: str | None = None) -> Model[Any]:
    """The model ``name``. Raises :exc:`ConfigError` for an unknown provider, one whose client is
    not installed, and one without a key."""
    provider_id, model = split_name(name)

    def provider(_: str) -> Provider[Any]:
        return _make_provider(provider_id, base_url, api_key)

    try:
        return infer_model(f"{_MODEL_KINDS.get(provider_id, provider_id)}:{model}", provider)
    except (UserError, ValueError, ImportError) as error:
        raise _config_error(provider_id, error) from None


def _make_provider(provider_id: str, base_url: str | None, api_key: str | None) -> Provider[Any]:
    made_by = infer_provider_class(provider_id)
    given = {"base_url": base_url, "api_key": api_key}
    wanted = {key: value for key, value in given.items() if value is not None}
    known = inspect.signature(made_by).parameters
    for key in wanted:
        if key not in known:
            field = {"base_url": "baseUrl", "api_key": "apiKey"}[key]
            raise ConfigError(f"{provider_id} takes none", path=f"{BACKEND_PATH}.{field}")
    return made_by(**wanted)


def _config_error(provider_id: str, error: Exception) -> ConfigError:
    text = str(error)
    if isinstance(error, ImportError):
        return ConfigError(
            f"the client of {provider_id!r} is not installed: "
            f'pip install "pydantic-ai-slim[{provider_id}]"',
            path=f"{BACKEND_PATH}.model",
        )
    variable = _VARIABLE.search(text)
    if variable is not None:
        return ConfigError(
            f"is required by {provider_id}", path=f"{BACKEND_PATH}.apiKey", env=variable.group()
        )
    return ConfigError(text, path=f"{BACKEND_PATH}.model")
