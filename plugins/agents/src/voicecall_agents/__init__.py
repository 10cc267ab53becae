"""Agent backends."""
