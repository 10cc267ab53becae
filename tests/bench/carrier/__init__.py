"""The other side of a server under test: its process, and the carrier's requests and sockets."""
