"""Grammar recognition with PocketSphinx."""
