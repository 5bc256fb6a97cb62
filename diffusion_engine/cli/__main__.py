"""`python -m diffusion_engine.cli`, as torchrun starts it."""

from .app import main

main()
