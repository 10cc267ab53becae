"""Who may call in. A caller id is a filter, not proof of identity."""

from __future__ import annotations

from dataclasses import dataclass

from voicecall.errors import InvalidRequest
from voicecall.model import EndDetail
from voicecall.store import Approval
from voicecall_calls.config import NumberRoute, VoiceCallConfig, normalize_number
from voicecall_calls.engine.addresses import digits_of
from voicecall_calls.pairing import Pairing

__all__ = ["Admission", "admit_inbound", "in_spite_of", "revoke", "route_for"]


@dataclass(frozen=True, slots=True)
class Admission:
    """``refused``: why the caller is not let in. ``code``: the pairing code to tell a caller who
    may ask the owner. Both None: the caller is let in."""

    refused: EndDetail | None = None
    code: str | None = None


_LET_IN = Admission()
_REFUSED = Admission(refused=EndDetail.POLICY)


async def admit_inbound(
    config: VoiceCallConfig, from_number: str | None, pairing: Pairing
) -> Admission:
    """Decide by ``inboundPolicy``. Numbers are equal if their digits are; there is no suffix
    match. An address other than a telephone number matches nothing: its caller can choose it."""
    if config.inbound_policy == "open":
        return _LET_IN
    if config.inbound_policy == "disabled":
        return _REFUSED
    caller = digits_of(from_number)
    if not caller:
        return _REFUSED
    if caller in {digits_of(number) for number in config.allow_from}:
        return _LET_IN
    number = normalize_number(from_number or "")
    # Unlike an operator, a carrier does not write 00 for the plus.
    if config.inbound_policy == "allowlist" or number is None or digits_of(number) != caller:
        return _REFUSED
    if await pairing.approved(number):
        return _LET_IN
    if (code := await pairing.code_for(number)) is not None:
        return Admission(code=code)
    # The owner may have approved the caller in the meantime.
    return _LET_IN if await pairing.approved(number) else _REFUSED


async def revoke(config: VoiceCallConfig, pairing: Pairing, number: str) -> Approval:
    """Refuse a caller from now on. Raises ``InvalidRequest`` for a caller who was neither approved
    nor waiting; the message says what lets them in nevertheless, if anything does."""
    try:
        return await pairing.revoke(number)
    except InvalidRequest as error:
        written = normalize_number(number)
        but = in_spite_of(config, Approval(written, "revoked", "", 0, 0)) if written else None
        if but is None:
            raise
        raise InvalidRequest(f"{error}, but {but}") from error


def in_spite_of(config: VoiceCallConfig, approval: Approval) -> str | None:
    """Why an approved caller is kept out nevertheless, or a revoked one is let in; None if neither
    is the case."""
    policy, approved = config.inbound_policy, approval.status == "approved"
    listed = digits_of(approval.number) in {digits_of(number) for number in config.allow_from}
    if policy == "disabled":
        return "inboundPolicy is disabled and lets nobody in" if approved else None
    if policy == "open":
        return None if approved else "inboundPolicy is open and lets everybody in"
    if listed:
        return None if approved else "allowFrom has the number and lets it in"
    if policy == "allowlist" and approved:
        return "inboundPolicy is allowlist and lets in nobody but allowFrom"
    return None


def route_for(config: VoiceCallConfig, to_number: str | None) -> tuple[str, NumberRoute] | None:
    """The key and route of a dialled number: the exact key, else the one with the same digits."""
    if to_number in config.numbers:
        return to_number, config.numbers[to_number]
    dialled = digits_of(to_number) if config.numbers else ""
    for key, route in config.numbers.items():
        if dialled and digits_of(key) == dialled:
            return key, route
    return None
