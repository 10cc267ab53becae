"""The gateway's own commands, one module each. ``add(app)`` adds them to the command line."""
