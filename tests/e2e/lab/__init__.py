"""Parts of end-to-end tests: an exchange, a gateway, a controlled agent, commands."""
