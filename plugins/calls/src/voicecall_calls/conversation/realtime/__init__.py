"""Conversations held by a full-duplex voice model."""
