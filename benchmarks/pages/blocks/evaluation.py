"""How good samples of the shipped networks are, from the rows of benchmarks.runs.evaluation."""

from __future__ import annotations

from dataclasses import dataclass

from diffusion_engine.evaluation import Estimate
from diffusion_engine.sampler.defaults import GUIDANCE, SOLVER, STEPS
from diffusion_engine.zoo.cards import card, names

from ... import results
from .. import rows
from ..rows import Row

COMMAND = "python -m benchmarks.runs.evaluation"
Z = 1.96  # standard deviations that 95 % of a normal law lie within
LAW = "training law"
SEEDS = ("0", "10000", "20000")  # the first of each range
TEACHER = 3  # steps of the student's teacher that cost as much as the student's run, or more


@dataclass(frozen=True)
class Order:
    """What a paper says of two methods, as two rows: values of columns that find each."""

    said: str
    better: dict[str, str]
    worse: dict[str, str]


def at(model: str, solver: str, calls: int, grid: str = "", guidance: str = "1") -> Row:
    return {
        "model": model, "solver": solver, "steps": str(calls), "grid": grid, "guidance": guidance,
    }  # fmt: skip


def orders() -> list[Order]:
    """Those of the papers, in the order of the page."""
    made = [
        Order(
            f"{name} better than DDIM at 10 calls",
            at("digits", solver, 10), at("digits", "ddim", 10),
        )
        for name, solver in {"DPM-Solver++(2M)": "dpmpp_2m", "UniPC": "unipc", "DEIS": "deis"}.items()
    ]  # fmt: skip
    made += [
        Order(
            f"GENIE better than DDIM at {calls} calls",
            at("digits_genie", "genie", calls, grid="quadratic"),
            at("digits", "ddim", calls, grid="quadratic"),
        )
        for calls in (5, 10, 15)
    ]
    for steps in (50, 100):
        made += [
            Order(
                f"{names[0]} better than {names[1]} in {steps} steps",
                at("cld", better, steps), at("cld", worse, steps),
            )
            for better, worse, names in (
                ("sscs", "cld_em", ("SSCS", "EM")),
                ("cld_exp", "sscs", ("cld_exp", "SSCS")),
                ("cld_exp", "cld_em", ("cld_exp", "EM")),
            )
        ]  # fmt: skip
    made += [
        Order("noise multiplicity K = 8 better than 1", {"model": "dp_8"}, {"model": "dp_1"}),
        Order("no privacy better than K = 8", {"model": "dp_none"}, {"model": "dp_8"}),
        Order(
            "the student's run better than its teacher at as many FLOPs",
            {"model": "student"}, at("digits", "dpmpp_2m", TEACHER, guidance="2"),
        ),
        Order(
            "consistency at 2 calls better than its teacher in 20",
            {"model": "consistency"}, at("flow", "euler", 20, guidance="2"),
        ),
        *(
            Order(f"{said} better than flow in Euler's {calls}", {"model": model},
                  at("flow", "euler", calls, guidance="2"))
            for model, said, calls in (
                ("consistency", "consistency at 2 calls", 2), ("progressive", "progressive at 2 calls", 2),
                ("one_call", "the jump of one call", 1), ("ddgan", "the GAN at 4 calls", 4),
            )
        ),
    ]  # fmt: skip
    return made


def quality_orders() -> str:
    """Each order with both distances, whether the samples show it, and in how many ranges of seeds."""
    found = rows.committed(results.EVALUATION)
    body = []
    for order in orders():
        pairs = list(filter(None, (_pair(found, order, seed) for seed in SEEDS)))
        if not pairs:
            body.append([order.said, "", "", "", "", "not measured"])
            continue
        better, worse = pairs[0]
        z = better.apart(worse)
        shown = f"{sum(b.value < w.value for b, w in pairs)} of {len(pairs)}"
        body.append([order.said, figure(better), figure(worse), f"{z:+.1f}", shown, verdict(z)])
    head = ["published order", "the better", "the other", "apart", "seeds", "here"]
    return f"{rows.lines(head, body)}\n\n{_origin(found)}"


def quality_networks() -> str:
    """Every network as its card runs it, and further draws of the training law."""
    found = rows.committed(results.EVALUATION)
    body = []
    for row in [*rows.some(found, model=LAW), *_own(found)]:
        run = row["solver"] and f"`{row['solver'].partition(':')[0]}`"
        cells = [share(row, name) for name in ("precision", "recall", "accuracy")]
        body.append(
            [row["model"], run, row["calls"], row["guidance"], figure(estimate(row)), *cells]
        )
    head = ["network", "solver", "calls", "scale", "Frechet", "precision", "recall", "accuracy"]
    return f"{rows.lines(head, body, 2)}\n\n{_origin(found)}"


def estimate(row: Row) -> Estimate:
    """The Frechet distance of a row."""
    return Estimate(float(row["frechet"]), float(row["frechet_spread"]))


def figure(found: Estimate) -> str:
    """A distance with its 95 %."""
    return f"{rows.number(found.value)} ± {rows.number(Z * found.spread)}"


def share(row: Row, name: str) -> str:
    return f"{float(row[name]):.3f} ± {Z * float(row[f'{name}_spread']):.3f}" if row[name] else ""


def verdict(z: float) -> str:
    """What a difference of so many standard deviations shows."""
    if abs(z) <= Z:
        return "not told apart"
    return "as published" if z > 0 else "the other way round"


def _pair(found: list[Row], order: Order, seed: str) -> tuple[Estimate, Estimate] | None:
    """The distances of both methods from that seed on; None where one was not measured."""
    try:
        better, worse = (
            estimate(rows.one(found, **side, seed=seed)) for side in (order.better, order.worse)
        )
    except rows.Lacking:
        return None
    return better, worse


def _own(found: list[Row]) -> list[Row]:
    """The row of each shipped network as its card runs it, where one was measured."""
    made = []
    for name in names():
        about = card(name)
        if not about.samples:
            continue
        asked = {"solver": SOLVER, "steps": STEPS} | (about.sampler or {})
        solver = asked["solver"]
        solver = solver["name"] if isinstance(solver, dict) else solver
        scale = float(asked.get("guidance", GUIDANCE if about.null is not None else 1.0))
        wanted = (name, solver, scale, asked.get("grid") or "", str(asked["steps"]))
        made += [row for row in found if _run(row) == wanted and row["seed"] == SEEDS[0]][-1:]
    return made


def _run(row: Row) -> tuple[str, str, float, str, str]:
    """Network, solver, scale, grid and steps of a row."""
    solver = row["solver"].partition(":")[0]
    return row["model"], solver, float(row["guidance"]), row["grid"], row["steps"]


def _origin(found: list[Row]) -> str:
    counts = " or ".join(dict.fromkeys(f"{int(row['n']):,}" for row in found))
    return rows.prose(f"{counts} samples a row.", rows.origin(*found, command=COMMAND))
