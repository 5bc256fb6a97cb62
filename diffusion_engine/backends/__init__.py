"""Implementations of the ops outside Python."""
