"""Conversations: who speaks, who listens and whose turn it is."""
