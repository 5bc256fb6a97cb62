"""Packages that an environment may lack: a test that touches a missing one is skipped and names it."""

import pytest


class Package:
    def __init__(self, name):
        self._name = name

    def __getattr__(self, name):
        if name.startswith("_"):  # pytest looks for its marks in whatever a file has
            raise AttributeError(name)
        return getattr(needs(self._name), name)


def needs(name):
    """The module; skips what runs where its package is missing."""
    reason = f"{name.partition('.')[0]} is not installed"
    return pytest.importorskip(name, reason=reason)


diffusers = Package("diffusers")
