"""How near samples of several solvers come to the ODE's solution from the same seeds."""

from .fine import Fine, distance, distances, fine_solution

__all__ = ["Fine", "distance", "distances", "fine_solution"]
