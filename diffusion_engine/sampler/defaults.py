"""What a run is where nobody says: the network's own choice, and of one without any that of this file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..networks.network import ScoreNetwork

SOLVER, STEPS, GUIDANCE = "dpmpp_2m", 20, 2.0
ENCODERS = {1: "ddim", 2: "cld_ode"}  # by the parts of the process


def asked(network: ScoreNetwork, **given: Any) -> dict[str, Any]:
    """The keys of a Spec: those given that are not None, over the network's own.

    With another solver stand the network's own steps, but neither its options nor the times that were chosen
    for it: grid, end, times and sigmas. Times or sigmas of one's own leave no steps and no grid.
    """
    made: dict[str, Any] = {"solver": SOLVER, "steps": STEPS} | dict(network.defaults or {})
    given = {name: value for name, value in given.items() if value is not None}
    dropped: set[str] = set()
    if "solver" in given and _name(given["solver"]) != _name(made["solver"]):
        dropped |= {"grid", "end", "times", "sigmas"}
    if "steps" in given:
        dropped |= {"times", "sigmas"}
    if {"times", "sigmas"} & given.keys():
        dropped |= {"times", "sigmas", "steps", "grid"}
    return {name: value for name, value in made.items() if name not in dropped} | given


def _name(solver: Any) -> str:
    return solver["name"] if isinstance(solver, Mapping) else getattr(solver, "name", solver)


def solver(network: ScoreNetwork) -> tuple[str, dict[str, Any]]:
    """The name of the network's own solver, and its options."""
    own = asked(network)["solver"]
    if isinstance(own, Mapping):
        return own["name"], dict(own.get("options", {}))
    return own, {}


def encoder(network: ScoreNetwork) -> tuple[str, dict[str, Any]]:
    """The name of a solver that leads to a network's latents and back, and its options."""
    return ENCODERS[network.process.parts], {}


def guidance(network: ScoreNetwork, conditional: bool) -> float:
    """The scale of samples of which nobody says one: 1 where they have no condition to be guided to."""
    if not conditional:
        return 1.0
    usual = GUIDANCE if network.parameterisation.unconditional else 1.0
    return (network.defaults or {}).get("guidance", usual)
