"""A question from outside (``continue``), which the caller's next words or keys answer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import anyio

from voicecall.errors import CallNotReady

__all__ = ["WAITING", "OpenQuestion"]

WAITING = "Already waiting for transcript"
_REPEATS = 2
"""How often an interrupted question is repeated: what interrupts it again may be its own echo."""


@dataclass(slots=True)
class _Answer:
    due: bool = False
    repeats: int = 0
    known: anyio.Event = field(default_factory=anyio.Event)
    text: str | None = None
    problem: str | None = None

    async def wait(self, timeout_s: float) -> str:
        """What the caller says or presses. Raises :exc:`~voicecall.errors.CallNotReady` if nothing
        comes."""
        with anyio.move_on_after(timeout_s):
            await self.known.wait()
        if self.text is not None:
            return self.text
        waited = f"Timed out waiting for transcript after {round(timeout_s * 1000)}ms"
        raise CallNotReady(self.problem or waited)


class OpenQuestion:
    """The question from outside that is open, at most one at a time."""

    def __init__(self) -> None:
        self.prompt = ""
        """The prompt of the question that was opened last."""
        self._answer: _Answer | None = None

    @property
    def waits(self) -> bool:
        """A question is open."""
        return self._answer is not None

    @contextmanager
    def asked(self, prompt: str) -> Iterator[_Answer]:
        """Open a question: while inside, what the caller says after :meth:`begins` is the answer to
        ``prompt``, and what comes before is ignored. Raises
        :exc:`~voicecall.errors.CallNotReady` if another question is open."""
        if self._answer is not None:
            raise CallNotReady(WAITING)
        self.prompt = prompt
        self._answer = answer = _Answer()
        try:
            yield answer
        finally:
            if self._answer is answer:
                self._answer = None

    def withdraw(self) -> None:
        """The prompt cannot be spoken: what the caller says is not an answer."""
        self._answer = None

    @property
    def unanswered(self) -> bool:
        """The prompt is being or was spoken, and there is no answer yet."""
        answer = self._answer
        return answer is not None and answer.due and not answer.known.is_set()

    def again(self) -> bool:
        """Whether to speak the prompt once more, which counts; at most twice."""
        answer = self._answer
        if answer is None or not self.unanswered or answer.repeats == _REPEATS:
            return False
        answer.repeats += 1
        return True

    def begins(self) -> None:
        """The prompt begins: what the caller says from now on is the answer."""
        if self._answer is not None:
            self._answer.due = True

    def answered(self, text: str) -> bool:
        """Take what the caller said or pressed; False if no question is open. What comes before
        the prompt is taken, but is not an answer."""
        if self._answer is None:
            return False
        if self._answer.due:
            self._answer.text = text
            self._answer.known.set()
        return True

    def fail(self, problem: str) -> None:
        """There will be no answer."""
        if self._answer is not None:
            self._answer.problem = problem
            self._answer.known.set()
