"""Trained networks: what they predict, how they are called and placed, and what wraps them."""
