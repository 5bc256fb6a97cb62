"""The command line: sample, solvers, plan, doctor."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Samples from trained diffusion models.",
)

Model = Annotated[
    str, typer.Option(help="a shipped network, or a .safetensors file with its .json")
]
SolverName = Annotated[str, typer.Option("--solver", help="a name of `diffusion-engine solvers`")]
Steps = Annotated[int, typer.Option(help="intervals of the grid")]
Grid = Annotated[str | None, typer.Option(help="uniform, quadratic, karras, lambda, trailing, ...")]
End = Annotated[
    str, typer.Option(help="zero: end at clean data; t_min: at the process's first time")
]
Guidance = Annotated[float, typer.Option(help="classifier-free scale, 1 for none")]
Option = Annotated[list[str] | None, typer.Option(help="a solver's option, as eta=0.5; repeatable")]
Json = Annotated[bool, typer.Option("--json", help="print JSON")]


def numbers(text: str) -> list[int]:
    """The integers of "0-3,7": [0, 1, 2, 3, 7]."""
    made: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)(?:-(\d+))?\s*", part)
        if not match:
            raise ValueError(f"{text!r} is no list of numbers; write it as 3, 0-9 or 1,4,7")
        low, high = int(match[1]), int(match[2] or match[1])
        if high < low or high - low >= 1_000_000:
            raise ValueError(
                f"{part!r} runs from {low} to {high}; give a range of at most a million, low first"
            )
        made += range(low, high + 1)
    return made


def options(given: list[str] | None) -> dict[str, Any]:
    """eta=0.5 as {"eta": 0.5}; values are JSON where they can be, else text."""
    made: dict[str, Any] = {}
    for item in given or []:
        name, equals, value = item.partition("=")
        if not equals:
            raise ValueError(f"--option {item!r}: write it as name=value")
        try:
            made[name] = json.loads(value)
        except json.JSONDecodeError:
            made[name] = value
    return made


@app.command()
def sample(
    out: Annotated[Path, typer.Option(help="file to write: .png, .npz or .safetensors")],
    model: Model = "digits",
    solver: SolverName = "dpmpp_2m",
    steps: Steps = 20,
    n: Annotated[
        int | None, typer.Option("--n", help="how many samples; 50 without --seeds")
    ] = None,
    seeds: Annotated[str | None, typer.Option(help="one seed a sample: 0-63 or 1,5,9")] = None,
    classes: Annotated[
        str,
        typer.Option("--class", help="class of the samples, taken in turn: 3, 0-9, all or none"),
    ] = "all",
    guidance: Guidance = 2.0,
    grid: Grid = None,
    end: End = "zero",
    option: Option = None,
    batch_size: Annotated[int, typer.Option(help="samples a network call at most")] = 64,
    backend: Annotated[str, typer.Option(help="auto, torch, cpp, triton or cuda")] = "auto",
    device: Annotated[
        str | None, typer.Option(help="cpu or cuda; the GPU where there is one")
    ] = None,
    accelerate: Annotated[
        bool, typer.Option(help="put fused ops into the network, where that is faster")
    ] = False,
    executor: Annotated[
        str, typer.Option(help="eager, or graph: replay CUDA graphs of a step")
    ] = "eager",
    compile: Annotated[bool, typer.Option(help="the network through torch.compile")] = False,
    recipe: Annotated[Path | None, typer.Option(help="make the samples of this file again")] = None,
    save_plan: Annotated[Path | None, typer.Option(help="write the plan as JSON")] = None,
    as_json: Json = False,
) -> None:
    """Makes samples and writes them to a file. Under torchrun every process makes a part of them."""
    from . import files
    from .ranks import Ranks, sample_shared
    from .sampler import Sampler

    files.check_path(out)
    ranks = Ranks.of_environment()
    network = _network(model, device, ranks.local)
    began = time.perf_counter()
    if recipe is not None:
        if ranks.world > 1:
            raise ValueError("--recipe makes its samples in one process; start it without torchrun")
        saved = files.read_recipe(recipe)
        result, columns = Sampler.replay(network, saved), _columns(saved.get("condition"))
    else:
        wanted = numbers(seeds) if seeds is not None else None
        count = len(wanted) if wanted is not None and n is None else 50 if n is None else n
        condition = _classes(network, classes, count)
        scale = guidance if condition is not None else 1.0
        sampler = Sampler(
            network, solver, steps, grid=grid, end=end, guidance=scale, backend=backend,
            batch_size=batch_size, accelerate=accelerate, executor=executor, compile=compile,
            **options(option),
        )  # fmt: skip
        if save_plan is not None:
            text = sampler.plan().to_json().encode()
            files.atomically(save_plan, text)
        made = sample_shared(ranks, sampler, count, wanted, condition)
        if made is None:  # rank 0 has all samples, and writes them
            return
        result = made
        columns = _columns(condition)
    if not all(result.finite):
        bad = [s for s, ok in zip(result.seeds, result.finite, strict=True) if not ok]
        raise ValueError(f"seeds {bad} gave values that are not finite; nothing was written")
    seconds = time.perf_counter() - began
    files.write(out, result, columns)
    if as_json:
        about = {
            "out": str(out),
            "n": len(result.seeds),
            "nfe": result.nfe,
            "seconds": round(seconds, 3),
        }
        typer.echo(json.dumps(about | {"evaluations": result.evaluations, "recipe": result.recipe}))
    else:
        typer.echo(f"{out}: {len(result.seeds)} samples, {result.nfe} calls each, {seconds:.2f} s")


def _network(model: str, device: str | None, number: int = 0) -> Any:
    """The network on a device, the GPU of that number where there are several."""
    import torch

    from .zoo.network import network

    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda":
        device = f"cuda:{number}"
    try:
        place = torch.device(device)
        torch.empty(0, device=place)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device {device!r} does not work here ({reason}); try cpu") from error
    return network(model, device)


def _classes(network: Any, text: str, n: int) -> list[int] | None:
    """A class for each sample, taken in turn; None without any."""
    if n < 1:
        raise ValueError(f"n={n}: ask for at least 1 sample")
    if text == "none" or network.classes is None:
        return None
    chosen = list(range(network.classes)) if text == "all" else numbers(text)
    return [chosen[i % len(chosen)] for i in range(n)]


def _columns(condition: list[int] | None) -> int | None:
    """One column a class where the classes are taken in turn."""
    period = len(set(condition or []))
    turns = condition is not None and all(
        a == b for a, b in zip(condition, condition[period:], strict=False)
    )
    return period if turns and period > 1 else None


@app.command()
def solvers(as_json: Json = False) -> None:
    """Lists the solvers."""
    from .solvers import SOLVERS

    rows = []
    for name, kind in SOLVERS.items():
        made = kind()
        calls = made.calls
        rows.append((name, made.order, calls, made.stochastic, made.source))
    names = ("name", "order", "nfe_per_step", "stochastic", "source")
    if as_json:
        typer.echo(json.dumps([dict(zip(names, row, strict=True)) for row in rows], indent=1))
        return
    _table(("name", "order", "NFE/step", "stochastic", "source"), rows)


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
    from .sampler import Sampler

    sampler = Sampler(
        _network(model, "cpu"),
        solver,
        steps,
        grid=grid,
        end=end,
        guidance=guidance,
        **options(option),
    )
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


if __name__ == "__main__":
    main()
