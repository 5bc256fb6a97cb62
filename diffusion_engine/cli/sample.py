"""The command `sample`."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..models import network_of
from ..sampler.spec import Recipe, Spec
from .conditions import (
    Compose,
    Database,
    NegativePrompt,
    Prompt,
    columns_of,
    composed_of,
    condition_of,
    count,
    with_names,
)
from .options import (
    Accelerate,
    Backend,
    BatchSize,
    Classes,
    Compile,
    Device,
    DriverName,
    DriverOption,
    Dtype,
    End,
    Executor,
    Forecast,
    Grid,
    Guidance,
    Guider,
    GuiderOption,
    Json,
    Known,
    Mask,
    Measurement,
    Model,
    Noise,
    Noised,
    Option,
    SolverName,
    Start,
    Steps,
    Threads,
    chosen,
    device_of,
    driver_of,
    guidance_of,
    how_of,
    numbers,
    solver_of,
    spec_of,
    written,
)

if TYPE_CHECKING:
    from ..drivers import Driver
    from ..networks.network import ScoreNetwork
    from ..plan import Plan
    from ..sampler.result import Result
    from ..solvers import Solver


def sample(
    context: typer.Context,
    out: Annotated[Path, typer.Option(help="file to write: .png, .npz or .safetensors")],
    model: Model = "digits",
    solver: SolverName = None,
    steps: Steps = None,
    n: Annotated[
        int | None,
        typer.Option(
            "--n", help="how many samples; without --seeds one a prompt or for --compose, or 50"
        ),
    ] = None,
    seeds: Annotated[str | None, typer.Option(help="one seed a sample: 0-63 or 1,5,9")] = None,
    classes: Classes = "all",
    prompt: Prompt = None,
    negative_prompt: NegativePrompt = None,
    compose: Compose = None,
    database: Database = None,
    guidance: Guidance = None,
    guider: Guider = None,
    guider_option: GuiderOption = None,
    forecast: Forecast = None,
    grid: Grid = None,
    end: End = None,
    option: Option = None,
    driver: DriverName = None,
    driver_option: DriverOption = None,
    batch_size: BatchSize = 64,
    backend: Backend = "auto",
    device: Device = None,
    dtype: Dtype = None,
    accelerate: Accelerate = False,
    executor: Executor = "eager",
    threads: Threads = None,
    compile: Compile = False,
    x: Annotated[
        Path | None,
        typer.Option("--x", help="images to begin with at --start, or what encode wrote"),
    ] = None,
    known: Known = None,
    mask: Mask = None,
    measurement: Measurement = None,
    start: Start = None,
    noised: Noised = False,
    noise: Noise = None,
    recipe: Annotated[
        Path | None,
        typer.Option(
            help="make the samples of this file again; give its --x, --known, --mask, --measurement, --plan "
            "and --database again where it had one"
        ),
    ] = None,
    plan: Annotated[
        Path | None, typer.Option(help="run the plan of this file, as --save-plan wrote it")
    ] = None,
    save_plan: Annotated[Path | None, typer.Option(help="write the plan as JSON")] = None,
    as_json: Json = False,
) -> None:
    """Makes samples and writes them to a file. Under torchrun every process makes a part of them."""
    from ..sampler.ranks import Ranks, sample_shared
    from ..sampler.sampler import Sampler
    from . import files
    from .given import image_shape, read_region, read_state, spread
    from .pictures import read_array

    asked = written(context)
    files.check_path(out)
    if save_plan is not None:
        files.check_folder(save_plan)
    ranks = Ranks.of_environment()
    saved = None if recipe is None else Recipe.model_validate(files.read_recipe(recipe))
    table = None if plan is None else files.read_plan(plan)
    own = solver_of(solver, option) if solver is not None and ":" in solver else None
    leader = driver_of(driver, driver_option)
    if saved is not None:
        _check_recipe(asked, saved, ranks.world, own, ":" in (driver or ""))
        model = model if "model" in asked else _model_of(saved)
    elif table is not None:
        _check_plan(asked)
    rule = _rule(saved, table, own)
    if saved is not None and (saved.network_form or saved.threads) and device is None:
        device = "cpu"
    place = device_of(device, ranks.local)
    if rule is None:
        network, rule = chosen(model, place, solver, option)
    else:
        network = network_of(model, rule, place)
    worded = bool(prompt or negative_prompt or compose or (saved and saved.origins))
    network = with_names(network, database, worded)
    latents = saved is not None and saved.decoder is None
    files.check_path(out, network.shape if latents else image_shape(network))
    free = table is not None or (noised if saved is None else saved.noised)
    given = None if x is None else read_state(x, network, free)
    follows: dict[str, Any] = read_region(known, mask, network)
    if measurement is not None:
        follows["measurement"] = read_array(measurement)
    how = how_of(context, place)
    began = time.perf_counter()
    if saved is not None:
        how = {name: how[name] for name in how if name in asked or name == "device"}
        how |= {"driver": leader} if leader is not None else {}
        result = _replayed(network, saved, table, rule, how, {"x": given} | follows)
    else:
        wanted = numbers(seeds) if seeds is not None else None
        told = compose[:1] if compose else prompt
        size = count(n, wanted, None if given is None else len(given), told)
        if compose:
            follows["compose"] = composed_of(network, compose, asked)
            classes, guidance = "none", 1.0
        condition = condition_of(network, classes, size, prompt)
        if negative_prompt is not None:
            follows["negative"] = condition_of(network, classes, size, [negative_prompt])
        scale = guidance_of(network, guidance, bool(condition or negative_prompt))
        spec = spec_of(context, network, rule, guidance=scale, driver=None)
        if table is None:
            sampler = Sampler(network, rule, **spec.arguments() | {"driver": leader} | how)
        else:
            sampler = Sampler.from_plan(network, table, **how)
        if save_plan is not None:
            _check_saved(leader, compose)
        follows |= spec.request() | {"x": spread(given, size)}
        made = sample_shared(ranks, sampler, size, wanted, condition, **follows)
        if made is None:
            return  # rank 0 has all samples, and writes them
        result = made
        if save_plan is not None:
            files.atomically(save_plan, sampler.plan().to_json().encode())
    if not all(result.finite):
        bad = [s for s, ok in zip(result.seeds, result.finite, strict=True) if not ok]
        raise ValueError(f"seeds {bad} gave values that are not finite; nothing was written")
    seconds = time.perf_counter() - began
    files.write(out, result, columns_of(result.recipe["condition"]))
    _report(out, result, seconds, as_json)


def _check_recipe(
    asked: dict[str, str], recipe: Recipe, world: int, own: Solver | None, own_driver: bool
) -> None:
    """Raises ValueError where options stand beside --recipe that would change what it makes."""
    from ..sampler.sampler import HOW

    # It holds all else but a user's solver and driver, and says what it needs.
    given = (
        HOW - {"dtype"}
        | {"out", "recipe", "model", "as_json"}
        | {"x", "known", "mask", "measurement", "plan"}.intersection(recipe.needs)
    )
    given |= {"database"} if any(name.startswith("names/") for name in recipe.origins) else set()
    given |= set() if own is None else {"solver", "option"}
    given |= {"driver", "driver_option"} if own_driver else set()
    if fixed := [option for name, option in asked.items() if name not in given]:
        raise ValueError(
            f"--recipe makes its samples as they were made: leave out {', '.join(fixed)}, or --recipe"
        )
    if world > 1:
        raise ValueError("--recipe makes its samples in one process; start it without torchrun")


def _check_plan(asked: dict[str, str]) -> None:
    """Raises ValueError where options stand beside --plan that it says itself."""
    said = Spec.model_fields.keys() - {"noise", "dtype"}
    said |= {"option", "guider_option", "driver_option", "save_plan", "compose"}
    if fixed := [option for name, option in asked.items() if name in said]:
        raise ValueError(f"--plan says {', '.join(fixed)} itself: leave that out, or --plan")


def _check_saved(leader: Driver | None, compose: list[str] | None) -> None:
    """Raises ValueError where no plan says what --save-plan would write."""
    if compose:
        raise ValueError("--save-plan writes the plan of one condition: leave it out, or --compose")
    if leader is not None and leader.leads:
        raise ValueError(
            f"driver {leader.name!r} writes its rows while they run, and no plan says them: leave out "
            "--save-plan, or the driver"
        )


def _rule(saved: Recipe | None, table: Plan | None, own: Solver | None) -> Solver | None:
    """The solver of a recipe, or of a plan where it is one of this package; None of neither."""
    from ..sampler.recipe import solver_in
    from ..solvers import SOLVERS
    from ..solvers import solver as named

    if table is not None:
        return named(table.name) if table.name in SOLVERS else own
    return None if saved is None or "plan" in saved.needs else solver_in(saved, own)


def _replayed(
    network: ScoreNetwork,
    saved: Recipe,
    table: Plan | None,
    rule: Solver,
    how: dict[str, Any],
    more: dict[str, Any],
) -> Result:
    from ..sampler.sampler import Sampler

    given = {n: value for n, value in (more | {"plan": table}).items() if value is not None}
    own = {} if "plan" in saved.needs else {"solver": rule}
    return Sampler.replay(network, saved, how | own, **given)


def _model_of(recipe: Recipe) -> str:
    """The shipped network of a recipe. Others run code or read files, which a recipe shall not choose."""
    from ..zoo import names

    name = recipe.network
    if name not in names():
        raise ValueError(f"the recipe's network {name!r} does not ship; say which it is by --model")
    return name


def _report(out: Path, result: Result, seconds: float, as_json: bool) -> None:
    count = len(result.seeds)
    if not as_json:
        each = "calls each" if result.reports is None else "calls at most"
        typer.echo(f"{out}: {count} samples, {result.nfe} {each}, {seconds:.2f} s")
        return
    about: dict[str, Any] = {
        "out": str(out),
        "n": count,
        "nfe": result.nfe,
        "seconds": round(seconds, 3),
    }
    if result.reports is not None:
        about["reports"] = result.reports
    typer.echo(json.dumps(about | {"evaluations": result.evaluations, "recipe": result.recipe}))
