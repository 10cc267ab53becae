"""Which speech providers a call uses, and how the next one takes over if one fails."""
