"""The pytest plugin of voicecall-testing."""
