"""The agent backend ``pydantic-ai``: any model that the library supports."""
