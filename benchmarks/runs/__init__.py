"""Whole runs and parts of them; those in NAMES have a `measure`, as the ops do."""

NAMES = ("accelerate", "joining", "k_diffusion", "parallel_in_time", "sscs")
