"""Imported before Triton's kernels by what tests them: skips the file where triton is not installed."""

from optional import needs

triton = needs("triton")
tl = needs("triton.language")
