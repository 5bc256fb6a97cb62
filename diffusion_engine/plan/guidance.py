"""Guidance as transforms of a plan."""

from __future__ import annotations

import math
import operator
from dataclasses import replace

from .. import checks
from ..networks.parameterisation import Parameterisation
from ..ops import layout
from . import Plan, Row

CONDITIONAL, UNCONDITIONAL = 0, 1
CLASSIFIER = "the scale is a finite number, 0 for none"
WEIGHTS = "give finite numbers, 1 or more"


def classifier_free(
    plan: Plan, scale: float, interval: tuple[float, float] = (0.0, math.inf)
) -> Plan:
    """out = (1 - s) out_uncond + s out_cond on the calls inside an interval (Ho & Salimans 2022).

    scale     s = 1 + w (see scale_of_w); 1 is the conditional network alone and makes no unconditional call,
              but in rows of CFG++, whose `raw` is of the unconditional output alone at every scale
    interval  (low, high]: noise-to-signal ratios sigma / alpha in which guidance acts
              (Kynkaanniemi et al. 2024); calls outside it are conditional alone
    Raises ValueError where the numbers make no sense or the plan is guided already.
    """
    scale = checks.number("guidance", scale, "the scale is a finite number, 1 for none")
    interval = checked_interval(interval)

    def guided(row: Row) -> Row:
        if not inside(row, interval) or (scale == 1.0 and not row.unconditional):
            return row
        return branched(row, (scale, 1.0 - scale))

    rows = [guided(row) for row in plan.rows]
    return plan if all(map(operator.is_, rows, plan.rows)) else plan.replace_rows(rows)


def branched(row: Row, weights: tuple[float, float] = (1.0, 1.0)) -> Row:
    """A row that reads its outputs with the condition and without, in this order, each with its own weights
    times one of these; raw of CFG++ has that without alone. Raises ValueError where it reads several branches
    already."""
    if len(set(row.branches)) != 1:
        raise ValueError("this plan is guided already; guide the solver's own plan")
    _check_room(2, row)
    of_raw = (0.0, 1.0) if row.unconditional else weights
    return replace(
        row,
        q=tuple(s * w for s in weights for w in row.q),
        e=tuple(s * w for s in of_raw for w in row.e),
        channel_blocks=row.channel_blocks * 2,
        branches=tuple(b for b in (CONDITIONAL, UNCONDITIONAL) for _ in row.q),
    )


def scale_of_w(w: float) -> float:
    """The scale s = 1 + w of papers that write (1 + w) out_cond - w out_uncond, with w = 0 for none.

    Ho & Salimans 2022, GENIE and DPDM write so; this engine, latent diffusion and diffusers say s.
    """
    return 1.0 + w


def classifier_guidance(
    plan: Plan, scale: float, block: int, interval: tuple[float, float] = (0.0, math.inf)
) -> Plan:
    """eps - scale sigma grad log p(y | x) on the calls inside an interval (Dhariwal & Nichol 2021, alg. 2).

    scale     0 for none; 1 follows the posterior of the class
    block     the channel block of the gradient, in the entry of the condition
    interval  as for classifier_free
    Raises ValueError where the numbers make no sense, or eps says nothing about x0.
    """
    interval = checked_interval(interval)
    scale = checks.number("classifier_scale", scale, CLASSIFIER)

    def guide(row: Row) -> Row:
        if row.call is None or scale == 0.0 or not inside(row, interval):
            return row
        at, c_in = row.call.at, row.call.c_in
        if len(c_in) > 1:
            raise ValueError("classifier guidance is for networks that read x alone")
        if at.alpha == 0.0:
            raise ValueError(
                f"classifier guidance changes eps, which says nothing about x0 at t={at.t:g}, where alpha "
                "is 0; begin below, with interval=(0, 1000)"
            )
        # x0 = (x - sigma eps) / alpha, and the classifier saw c_in x.
        q = scale * at.sigma**2 / at.alpha * c_in[0]
        # `raw` is of the guided output: what is added to x0 is added to the prediction behind it.
        first = next(
            j for j, (h, w) in enumerate(zip(row.channel_blocks, row.q, strict=True)) if not h and w
        )
        e = row.e and (*row.e, 0.0 if row.unconditional else row.e[first] * q / row.q[first])
        return replace(
            row,
            q=(*row.q, q),
            e=e,
            channel_blocks=(*row.channel_blocks, block),
            branches=(*row.branches, CONDITIONAL),
        )

    return plan.replace_rows([guide(row) for row in plan.rows])


