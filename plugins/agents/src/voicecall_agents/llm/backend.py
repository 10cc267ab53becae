"""The backend: one run of the model per turn, and one run at a time per session."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from typing import Any
from weakref import WeakValueDictionary

import anyio
from anyio.abc import TaskGroup
from pydantic_ai import Agent
from pydantic_ai.agent import AgentRunEvents
from pydantic_ai.exceptions import (
    AgentRunError,
    ModelContextWindowExceededError,
    UnexpectedModelBehavior,
    UserError,
)
from pydantic_ai.messages import ModelMessage
from pydantic_ai.models import Model
from pydantic_ai.settings import ModelSettings, ThinkingLevel
from pydantic_ai.usage import UsageLimits

from voicecall.agent import AgentBackend, AgentEvent, AgentTurn, Recollection
from voicecall.errors import ProviderError, ProviderUnavailable, StoreError
from voicecall.providers import ProviderContext
from voicecall_agents.history import HistoryTurn, SqliteHistory
from voicecall_agents.llm.config import BACKEND_ID, BACKEND_PATH, LlmConfig
from voicecall_agents.llm.failures import as_provider_error, retry_delay
from voicecall_agents.llm.models import configured_model
from voicecall_agents.llm.narration import Narration
from voicecall_agents.llm.prompts import first_words, instructions, kept_words
from voicecall_agents.llm.recalling import exchange, related
from voicecall_agents.llm.remembering import dump, heard_of, parse, remembered, with_results
from voicecall_agents.llm.tools import make_toolsets

__all__ = ["PydanticAgent"]

_log = logging.getLogger("voicecall.agents")
_MODEL_REQUESTS = 12
"""The most requests to the model in one turn: the caller is waiting."""
_THINKING: Mapping[str, ThinkingLevel] = {
    "off": False,
    "minimal": "minimal",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "xhigh",
    "max": "max",
    "adaptive": True,
    "ultra": "max",
}
"""The library's names for a turn's thinking level; ``True`` leaves the effort to the model."""
_CLOSING_S = 5.0
_EVENTS_AHEAD = 1000


class _Run:
    """One answer under way. A task of the backend produces it, so that its reader may stop at any
    moment and in any task."""

    def __init__(self, turn: AgentTurn) -> None:
        self.turn = turn
        self.scope = anyio.CancelScope()
        self.over = anyio.Event()
        self.failure: ProviderError | None = None
        self.messages: Sequence[ModelMessage] = ()
        self.narration = Narration(speculative=turn.speculative)
        self.output, self.input = anyio.create_memory_object_stream[AgentEvent](_EVENTS_AHEAD)

    async def stopped(self) -> None:
        """Stop the run and wait until it is over."""
        self.scope.cancel()
        await self.over.wait()


class PydanticAgent(AgentBackend):
    """The agent; use it inside its lifespan. Raises :exc:`ConfigError` for a model that cannot be
    created or a tool that cannot be loaded."""

    def __init__(self, config: LlmConfig, context: ProviderContext) -> None:
        self.config = config
        self._history = SqliteHistory(
            context.state_dir / "agents" / "history.db",
            context.seam,
            keep_days=config.history_days,
        )
        self._models = {config.model: configured_model(config)}
        self._agent: Agent[AgentTurn, str] = Agent(
            self._models[config.model],
            name=BACKEND_ID,
            deps_type=AgentTurn,
            toolsets=make_toolsets(config),
            model_settings=_settings(config),
        )
        self._runs: dict[tuple[str, str], _Run] = {}
        self._sessions: WeakValueDictionary[str, anyio.Lock] = WeakValueDictionary()
        self._resources = AsyncExitStack()
        self._tasks: TaskGroup | None = None

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """Open the history and connect the tools."""
        async with AsyncExitStack() as self._resources:
            await self._resources.enter_async_context(self._history.open())
            await self._resources.enter_async_context(self._agent)
            async with anyio.create_task_group() as self._tasks:
                try:
                    yield
                finally:
                    tasks, self._tasks = self._tasks, None
                    tasks.cancel_scope.cancel()

    # --- the contract -------------------------------------------------------------------------

    async def reply(self, turn: AgentTurn) -> AsyncIterator[AgentEvent]:
        """See :class:`voicecall.agent.AgentBackend`. A speculative turn ends when the model calls a
        tool."""
        if self._tasks is None:
            raise ProviderUnavailable("the agent is not running", provider=BACKEND_ID)
        run = _Run(turn)
        self._runs[turn.session_key, turn.turn_id] = run
        self._tasks.start_soon(self._work, run, name=f"answer {turn.turn_id}")
        try:
            async for event in run.input:
                yield event
            if run.failure is not None:
                raise run.failure
        finally:
            run.scope.cancel()
            run.input.close()

    async def settle(self, turn: AgentTurn, heard_text: str) -> None:
        """See :class:`voicecall.agent.AgentBackend`. A run still under way is stopped."""
        run = self._runs.get((turn.session_key, turn.turn_id))
        if run is not None:
            await run.stopped()
        async with self._session(turn.session_key):
            for known in await self._load(turn):
                if known.turn_id == turn.turn_id:
                    messages = heard_of(
                        _parsed(known), heard_text, spoken_contract=self.config.spoken_contract
                    )
                    await self._put(turn, messages)

    async def recall(
        self, turn: AgentTurn, sources: Collection[str], limit: int
    ) -> Sequence[Recollection]:
        """See :class:`voicecall.agent.AgentBackend`. The source ``memory`` is not supported."""
        if "sessions" not in sources:
            return ()
        known = [exchange(_parsed(one)) for one in await self._load(turn)]
        found = related(turn.text, [text for text in known if text], limit)
        return [Recollection("sessions", text) for text in found]

    async def forget(self, session_key: str) -> None:
        """See :class:`voicecall.agent.AgentBackend`. Raises :exc:`StoreError`."""
        async with self._session(session_key):
            await self._history.forget(session_key)

    # --- a run --------------------------------------------------------------------------------

    def _session(self, key: str) -> anyio.Lock:
        """The lock for reading and writing a session's history."""
        return self._sessions.setdefault(key, anyio.Lock())

    async def _work(self, run: _Run) -> None:
        key = run.turn.session_key, run.turn.turn_id
        try:
            with run.scope:
                # A speculative run writes nothing, and must not block the real turn.
                guess = run.turn.speculative
                async with nullcontext() if guess else self._session(run.turn.session_key):
                    await self._answer(run)
        except ProviderError as error:
            run.failure = error
        except Exception as error:  # noqa: BLE001 (told to whoever reads the answer)
            _log.exception("the answer failed")
            run.failure = as_provider_error(error, self._silence_s)
        finally:
            run.output.close()
            run.over.set()
            if self._runs.get(key) is run:
                del self._runs[key]

    async def _answer(self, run: _Run) -> None:
        turn = run.turn
        known = await self._load(turn)
        before = [_parsed(one) for one in known if one.turn_id != turn.turn_id]
        # What the caller said is kept if the answer was interrupted before it began, but not if the
        # answer failed: the caller is then asked to say it again.
        worth_keeping = True
        try:
            await self._ask_anyone(run, before)
        except ProviderError:
            worth_keeping = run.narration.began
            raise
        finally:
            if worth_keeping and not turn.speculative:
                with anyio.CancelScope(shield=True):
                    await self._put(turn, remembered(run.messages, kept_words(turn)))

    async def _ask_anyone(self, run: _Run, before: list[list[ModelMessage]]) -> None:
        """Ask the model and, if it fails before it has produced anything, the fallback models.
        Raises :exc:`ProviderError`."""
        turn = run.turn
        names = list(dict.fromkeys((turn.model or self.config.model, *turn.fallback_models)))
        for name in names:
            try:
                await self._ask_patiently(run, before, name)
                return
            except Exception as error:
                failure = as_provider_error(error, self._silence_s)
                if run.narration.began or name == names[-1]:
                    raise failure from error
                _log.warning("%s; trying another model", failure)

    async def _ask_patiently(self, run: _Run, before: list[list[ModelMessage]], name: str) -> None:
        """Ask, and once more after a temporary failure."""
        model = await self._model(name)
        try:
            await self._ask_within_context(run, before, model)
        except AgentRunError as error:
            wait = None if run.narration.began else retry_delay(error)
            if wait is None:
                raise
            _log.info("asking the model again after %g s", wait)
            await anyio.sleep(wait)
            await self._ask_within_context(run, before, model)

    async def _ask_within_context(
        self, run: _Run, before: list[list[ModelMessage]], model: Model[Any]
    ) -> None:
        """Ask with the turns ``before``. If they exceed the model's context, ask with their later
        half, and then without them: a long history must not silence a session."""
        for count in (len(before), len(before) // 2, 0):
            try:
                messages = [message for one in before[len(before) - count :] for message in one]
                await self._ask(run, messages, model)
                return
            except ModelContextWindowExceededError:
                if run.narration.began or not count:
                    raise
                _log.warning(
                    "%d turns of history exceed the context of the model; lower %s.maxHistoryTurns",
                    count,
                    BACKEND_PATH,
                )

    async def _ask(self, run: _Run, before: list[ModelMessage], model: Model[Any]) -> None:
        # A new one for each attempt: nothing of a failed request counts, not even that it wanted to
        # end the call.
        narration = run.narration = Narration(speculative=run.turn.speculative)
        async with self._events(run, before, model) as events:
            try:
                async for event in events:
                    for ours in narration.events(event):
                        await run.output.send(ours)
                    if narration.over:
                        break
            except UnexpectedModelBehavior:
                # A model may end the call and say nothing more; the library treats that as an
                # error.
                if narration.ending is None:
                    raise
            for ours in narration.finish():
                await run.output.send(ours)

    @asynccontextmanager
    async def _events(
        self, run: _Run, before: list[ModelMessage], model: Model[Any]
    ) -> AsyncIterator[AgentRunEvents[str]]:
        """The library's run. However it ends, ``run.messages`` is set to its messages."""
        stream = self._agent.run_stream_events(
            first_words(run.turn),
            message_history=before,
            model=model,
            instructions=instructions(self.config, run.turn),
            deps=run.turn,
            model_settings=_wishes(run.turn),
            usage_limits=UsageLimits(request_limit=_MODEL_REQUESTS),
        )
        events = await stream.__aenter__()
        try:
            yield events
        finally:
            # Not with the library's context manager, whose exit is not shielded from cancellation.
            with anyio.move_on_after(_CLOSING_S, shield=True):
                await events.aclose()
            try:
                run.messages = with_results(events.new_messages(), run.narration.results())
            except UserError:
                _log.debug("the run was stopped before it began")

    async def _model(self, name: str) -> Model[Any]:
        """The configured model, or another one that a call's configuration names. Raises
        :exc:`ConfigError`."""
        known = self._models.get(name)
        if known is None:
            known = configured_model(self.config, name)
            await self._resources.enter_async_context(known)
            self._models[name] = known
        return known

    @property
    def _silence_s(self) -> float:
        return self.config.timeout_ms / 1000

    # --- history ------------------------------------------------------------------------------

    async def _load(self, turn: AgentTurn) -> list[HistoryTurn]:
        """The history; empty if it cannot be read, so that the caller still gets an answer."""
        try:
            return await self._history.load(turn.session_key, self.config.max_history_turns)
        except StoreError as error:
            _log.warning("call %s: the history cannot be read: %s", turn.call_id, error)
            return []

    async def _put(self, turn: AgentTurn, messages: list[ModelMessage]) -> None:
        try:
            stored = HistoryTurn(turn.turn_id, dump(messages))
            await self._history.put(turn.session_key, stored, self.config.max_history_turns)
        except StoreError as error:
            _log.warning("call %s: the history cannot be written: %s", turn.call_id, error)
        except ValueError:  # a tool gave something that has no JSON
            _log.exception("call %s: the history cannot be written", turn.call_id)


def _parsed(turn: HistoryTurn) -> list[ModelMessage]:
    """The messages of a turn; none if another version wrote it in a different format."""
    try:
        return parse(turn.messages)
    except ValueError:
        _log.warning("turn %s of the history cannot be read", turn.turn_id)
        return []


def _settings(config: LlmConfig) -> ModelSettings:
    seconds = config.timeout_ms / 1000
    # No retries by the library: the backend retries itself, within what a caller can wait.
    settings = ModelSettings(timeout=seconds, first_event_timeout=seconds, max_retries=0)
    if config.temperature is not None:
        settings["temperature"] = config.temperature
    if config.max_tokens is not None:
        settings["max_tokens"] = config.max_tokens
    return settings


def _wishes(turn: AgentTurn) -> ModelSettings | None:
    """The model settings that a turn asks for, beyond the backend's own."""
    settings = ModelSettings()
    if turn.thinking is not None:
        settings["thinking"] = _THINKING[turn.thinking]
    if turn.fast is not None:
        settings["service_tier"] = "priority" if turn.fast else "default"
    return settings or None
