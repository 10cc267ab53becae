"""The phone: call engine, store, webhook and media servers, conversations."""