def compose(plan: Plan, weights: tuple[float, ...], unconditional: bool = True) -> Plan:
    """score = s_u + sum_i w_i (s_i - s_u): a product of conditions, w_i < 0 negates (Du et al. 2023).

    weights        of the branches 0, 2, 3, ...; branch 1 is the unconditional one
    unconditional  False where there is none: then score = sum_i w_i s_i, a product of the densities
    Raises ValueError where the numbers make no sense or the plan is guided already.

    The score of a product of noised densities is not that of the noised product, so that samples are those of
    the product only roughly.
    """
    listed = checks.entries("weights", weights, WEIGHTS)
    weights = tuple(checks.number("weight", weight, WEIGHTS) for weight in listed)
    if not weights:
        raise ValueError(f"weights=(): {WEIGHTS}")
    rest = 1.0 - math.fsum(weights)
    terms = [(i + (i > 0), weight) for i, weight in enumerate(weights)]
    if unconditional and rest != 0.0:
        terms.append((UNCONDITIONAL, rest))

    def join(row: Row) -> Row:
        if row.call is None:
            return row
        if len(set(row.branches)) != 1:
            raise ValueError("this plan is guided already; compose the solver's own plan")
        if row.unconditional:
            raise ValueError(
                "CFG++ moves along the output without a condition, and a composition has several conditions: "
                "leave out cfg_pp or compose"
            )
        _check_room(len(terms), row)
        p = row.p if unconditional or rest == 0.0 else _product(row, rest)
        return replace(
            row,
            p=p,
            q=tuple(weight * q for _, weight in terms for q in row.q),
            e=tuple(weight * e for _, weight in terms for e in row.e),
            channel_blocks=row.channel_blocks * len(terms),
            branches=tuple(branch for branch, _ in terms for _ in row.q),
        )

    return plan.replace_rows([join(row) for row in plan.rows])


def _product(row: Row, rest: float) -> tuple[float, ...]:
    """p of x0 = (x + sigma^2 sum w_i s_i) / alpha = sum w_i x0_i + (1 - sum w_i) x / alpha."""
    assert row.call is not None
    at, read = row.call.at, row.call.read
    if len(read) > 1 or at.alpha == 0.0:
        raise ValueError(
            "a product without an unconditional branch is one of scores: the network has to read x alone, "
            f"and alpha must not be 0 (it is {at.alpha:g} at t={at.t:g})"
        )
    # raw of the prediction itself has its share of x in the update, which was written for one score.
    own = any(e for e, block in zip(row.e, row.channel_blocks, strict=bool(row.e)) if block == 0)
    if own and abs(1.0 - at.alpha * row.p[read[0]]) > 1e-9:
        raise ValueError(
            "a product without an unconditional branch takes a network that predicts eps, or a solver "
            "that reads the clipped estimate alone, such as 'ddim' with clipped_eps=True"
        )
    p = [(1.0 - rest) * weight for weight in row.p]
    p[read[0]] += rest / at.alpha
    return tuple(p)


ALWAYS = (0.0, math.inf)
ROUNDING = 1.0 + 1e-12  # of the ratio of a level that was given as one


def objection(
    network: Parameterisation, interval: tuple[float, float], classifier_scale: float
) -> str | None:
    """Why this network would not follow these, as a sentence; None where it does."""
    if interval != ALWAYS and (network.reads_scale or network.guided):
        why = (
            "follows one guided ODE" if network.guided else "reads its guidance scale, which is one"
        )
        return f"interval={interval}: this network {why} for all times"
    if network.gradient is None and classifier_scale not in (0.0, 1.0):
        what = (
            "is guided within; say exact_derivative(..., classifier_scale=)"
            if network.guided
            else "has no classifier; give the one of with_classifier(network, classifier)"
        )
        return f"classifier_scale={classifier_scale:g} and the network {what}"
    return None


def _check_room(branches: int, row: Row) -> None:
    count = branches * len(row.q)
    if count > layout.OUTPUTS:
        raise ValueError(
            f"{branches} branches of {len(row.q)} channel blocks are {count} outputs and a row has "
            f"{layout.OUTPUTS}; compose fewer conditions, or give linearized fewer powers"
        )


def checked_interval(given: tuple[float, float]) -> tuple[float, float]:
    """A guidance interval as two numbers."""
    wanted = "give two noise-to-signal ratios sigma / alpha, 0 <= low < high, as (0.3, 3.0)"
    return checks.pair("interval", given, wanted, infinite=True, least=0.0)


def inside(row: Row, interval: tuple[float, float]) -> bool:
    """Whether a row makes a call at a level of the interval."""
    low, high = interval
    return row.call is not None and low * ROUNDING < row.call.at.ratio <= high * ROUNDING


def inpaint(plan: Plan) -> Plan:
    """Keeps the known region on its own law: after a row that leaves a state (alpha, sigma) in slot 0,
    the region is alpha known + sigma z (Song et al. 2021, appendix I.2).

    Raises ValueError where the state has a velocity, of which the rule says nothing.
    """
    if plan.inputs > 1:
        raise ValueError(
            f"inpainting keeps the known region of x on its law, and {plan.name!r} moves a velocity too, of "
            f"which that says nothing; sample without mask and known"
        )

    def keep(row: Row) -> Row:
        return row if row.state is None else replace(row, known=(row.state.alpha, row.state.sigma))

    return plan.replace_rows([keep(row) for row in plan.rows])
