"""The agent backend ``pydantic-ai``: any model that library reaches."""
