"""A gateway that is killed again and again, and a judge of what is left."""
