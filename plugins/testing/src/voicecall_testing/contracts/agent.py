"""Conformance of an agent backend (:mod:`voicecall.agent`)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import aclosing
from typing import Any, cast

import anyio
import pytest

from voicecall.agent import AgentBackend, AgentEvent, AgentTurn, TextDelta
from voicecall.errors import ProviderError

from .patience import within

__all__ = ["AgentContract", "AgentFailureContract"]

_PATIENCE_S = 60.0


def _turn(text: str = "Good morning.", **more: Any) -> AgentTurn:
    values = {"turn_id": "t1", "call_id": "c1", "session_key": "s1", "agent_id": "main", **more}
    return AgentTurn(text=text, **values)


async def _events(backend: AgentBackend, turn: AgentTurn) -> list[AgentEvent]:
    with within(_PATIENCE_S, "the end of an answer"):
        return [event async for event in backend.reply(turn)]


async def _said(backend: AgentBackend, turn: AgentTurn) -> str:
    events = await _events(backend, turn)
    return "".join(event.text for event in events if isinstance(event, TextDelta))


class AgentContract(ABC):
    """Inherit, and override the fixtures ``backend`` and ``slow`` and the method ``remembered``.

    The test module marks itself with ``pytest.mark.contract`` and ``pytest.mark.anyio``.
    """

    @pytest.fixture
    @abstractmethod
    def backend(self) -> AgentBackend:
        """A backend that answers every turn with at least two words, in several pieces. Its
        lifespan is entered by the suite."""

    @pytest.fixture
    @abstractmethod
    def slow(self) -> AgentBackend:
        """The same, but every answer stalls after its first words."""

    @abstractmethod
    async def remembered(
        self, backend: AgentBackend, session_key: str
    ) -> Sequence[tuple[str, str]]:
        """The turns of a session as the backend remembers them, as pairs of what the caller said
        and the answer."""

    async def _interrupt(self, backend: AgentBackend, turn: AgentTurn) -> str:
        """Cancel an answer in the middle; returns the text that came before."""
        came: list[str] = []

        async def listen() -> None:
            async for event in backend.reply(turn):
                if isinstance(event, TextDelta):
                    came.append(event.text)
                    begun.set()

        begun = anyio.Event()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(listen)
            with within(_PATIENCE_S, "the first words of an answer"):
                await begun.wait()
            tasks.cancel_scope.cancel()
        return "".join(came)

    async def test_the_answer_is_streamed(self, backend: AgentBackend) -> None:
        async with backend.lifespan():
            events = await _events(backend, _turn())
        deltas = [event for event in events if isinstance(event, TextDelta)]
        assert len(deltas) > 1
        assert all(delta.text for delta in deltas)

    async def test_a_turn_and_its_answer_are_remembered(self, backend: AgentBackend) -> None:
        async with backend.lifespan():
            one = await _said(backend, _turn("First."))
            two = await _said(backend, _turn("Second.", turn_id="t2"))
            known = await self.remembered(backend, "s1")
        assert list(known) == [("First.", one), ("Second.", two)]

    async def test_cancelling_the_reader_stops_the_run(self, slow: AgentBackend) -> None:
        async with slow.lifespan():
            assert await self._interrupt(slow, _turn())
            # The session is free again.
            assert await self._interrupt(slow, _turn(turn_id="t2"))

    async def test_an_answer_may_be_closed_in_the_middle(self, slow: AgentBackend) -> None:
        async with slow.lifespan():
            reply = cast(Any, slow.reply(_turn()))
            async with aclosing(reply):
                assert await anext(reply)
            assert await self._interrupt(slow, _turn(turn_id="t2"))

    async def test_only_what_was_heard_is_remembered(self, slow: AgentBackend) -> None:
        turn = _turn("What is it?")
        async with slow.lifespan():
            heard = (await self._interrupt(slow, turn)).split()[0]
            await slow.settle(turn, heard)
            known = await self.remembered(slow, "s1")
        assert list(known) == [("What is it?", heard)]

    async def test_nothing_may_have_been_heard(self, slow: AgentBackend) -> None:
        turn = _turn("What is it?")
        async with slow.lifespan():
            await self._interrupt(slow, turn)
            await slow.settle(turn, "")
            known = await self.remembered(slow, "s1")
        assert list(known) == [("What is it?", "")]

    async def test_a_whole_answer_may_be_settled_too(self, backend: AgentBackend) -> None:
        async with backend.lifespan():
            said = await _said(backend, _turn())
            await backend.settle(_turn(), said.split()[0])
            await backend.settle(_turn(turn_id="never"), "nothing")
            known = await self.remembered(backend, "s1")
        assert [answer for _, answer in known] == [said.split()[0]]

    async def test_a_speculative_turn_leaves_no_history(self, backend: AgentBackend) -> None:
        async with backend.lifespan():
            assert await _said(backend, _turn(speculative=True))
            assert list(await self.remembered(backend, "s1")) == []
            said = await _said(backend, _turn())
            assert [answer for _, answer in await self.remembered(backend, "s1")] == [said]

    async def test_a_turn_that_comes_again_is_one_turn(self, backend: AgentBackend) -> None:
        async with backend.lifespan():
            await _said(backend, _turn())
            await _said(backend, _turn())
            assert len(await self.remembered(backend, "s1")) == 1

    async def test_what_is_recalled_is_of_the_session_and_of_the_sources_asked_for(
        self, backend: AgentBackend
    ) -> None:
        async with backend.lifespan():
            for number in range(3):
                await _said(backend, _turn("Tell me about trains.", turn_id=f"t{number}"))
            question = _turn("Tell me about trains.", turn_id="t9")
            for sources in (("memory",), ("sessions",), ("memory", "sessions")):
                found = await backend.recall(question, sources, 2)
                assert len(found) <= 2
                assert {one.source for one in found} <= set(sources)
                assert all(one.text for one in found)
            stranger = _turn("Tell me about trains.", session_key="s2")
            assert list(await backend.recall(stranger, ("sessions",), 2)) == []

    async def test_sessions_do_not_mix(self, backend: AgentBackend) -> None:
        async with backend.lifespan():
            async with anyio.create_task_group() as tasks:
                for number in range(3):
                    turn = _turn(f"Number {number}.", session_key=f"s{number}", turn_id="t")
                    tasks.start_soon(_said, backend, turn)
            for number in range(3):
                known = await self.remembered(backend, f"s{number}")
                assert [text for text, _ in known] == [f"Number {number}."]

    async def test_turns_of_one_session_may_overlap(self, backend: AgentBackend) -> None:
        async with backend.lifespan():
            async with anyio.create_task_group() as tasks:
                for number in range(3):
                    tasks.start_soon(_said, backend, _turn(turn_id=f"t{number}"))
            known = await self.remembered(backend, "s1")
        assert len(known) == 3
        assert all(answer for _, answer in known)

    async def test_a_session_can_be_forgotten(self, backend: AgentBackend) -> None:
        async with backend.lifespan():
            await _said(backend, _turn())
            await _said(backend, _turn(session_key="other"))
            await backend.forget("s1")
            await backend.forget("nobody")
            assert list(await self.remembered(backend, "s1")) == []
            assert len(await self.remembered(backend, "other")) == 1


class AgentFailureContract(ABC):
    """For backends that can fail. Override the fixture ``failing``."""

    @pytest.fixture
    @abstractmethod
    def failing(self) -> AgentBackend:
        """A backend that fails on every turn. Its lifespan is entered by the suite."""

    async def test_errors_are_provider_errors(self, failing: AgentBackend) -> None:
        async with failing.lifespan():
            for number in range(2):
                with pytest.raises(ProviderError) as raised:
                    await _said(failing, _turn(turn_id=f"t{number}"))
                assert raised.value.provider
