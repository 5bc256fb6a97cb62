"""The command line: sample, encode, solvers, plan, profile, doctor."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .encode import encode
from .options import (
    Accelerate,
    Backend,
    BatchSize,
    Classes,
    Compile,
    Device,
    End,
    Executor,
    Grid,
    Guidance,
    Json,
    Model,
    Noise,
    Option,
    SolverName,
    Steps,
    classes_of,
    device_of,
    network_of,
    numbers,
    solver_of,
    written,
)
from .profile import profile

if TYPE_CHECKING:
    from torch import Tensor

    from ..sampler.request import Result

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Samples from trained diffusion models.",
)
app.command()(profile)
app.command()(encode)


@app.command()
def sample(
    context: typer.Context,
    out: Annotated[Path, typer.Option(help="file to write: .png, .npz or .safetensors")],
    model: Model = "digits",
    solver: SolverName = "dpmpp_2m",
    steps: Steps = 20,
    n: Annotated[
        int | None, typer.Option("--n", help="how many samples; 50 without --seeds")
    ] = None,
    seeds: Annotated[str | None, typer.Option(help="one seed a sample: 0-63 or 1,5,9")] = None,
    classes: Classes = "all",
    guidance: Guidance = 2.0,
    grid: Grid = None,
    end: End = "zero",
    option: Option = None,
    batch_size: BatchSize = 64,
    backend: Backend = "auto",
    device: Device = None,
    accelerate: Accelerate = False,
    executor: Executor = "eager",
    compile: Compile = False,
    x: Annotated[
        Path | None,
        typer.Option("--x", help="images to begin with at --start, or what encode wrote"),
    ] = None,
    start: Annotated[float | None, typer.Option(help="time at which x begins")] = None,
    noised: Annotated[
        bool, typer.Option("--noised", help="x is the state of that time already, as encode's is")
    ] = False,
    noise: Noise = None,
    recipe: Annotated[
        Path | None,
        typer.Option(
            help="make the samples of this file again; give its --x again where it had one"
        ),
    ] = None,
    save_plan: Annotated[Path | None, typer.Option(help="write the plan as JSON")] = None,
    as_json: Json = False,
) -> None:
    """Makes samples and writes them to a file. Under torchrun every process makes a part of them."""
    from ..sampler import recipe as recipes
    from ..sampler.ranks import Ranks, sample_shared
    from ..sampler.sampler import Sampler
    from . import files
    from .pictures import read_images

    asked = written(context)
    files.check_path(out)
    if save_plan is not None:
        files.check_folder(save_plan)
    ranks = Ranks.of_environment()
    saved = None if recipe is None else files.read_recipe(recipe)
    if saved is None:
        rule = solver_of(solver, option)
    else:
        own = solver_of(solver, option) if ":" in solver else None
        _check_open(asked, saved, ranks.world, own)
        rule, noised = recipes.solver_in(saved, own), bool(saved.get("noised"))
        model = model if "--model" in asked else _model_of(saved)
    place = device_of(device, ranks.local)
    network = network_of(model, rule, place)
    files.check_path(out, network.shape)
    given = None if x is None else read_images(x, network.shape, network.state_shape, noised)
    how: dict[str, Any] = {
        "backend": backend, "batch_size": batch_size, "accelerate": accelerate, "executor": executor,
        "compile": compile, "device": place,
    }  # fmt: skip
    began = time.perf_counter()
    if saved is not None:
        more = {} if given is None else {"x": given}
        result = Sampler.replay(network, saved, how | {"solver": rule}, **more)
    else:
        wanted = numbers(seeds) if seeds is not None else None
        count = _count(n, wanted, given)
        condition = classes_of(network, classes, count)
        scale = guidance if condition is not None or "--guidance" in asked else 1.0
        sampler = Sampler(network, rule, steps, grid=grid, end=end, guidance=scale, **how)
        if save_plan is not None:
            files.atomically(save_plan, sampler.plan().to_json().encode())
        made = sample_shared(
            ranks, sampler, count, wanted, condition, given, start=start, noised=noised, noise=noise
        )
        if made is None:  # rank 0 has all samples, and writes them
            return
        result = made
    if not all(result.finite):
        bad = [s for s, ok in zip(result.seeds, result.finite, strict=True) if not ok]
        raise ValueError(f"seeds {bad} gave values that are not finite; nothing was written")
    seconds = time.perf_counter() - began
    files.write(out, result, _columns(result.recipe["condition"]))
    _report(out, result, seconds, as_json)


# What a recipe leaves open. It holds all else.
OPEN = frozenset(
    (
        "--out", "--recipe", "--model", "--x", "--batch-size", "--backend", "--device", "--accelerate",
        "--executor", "--compile", "--json",
    )
)  # fmt: skip


def _check_open(asked: list[str], recipe: dict[str, Any], world: int, own: Any) -> None:
    """Raises ValueError where options stand beside --recipe that would change what it makes."""
    # A recipe holds no user's solver.
    given = OPEN if own is None else OPEN | {"--solver", "--option"}
    fixed = [name for name in asked if name not in given]
    if "--x" in asked and "x" not in recipe.get("needs", ()):
        fixed.append("--x")
    if fixed:
        raise ValueError(
            f"--recipe makes its samples as they were made: leave out {', '.join(fixed)}, or --recipe"
        )
    if world > 1:
        raise ValueError("--recipe makes its samples in one process; start it without torchrun")


def _model_of(recipe: dict[str, Any]) -> str:
    """The shipped network of a recipe. Others run code or read files, which a recipe shall not choose."""
    from ..zoo import names

    name = recipe.get("network")
    if name not in names():
        raise ValueError(f"the recipe's network {name!r} does not ship; say which it is by --model")
    return name


def _count(n: int | None, seeds: list[int] | None, x: Tensor | None) -> int:
    """How many samples were asked for."""
    if n is not None:
        return n
    return len(seeds) if seeds is not None else len(x) if x is not None else 50


def _report(out: Path, result: Result, seconds: float, as_json: bool) -> None:
    count = len(result.seeds)
    if not as_json:
        typer.echo(f"{out}: {count} samples, {result.nfe} calls each, {seconds:.2f} s")
        return
    about = {"out": str(out), "n": count, "nfe": result.nfe, "seconds": round(seconds, 3)}
    typer.echo(json.dumps(about | {"evaluations": result.evaluations, "recipe": result.recipe}))


def _columns(condition: list[int] | None) -> int | None:
    """One column a class where the classes are taken in turn."""
    period = len(set(condition or []))
    turns = condition is not None and all(
        a == b for a, b in zip(condition, condition[period:], strict=False)
    )
    return period if turns and period > 1 else None


@app.command()
def solvers(as_json: Json = False) -> None:
    """Lists the solvers; behind an order stands in parentheses that of the formula, where it is more."""
    from ..solvers import SOLVERS
    from ..solvers.base import orders

    made = {name: kind() for name, kind in SOLVERS.items()}
    if as_json:
        names = ("name", "order", "asymptotic", "nfe_per_step", "stochastic", "source")
        about = [
            (name, r.order, r.asymptotic, r.calls, r.stochastic, r.source)
            for name, r in made.items()
        ]
        typer.echo(json.dumps([dict(zip(names, row, strict=True)) for row in about], indent=1))
        return
    head = ("name", "order (asymptotic)", "NFE/step", "stochastic", "source")
    _table(head, [(name, orders(r), r.calls, r.stochastic, r.source) for name, r in made.items()])


@app.command()
def plan(
    model: Model = "digits",
    solver: SolverName = "dpmpp_2m",
    steps: Steps = 20,
    guidance: Guidance = 1.0,
    grid: Grid = None,
    end: End = "zero",
    option: Option = None,
    as_json: Json = False,
) -> None:
    """Prints the table of numbers that a sampler is."""
    from ..sampler.sampler import Sampler

    rule = solver_of(solver, option)
    network = network_of(model, rule, device_of("cpu"))
    sampler = Sampler(network, rule, steps, grid=grid, end=end, guidance=guidance)
    made = sampler.plan()
    typer.echo(made.to_json() if as_json else str(made))


@app.command()
def doctor(as_json: Json = False) -> None:
    """Shows versions, devices, what each op resolves to and why, and tests the backends."""
    from .doctor import report

    found = report()
    if as_json:
        typer.echo(json.dumps(found, indent=1))
    else:
        typer.echo(f"python {found['python']}")
        for kind in ("packages", "devices"):
            for name, about in found[kind].items():
                typer.echo(f"{name}: {about}")
        typer.echo("")
        _table(
            ("op", "device", "backend", "", "why not"),
            [
                (r["op"], r["device"], r["backend"], "<-" if r["chosen"] else "", r["reason"] or "")
                for r in found["ops"]
            ],
        )
        typer.echo("\nself-test of the step")
        _table(
            ("backend", "device", "result"),
            [(r["backend"], r["device"], r["result"]) for r in found["self_test"]],
        )
    if any(r["ran"] and not r["ok"] for r in found["self_test"]):
        raise typer.Exit(1)


def _table(head: tuple[str, ...], rows: list[tuple]) -> None:
    lines = [
        head,
        *(
            tuple("yes" if c is True else "no" if c is False else str(c) for c in row)
            for row in rows
        ),
    ]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    for line in lines:
        typer.echo(
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        )


def main() -> None:
    """Runs a command; what a user can put right is one sentence on stderr and exit code 2."""
    # Read when torch is first imported, below. Threads that spin while they wait make a busy machine
    # several times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    try:
        app()
    except (ValueError, TypeError, OSError) as error:
        sys.stderr.write(f"diffusion-engine: {error}\n")
        sys.exit(2)
