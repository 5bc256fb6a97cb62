"""Executors: they run a plan."""
