"""Conformance suites: what every provider of a kind must do."""
