"""A whole network, recorded once as a list of operations on fixed addresses and replayed on the CPU."""

from .executor import Native, NativeError

__all__ = ["Native", "NativeError"]
