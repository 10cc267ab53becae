"""Conformance suites, phones and virtual time."""
