"""Commands: sample, encode, likelihood, models, solvers, drivers, plan, profile, tune, train, serve, ..."""

from __future__ import annotations

import json
import os
import sys

import typer

from .bench_serve import bench_serve
from .compare import compare
from .convert import convert
from .encode import encode
from .eval import evaluate
from .likelihood import likelihood
from .models import models
from .options import (
    End,
    Forecast,
    Grid,
    Guidance,
    Json,
    Model,
    Option,
    SolverName,
    Steps,
    chosen,
    device_of,
    spec_of,
)
from .profile import profile
from .ray import app as ray
from .sample import sample
from .serve import serve
from .train import train
from .tune import tune

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Samples from trained diffusion models.",
)
app.command()(sample)
app.command()(profile)
app.command()(bench_serve)
app.command()(encode)
app.command()(likelihood)
app.command(name="eval")(evaluate)
app.command()(compare)
app.command()(tune)
app.command()(train)
app.command()(convert)
app.command()(models)
app.command()(serve)
app.add_typer(ray, name="ray")


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
def drivers(as_json: Json = False) -> None:
    """Lists what leads samples beside a solver's table: what each does, its options, and the source."""
    from ..drivers import about

    made = about()
    if as_json:
        typer.echo(json.dumps(made, indent=1, default=str))
        return
    for each in made:
        options = [f"{name}=..." for name in each["needs"]]
        options += [f"{name}={json.dumps(v, default=str)}" for name, v in each["options"].items()]
        lines = (each["about"], " ".join(options), each["source"])
        typer.echo("\n    ".join([each["name"], *(line for line in lines if line)]))


@app.command()
def plan(
    context: typer.Context,
    model: Model = "digits",
    solver: SolverName = None,
    steps: Steps = None,
    guidance: Guidance = 1.0,
    forecast: Forecast = None,
    grid: Grid = None,
    end: End = None,
    option: Option = None,
    as_json: Json = False,
) -> None:
    """Prints the table of numbers that a sampler is."""
    from ..sampler.sampler import Sampler

    network, rule = chosen(model, device_of("cpu"), solver, option)
    made = Sampler(network, rule, **spec_of(context, network, rule).arguments()).plan()
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
        typer.echo(f"bfloat16: {found['bf16']['result']}")
        typer.echo(f"executor native: {found['native']['result']}")
        for name, reason in found["text"].items():
            typer.echo(f"text encoder {name}: {reason or 'installed'}")
        kept = found["choices"]
        typer.echo(
            f"choices in {kept['folder']}: threads of {kept['threads']} networks, forms of {kept['forms']}, "
            f"executors of {kept['executors']}\n"
        )
        _table(
            ("executor", "device", "computes in", "why not"),
            [
                (r["executor"], r["device"], ", ".join(r["dtypes"]) or "any", r["reason"] or "")
                for r in found["executors"]
            ],
        )
        typer.echo()
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
    if any(r["ran"] and not r["ok"] for r in (*found["self_test"], found["native"])):
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
    except (ValueError, TypeError, OSError, ImportError) as error:
        sys.stderr.write(f"diffusion-engine: {error}\n")
        sys.exit(2)
