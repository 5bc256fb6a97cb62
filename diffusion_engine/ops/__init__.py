"""Ops: each is defined by its torch reference; table.py lists the other implementations."""
