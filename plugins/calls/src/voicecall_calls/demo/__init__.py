"""``voicecall demo``: a phone conversation on one machine."""
