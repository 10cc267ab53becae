"""One provider's session in a call, kept open by its own task."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import anyio

from voicecall.audio.formats import AudioFormat
from voicecall.errors import ProviderError, ProviderTimeout, ProviderUnavailable
from voicecall.tts import SpeechSession
from voicecall_calls.apart import held
from voicecall_calls.conversation.losses import leaves

if TYPE_CHECKING:
    from voicecall_calls.speech.chain import ChainMember

__all__ = ["Seat", "as_provider_error"]

_log = logging.getLogger("voicecall.calls")


def as_provider_error(error: BaseException, provider_id: str) -> ProviderError:
    """``error`` as an error of the provider: of an exception group, the first ``ProviderError``.
    Errors that a provider must not raise are logged."""
    errors = list(leaves(error))
    text = "the speech provider %s raised an error that is not a ProviderError"
    for one in errors:
        if not isinstance(one, ProviderError):
            _log.error(text, provider_id, exc_info=one)
    own = [one for one in errors if isinstance(one, ProviderError)]
    return own[0] if own else ProviderUnavailable(type(errors[0]).__name__, provider=provider_id)


class Seat:
    """A member's session. ``settled``: it has been opened, or is over. ``session``: None unless it
    is open."""

    def __init__(self, member: ChainMember, voice: str | None, audio_format: AudioFormat) -> None:
        self.id = member.id
        self.member = member
        self.session: SpeechSession | None = None
        self._error: ProviderError | None = None
        self.settled = anyio.Event()
        self.over = anyio.Event()
        self._voice = voice
        self._format = audio_format
        self._scope = anyio.CancelScope()

    @property
    def failure(self) -> ProviderError:
        """Why it is over, or not open yet."""
        if self._error is not None:
            return self._error
        if self.over.is_set():
            return ProviderUnavailable("the session ended", provider=self.id)
        return ProviderTimeout("was not ready in time", provider=self.id)

    async def hold(self) -> None:
        """Keep the session open until :meth:`close`, or until it ends by itself."""
        try:
            with self._scope:
                voice = self.member.provider.session(self._voice, self._format)
                async with held(voice, f"the session of the speech provider {self.id}") as session:
                    self.session = session
                    self.settled.set()
                    await anyio.sleep_forever()
        except (Exception, SystemExit) as error:  # noqa: BLE001 (a provider's code)
            self._error = as_provider_error(error, self.id)
        finally:
            self.session = None
            self.settled.set()
            self.over.set()

    def close(self) -> None:
        self._scope.cancel()
