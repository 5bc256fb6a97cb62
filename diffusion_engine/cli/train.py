"""The command `train`."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Annotated, Any

import typer

from .options import Device, Json, device_of


def train(
    recipe: Annotated[
        str | None,
        typer.Argument(help="a shipped recipe, or a .json file of one; without it they are listed"),
    ] = None,
    out: Annotated[Path, typer.Option(help="folder of the weights, their card and the log")] = Path(
        "trained"
    ),
    steps: Annotated[int | None, typer.Option(help="in place of the recipe's")] = None,
    batch: Annotated[int | None, typer.Option(help="in place of the recipe's")] = None,
    lr: Annotated[float | None, typer.Option(help="in place of the recipe's")] = None,
    seed: Annotated[int | None, typer.Option(help="in place of the recipe's")] = None,
    threads: Annotated[
        int | None, typer.Option(help="in place of the recipe's; the bits depend on it")
    ] = None,
    start: Annotated[
        str | None, typer.Option(help="network whose weights are the beginning, or a file")
    ] = None,
    teacher: Annotated[
        str | None, typer.Option(help="network that is learned from, or a file")
    ] = None,
    every: Annotated[int, typer.Option(help="steps between two checkpoints")] = 500,
    resume: Annotated[
        bool, typer.Option("--resume", help="go on from the checkpoint in --out")
    ] = False,
    device: Device = "cpu",
    as_json: Json = False,
) -> None:
    """Trains a network by a recipe. Ctrl-C writes a checkpoint; --resume goes on to the same bits."""
    from ..training import names, read

    if recipe is None:
        made = [read(name) for name in names()]
        if as_json:
            typer.echo(json.dumps([one.model_dump(mode="json") for one in made], indent=1))
            return
        width = max(len(one.name) for one in made)
        for one in made:
            kind = one.objective["name"]
            typer.echo(f"{one.name:{width}}  {one.minutes:4.0f} min of one core  {kind}")
        return
    if every < 1:
        raise ValueError(f"--every {every}: write a checkpoint every 1 step or more")
    asked = {
        "steps": steps, "batch": batch, "lr": lr, "seed": seed, "threads": threads, "start": start,
        "teacher": teacher,
    }  # fmt: skip
    chosen = read(recipe, **{name: value for name, value in asked.items() if value is not None})
    report = _run(chosen, out, every, resume, device_of(device))
    typer.echo(json.dumps(report, indent=1) if as_json else report["said"])


def _run(recipe: Any, out: Path, every: int, resume: bool, device: Any) -> dict[str, Any]:
    """Trains until the end, or until it is interrupted, and says what was written."""
    from ..training import Trainer, checkpoint

    ended: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, frame: ended.append(number))
    typer.echo(
        f"{recipe.name}: the shipped recipe takes some {recipe.minutes:g} minutes of one core",
        err=True,
    )
    trainer = Trainer(recipe, device)
    kept = checkpoint.path_of(out, recipe.name)
    if resume:
        trainer.resume(kept)
    typer.echo(f"{recipe.name}: steps {trainer.step} to {recipe.steps}", err=True)
    path = trainer.run(out, every, lambda: bool(ended))
    if path is None:
        said = f"stopped after step {trainer.step}: {kept}; go on with --resume"
    else:
        said = f"{path}: {trainer.step} steps in {trainer.seconds:.0f} s"
    return {
        "weights": None if path is None else str(path),
        "steps": trainer.step,
        "seconds": round(trainer.seconds, 1),
        "said": said,
    }
