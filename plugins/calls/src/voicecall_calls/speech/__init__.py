"""Which speech providers a call has, and how the next one takes over where one fails."""
