"""The rows that networks, solvers and counts of steps ask for together."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from .. import checks
from ..compare.runs import Counted
from ..networks.network import ScoreNetwork
from ..sampler import defaults
from ..solvers import Solver, solver
from ..zoo import config, names
from .run import SAMPLES, Case


def cases_of(
    networks: Mapping[str, ScoreNetwork],
    rules: Mapping[str, Solver] | None = None,
    counts: Sequence[int] | None = None,
    by: str = "steps",
    *,
    guidance: float | None = None,
    n: int = SAMPLES,
    seeds: Sequence[int] = (0,),
    options: Mapping[str, Any] | None = None,
) -> tuple[list[Case], list[str]]:
    """Every network with every solver at every count, and the sentences of those that do not go together.

    Args:
        networks: of digits, by what names them.
        rules: solvers, by what they are written as; None is each network's own.
        counts: of steps or calls; None is each network's own number of steps.
        by: "steps", or "calls" of the network, for which a solver takes as many steps as it can.
        guidance: 1 for none; None is each network's own scale.
        n: samples of a row.
        seeds: the first one of each row.
        options: of Sampler: grid, end, ...

    Raises:
        ValueError: nothing goes together, or an argument makes no sense.
    """
    checks.one_of("by", by, ("steps", "calls"))
    made: list[Case] = []
    refused: list[str] = []
    own = dict(options or {})
    for name, network in networks.items():
        scale = defaults.guidance(network, network.classes is not None)
        scale = scale if guidance is None else guidance
        for written, rule in (_own(network) if rules is None else rules).items():
            try:
                found = _steps(network, rule, counts, by, {"guidance": scale} | own)
                weights = weights_of(name)
                made += [
                    Case(network, rule, written, steps, scale, n, seed, own, weights)
                    for steps in found
                    for seed in seeds
                ]
            except ValueError as error:
                refused.append(f"{name} with {written} is left out: {error}")
    if not made:
        raise ValueError("\n".join(refused) or "nothing is asked for: name a network and a solver")
    return made, refused


def _own(network: ScoreNetwork) -> dict[str, Solver]:
    """The solver that a network's card names, as a command line writes it."""
    name, options = defaults.solver(network)
    written = ":".join([name, *(f"{key}={json.dumps(value)}" for key, value in options.items())])
    return {written: solver(name, **options)}


def _steps(
    network: ScoreNetwork,
    rule: Solver,
    counts: Sequence[int] | None,
    by: str,
    how: Mapping[str, Any],
) -> list[int | None]:
    """Those of each count, checked before the first case is made."""
    counted = Counted(network, rule, how)
    if counts is None:
        Case(network, rule, "", None, options=how).sampler()
        return [None]
    samplers = [counted.steps(n) if by == "steps" else counted.calls(n) for n in counts]
    made = [len(sampler.points) - 1 for sampler in samplers if sampler is not None]
    if not made:
        raise ValueError(f"it has no run of {max(counts)} calls or fewer")
    return list(dict.fromkeys(made))


def weights_of(name: str) -> str:
    """The beginning of the checksum of a shipped network's weights or of a file's; "" of others."""
    if name in names() or name.endswith(".safetensors"):
        return str(config(name).get("sha256", ""))[:12]
    return ""
