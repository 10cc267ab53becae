"""The mock carrier: a telephone exchange on loopback, and the adapter that uses it."""
