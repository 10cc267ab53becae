"""The account's phone numbers and their settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .delivery import is_http_url
from .documents import Source
from .errors import ApiError
from .parameters import API_VERSION, rfc2822

__all__ = ["PhoneNumber"]

_SETTINGS = {
    "VoiceUrl": "voice_url",
    "VoiceMethod": "voice_method",
    "VoiceFallbackUrl": "voice_fallback_url",
    "VoiceFallbackMethod": "voice_fallback_method",
    "StatusCallback": "status_callback",
    "StatusCallbackMethod": "status_callback_method",
    "FriendlyName": "friendly_name",
}


@dataclass(slots=True, kw_only=True)
class PhoneNumber:
    """A number in E.164 and its settings; URLs that are not set are empty."""

    sid: str
    number: str
    created_ms: int
    friendly_name: str = ""
    voice_url: str = ""
    voice_method: str = "POST"
    voice_fallback_url: str = ""
    voice_fallback_method: str = "POST"
    status_callback: str = ""
    status_callback_method: str = "POST"

    def update(self, form: Mapping[str, str]) -> None:
        """Apply the settings in a REST form. Raises :exc:`.errors.ApiError`."""
        for name, value in form.items():
            if name.endswith(("Url", "Callback")) and value and not is_http_url(value):
                raise ApiError(400, 21502, f"{name} is not a valid URL")
            if name.endswith("Method") and value not in ("GET", "POST"):
                raise ApiError(400, 21403, f"{name} must be GET or POST")
        for name, attribute in _SETTINGS.items():
            if name in form:
                setattr(self, attribute, form[name])

    @property
    def source(self) -> Source:
        """Source of the first document of a call to this number."""
        return Source("voice", self.voice_url, self.voice_method)

    @property
    def fallback(self) -> Source | None:
        if not self.voice_fallback_url:
            return None
        return Source("fallback", self.voice_fallback_url, self.voice_fallback_method)

    def resource(self, account_sid: str, base: str) -> dict[str, Any]:
        """The JSON object; ``base`` is the path of the account."""
        return {
            "sid": self.sid,
            "account_sid": account_sid,
            "phone_number": self.number,
            "friendly_name": self.friendly_name or self.number,
            "api_version": API_VERSION,
            "voice_url": self.voice_url,
            "voice_method": self.voice_method,
            "voice_fallback_url": self.voice_fallback_url,
            "voice_fallback_method": self.voice_fallback_method,
            "status_callback": self.status_callback,
            "status_callback_method": self.status_callback_method,
            "voice_application_sid": None,
            "voice_caller_id_lookup": False,
            "trunk_sid": None,
            "capabilities": {"voice": True, "sms": False, "mms": False, "fax": False},
            "origin": "twilio",
            "status": "in-use",
            "date_created": rfc2822(self.created_ms),
            "date_updated": rfc2822(self.created_ms),
            "uri": f"{base}/IncomingPhoneNumbers/{self.sid}.json",
        }
