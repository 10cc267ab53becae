"""What the dialogues are held with: an exchange, a gateway, an agent on strings, commands."""
