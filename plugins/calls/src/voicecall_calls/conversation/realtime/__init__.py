"""A conversation that is held by a full-duplex voice model."""
