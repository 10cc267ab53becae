"""A gateway that is killed again and again, and the judge of what is left."""
