"""What a user asks of a network, and what comes back."""
