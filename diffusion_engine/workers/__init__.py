"""Engines in processes of their own, and the supervisor that keeps them."""
