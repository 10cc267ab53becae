"""The gateway process of voicecall."""
