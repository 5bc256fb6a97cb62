"""Samples of every network measured: python -m benchmarks.runs.evaluation. It goes on where it ended.

What is run, on which grid, at which scale and with how many samples was settled before the first row was
measured. Without a scale of its own a row is unguided, on its network's own grid.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from diffusion_engine import ScoreNetwork
from diffusion_engine.cli.compare import rules_of
from diffusion_engine.evaluation import matrix, quality, shipped
from diffusion_engine.evaluation.cases import cases_of
from diffusion_engine.evaluation.features import describe
from diffusion_engine.evaluation.make import draws
from diffusion_engine.evaluation.run import Case, Made, Row, row
from diffusion_engine.evaluation.table import Table
from diffusion_engine.zoo import load_network, names

from .. import results
from .genie import CPU

SAMPLES = 1000  # of a row
BUDGETS, LONG = (5, 10, 20), (50,)  # calls
LAW = "training law"


@dataclass(frozen=True)
class Asked:
    """Rows of one network.

    solvers   written as on a command line; "" is the network's own run
    calls     of the network, 0 its own number
    guidance  None is the network's own scale
    """

    model: str
    solvers: str = ""
    calls: tuple[int, ...] = (0,)
    guidance: float | None = 1.0
    grid: str = ""
    n: int = SAMPLES
    seed: int = 0

    def cases(self, path: str, network: ScoreNetwork) -> list[Case]:
        made, refused = cases_of(
            {path: network}, rules_of(self.solvers) if self.solvers else None,
            None if self.calls == (0,) else self.calls, "calls", guidance=self.guidance, n=self.n,
            seeds=(self.seed,), options={"grid": self.grid} if self.grid else None,
        )  # fmt: skip
        for reason in refused:
            print(reason, file=sys.stderr)
        return made


def own(model: str) -> tuple[Asked, ...]:
    """A network as its card runs it."""
    return (Asked(model, guidance=None),)


PARTS: dict[str, tuple[Asked, ...]] = {
    "solvers": (Asked("digits", "ddim,dpmpp_2m,unipc,deis", (10,)),),
    "genie": (
        Asked("digits", "ddim", (5, 10, 15), grid="quadratic"),
        Asked("digits_genie", "genie", (5, 10, 15), grid="quadratic"),
    ),
    "cld": tuple(Asked("cld", "cld_em,sscs,cld_exp", (steps,)) for steps in (50, 100)),
    "private": (*own("dp_8"), *own("dp_1"), *own("dp_none")),
    "student": (*own("student"), Asked("digits", "dpmpp_2m", (1, 2, 3, 4, 20), guidance=2.0)),
    "consistency": (*own("consistency"), Asked("flow", "euler", (1, 2, 4, 20), guidance=2.0)),
    "few": (*own("progressive"), *own("one_call"), *own("ddgan")),
    "own": (*own("digits_genie"), *own("cld"), *own("vdm")),
    "digits": (Asked("digits", "ddim,dpmpp_2m,unipc,deis", BUDGETS),),
    "flow": (Asked("flow", "euler,heun,dpmpp_2m,unipc", BUDGETS),),
    "vdm": (Asked("vdm", "ddim,dpmpp_2m,unipc,vdm", BUDGETS),),
    "long": (
        Asked("digits", "ddim,dpmpp_2m,unipc,deis", LONG),
        Asked("flow", "euler,heun,dpmpp_2m,unipc", LONG),
        Asked("vdm", "ddim,dpmpp_2m,unipc,vdm", LONG),
    ),
    "cld_few": (Asked("cld", "cld_em,sscs,cld_exp", (10, 20)),),
}
# What is quick, from two more ranges of seeds.
QUICK = ("solvers", "genie", "private", "student", "consistency", "few")
PARTS["seeds"] = tuple(
    replace(asked, seed=seed)
    for seed in (10_000, 20_000)
    for part in QUICK
    for asked in PARTS[part]
)


class Networks:
    """Shipped ones, or of a folder: FOLDER/NAME/NAME.safetensors."""

    def __init__(self, folder: Path | None) -> None:
        self.folder, self.made = folder, {}  # type: tuple[Path | None, dict[str, ScoreNetwork]]

    def path(self, name: str) -> str | None:
        """What it is loaded by; None where there is none."""
        if name in names():
            return name
        path = None if self.folder is None else self.folder / name / f"{name}.safetensors"
        return str(path) if path is not None and path.exists() else None

    def __getitem__(self, name: str) -> ScoreNetwork:
        if name not in self.made:
            loaded = load_network(str(self.path(name)))
            self.made[name] = loaded.with_module(loaded.module, name=name)
        return self.made[name]


def law(n: int) -> Row:
    """The row of further draws of the training law: no network is nearer to it but by chance."""
    images = draws(n, seed=1)
    found = quality(describe(images), shipped(), [i % 10 for i in range(n)])
    case = Case(load_network("digits"), rules_of("ddim")["ddim"], "", 1, n=n, seed=1)
    made = row(case, Made(images, 0, 0, 0.0), found, "")
    return made | {"model": LAW, "weights": "", "steps": 0}


def measured(parts: Sequence[str], networks: Networks, table: Table, threads: int) -> Iterator[Row]:
    """The rows that the table lacks."""
    about = results.row(CPU, results.ABOUT)
    wanted = [asked for part in parts for asked in PARTS[part]]
    for asked in wanted:
        if networks.path(asked.model) is None:
            print(f"there is no network {asked.model!r}: its rows are left out", file=sys.stderr)
    here = [asked for asked in wanted if networks.path(asked.model) is not None]
    cases = matrix.missing(
        [case for a in here for case in a.cases(str(networks.path(a.model)), networks[a.model])],
        table,
    )
    if not cases:
        return
    paces = matrix.paces(cases, ["native", "eager"], threads=threads)
    print(matrix.left(cases, paces), flush=True)
    made = matrix.rows(
        cases, paces, shipped(), table=table, more=lambda case: about, threads=threads
    )
    yield from made


def main() -> None:
    made = argparse.ArgumentParser(prog="python -m benchmarks.runs.evaluation", description=__doc__)
    made.add_argument("parts", nargs="*", default=[*PARTS], help=", ".join(PARTS))
    made.add_argument("--weights", type=Path, help="folder of networks that do not ship yet")
    made.add_argument("--threads", type=int, default=1)
    made.add_argument("--out", type=Path, default=results.FOLDER / results.EVALUATION)
    given = made.parse_args()
    if unknown := set(given.parts) - set(PARTS):
        made.error(f"unknown parts {', '.join(sorted(unknown))}; choose {', '.join(PARTS)}")
    table = Table(given.out, results.EVALUATION_KEYS)
    if not any(found["model"] == LAW for found in table.rows):
        table.add(law(SAMPLES) | results.row(CPU, results.ABOUT))
    for found in measured(given.parts, Networks(given.weights), table, given.threads):
        shown = (
            f"{k}={found[k]}"
            for k in ("model", "solver", "calls", "n", "frechet", "frechet_spread", "accuracy")
        )
        print(*shown, flush=True)


if __name__ == "__main__":
    main()
