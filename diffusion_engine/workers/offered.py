"""The solvers that suit a network, for whoever chooses among them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..engine import Engine, EngineError
from ..solvers import SOLVERS, solver
from .messages import Offered

STEPS = 2  # of the plans that are tried: a longer one takes longer to make


def offered(
    engine: Engine, network: str, condition: int | str | None, default: Mapping[str, Any]
) -> dict[str, Offered]:
    """Those of the package that an engine would run with a network, by name, in the order of the table.

    condition  a class of the network, or a prompt, None where it has neither
    default    keys of the Spec that runs it where nobody says more
    """
    own = default["solver"]
    own = own["name"] if isinstance(own, Mapping) else own
    found: dict[str, Offered] = {}
    for name in SOLVERS:
        rule = solver(name)
        try:
            asked = default if name == own else {"solver": name, "steps": STEPS}
            engine.checked(asked, 1, network=network, condition=condition)
        except (ValueError, EngineError):
            # What it needs comes with a request, and is held against the network there.
            if not rule.needs or rule.parts not in {solver(other).parts for other in found}:
                continue
        found[name] = Offered(rule.calls, rule.order, rule.stochastic)
    return found
