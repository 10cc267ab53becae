"""The line of a call, with Twilio's voice and recogniser on it."""

from __future__ import annotations

from collections.abc import Callable

from voicecall_mock.exchange.line import CarrierLine

from .board import TwilioBoard
from .speech import CarrierSpeech
from .twiml import Gather

__all__ = ["TwilioLine"]


class TwilioLine(CarrierLine):
    """``hang_up``: the phone does; ``partial(gather, text)``: speech on its way."""

    native: CarrierSpeech

    def __init__(
        self,
        call_sid: str,
        board: TwilioBoard,
        hang_up: Callable[[], None],
        partial: Callable[[Gather, str], None],
    ) -> None:
        super().__init__(call_sid, board, hang_up)
        self.native = CarrierSpeech(
            board.options,
            heard=self.hear_text,
            keys_heard=self.hear_digits,
            unheard=lambda key: board.ledger.add("digits-unheard", call_sid, digits=key),
            partial=partial,
            changed=self.notify,
        )
