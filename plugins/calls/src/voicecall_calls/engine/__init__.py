"""The call engine: serial lanes over the pure state machine; commits come before effects."""
