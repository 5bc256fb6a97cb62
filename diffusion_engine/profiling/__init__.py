"""Where the time of a sampler goes: `profile` and the table it returns."""

from .measure import profile
from .report import Op, Part, Profile

__all__ = ["Op", "Part", "Profile", "profile"]
