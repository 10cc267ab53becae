"""The pairing policy: an unknown caller is told a code, which the owner approves.

The code identifies the caller; it is not a password. An approved caller is let in from the next
call on, until the approval is revoked.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import anyio

from voicecall.coordinator import Coordinator
from voicecall.errors import InvalidRequest
from voicecall.seam import Seam
from voicecall.store import Approval, CallStore, Commit
from voicecall_calls.config import normalize_number

__all__ = ["CODE_LIFE_MS", "Pairing", "approval_json", "decided_json"]

CODE_LIFE_MS = 3_600_000
_DIGITS = 6
_NEW_PER_MINUTE = 6


def approval_json(approval: Approval) -> dict[str, Any]:
    """An approval as RPC shows it to administrators."""
    return {
        "number": approval.number,
        "status": approval.status,
        "code": approval.code if approval.status == "pending" else None,
        "at": approval.at,
        "expiresAt": approval.expires_at if approval.status == "pending" else None,
    }


def decided_json(approval: Approval, but: str | None) -> dict[str, Any]:
    """The result of a decision; ``but`` says why it has no effect."""
    return {"caller": approval_json(approval), **({"but": but} if but is not None else {})}


class Pairing:
    def __init__(self, store: CallStore, coordinator: Coordinator, seam: Seam) -> None:
        self._store = store
        self._coordinator = coordinator
        self._seam = seam
        self._changing = anyio.Lock()
        """Serialises reading and replacing an approval: otherwise a caller's second call could
        invalidate the code that was told on the first."""

    async def approved(self, number: str) -> bool:
        """Whether calls from this number are let in."""
        found = await self._store.approvals(number)
        return bool(found) and found[0].status == "approved"

    async def code_for(self, number: str) -> str | None:
        """The code to tell an unknown caller; it stays the same until it expires. None while too
        many unknown numbers call, or if the owner has decided about the number."""
        async with self._changing:
            return await self._code_for(number)

    async def _code_for(self, number: str) -> str | None:
        now = self._seam.now_ms()
        found = await self._store.approvals(number)
        if found and found[0].status != "pending":
            # Perhaps only just now: replacing an approval with a code would undo it.
            return None
        if found and found[0].expires_at > now:
            return found[0].code
        if not await self._coordinator.allow("pairing:new", per_minute=_NEW_PER_MINUTE):
            return None
        taken = {a.code for a in await self.pending()}
        code = self._new_code()
        while code in taken:
            code = self._new_code()
        await self._put(Approval(number, "pending", code, now, now + CODE_LIFE_MS))
        return code

    def _new_code(self) -> str:
        value = int.from_bytes(self._seam.token().encode(), "big")
        return f"{value % 10**_DIGITS:0{_DIGITS}}"

    async def pending(self) -> Sequence[Approval]:
        """Callers whose code is still valid."""
        return [a for a in await self.listed() if a.status == "pending"]

    async def listed(self) -> Sequence[Approval]:
        """All approvals except expired codes."""
        now = self._seam.now_ms()
        every = await self._store.approvals()
        return [a for a in every if a.status != "pending" or a.expires_at > now]

    async def approve(self, code_or_number: str) -> Approval:
        """Let a caller in, by code or number."""
        text = code_or_number.strip()
        # Six digits are always a code, even if they begin like an international number (00...).
        is_code = len(text) == _DIGITS and text.isdecimal()
        number = None if is_code else normalize_number(text)
        async with self._changing:
            if number is None:
                if sum(map(str.isdecimal, text)) > _DIGITS:
                    wanted = "must be the code, or a phone number in E.164 form"
                    raise InvalidRequest(f"{text!r}: {wanted}, such as +15550001234")
                matches = [a for a in await self.pending() if a.code == text]
                if not matches:
                    expired = f"no caller waits with the code {text!r}; it may have expired"
                    raise InvalidRequest(expired)
                number = matches[0].number
            return await self._put(Approval(number, "approved", "", self._seam.now_ms(), 0))

    async def revoke(self, number_text: str) -> Approval:
        """Refuse a caller from now on."""
        number = normalize_number(number_text)
        if number is None:
            raise InvalidRequest("number must be a phone number in E.164 form")
        async with self._changing:
            if not await self._store.approvals(number):
                raise InvalidRequest(f"{number} is neither approved nor waiting")
            return await self._put(Approval(number, "revoked", "", self._seam.now_ms(), 0))

    async def _put(self, approval: Approval) -> Approval:
        await self._store.commit(Commit(approvals=(approval,)))
        return approval
