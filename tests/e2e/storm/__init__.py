"""Calls through a carrier with faults, by a gateway that is killed now and then."""
