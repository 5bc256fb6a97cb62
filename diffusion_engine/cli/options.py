"""What several commands ask for: their options' types, and how the text of one is read."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..models import found, network_of
from ..sampler.spec import Spec

if TYPE_CHECKING:
    import torch

    from ..drivers import Driver
    from ..networks.network import ScoreNetwork
    from ..solvers import Solver


def _about(name: str) -> str:
    """What Spec says of a field."""
    return str(Spec.model_fields[name].description)


Model = Annotated[
    str,
    typer.Option(
        help="a shipped network, whose own solver, steps and guidance hold where none are given; a "
        ".safetensors file with its .json; a checkpoint's folder, as `convert` writes it; "
        "package.module:function that returns a ScoreNetwork; or exact, a mixture's closed form that suits "
        "the solver"
    ),
]
SolverName = Annotated[
    str | None,
    typer.Option(
        "--solver",
        help="a name of `diffusion-engine solvers`, or package.module:name of a solver of yours; the model's "
        "own",
    ),
]
Steps = Annotated[int | None, typer.Option(help=_about("steps"))]
Grid = Annotated[str | None, typer.Option(help=_about("grid"))]
End = Annotated[str | None, typer.Option(help=_about("end"))]
Guidance = Annotated[float | None, typer.Option(help=_about("guidance"))]
Option = Annotated[list[str] | None, typer.Option(help="a solver's option, as eta=0.5; repeatable")]
DriverName = Annotated[
    str | None,
    typer.Option(
        "--driver",
        help="what leads samples beside the solver's table: a name of `diffusion-engine drivers`, or "
        "package.module:name of a driver of yours",
    ),
]
DriverOption = Annotated[
    list[str] | None, typer.Option(help="a driver's option, as rtol=0.01; repeatable")
]
Classes = Annotated[
    str, typer.Option("--class", help="class of the samples, taken in turn: 3, 0-9, all or none")
]
BatchSize = Annotated[int, typer.Option(help="samples a network call at most")]
Backend = Annotated[str, typer.Option(help="auto, torch, cpp, triton or cuda")]
Device = Annotated[str | None, typer.Option(help="cpu or cuda; the GPU where there is one")]
Accelerate = Annotated[
    bool, typer.Option(help="put fused ops into the network, where that is faster")
]
Executor = Annotated[
    str,
    typer.Option(
        help="eager; graph: replay CUDA graphs of a step; native: replay the network in C++, on the CPU; "
        "onnxruntime or openvino, which run it there; or auto: the fastest of those that are installed"
    ),
]
Dtype = Annotated[
    str | None,
    typer.Option(
        help="in which the network is computed: float32, bfloat16, float16 or float64; or auto: on a CPU "
        "bfloat16 with AMX, else float32; the module's own"
    ),
]
Threads = Annotated[
    str | None,
    typer.Option(
        help="of the CPU that run the network: a number, or measured, which keeps the fastest; torch's own"
    ),
]
Compile = Annotated[bool, typer.Option(help="the network through torch.compile")]
Noise = Annotated[str | None, typer.Option(help=_about("noise"))]
Guider = Annotated[str | None, typer.Option(help=_about("guider"))]
GuiderOption = Annotated[
    list[str] | None, typer.Option("--guider-option", help="of the guider, as momentum=-0.5")
]
Forecast = Annotated[
    list[str] | None,
    typer.Option("--forecast", help=_about("forecast")),
]
Refine = Annotated[int, typer.Option("--refine", help=_about("encoding"))]
Start = Annotated[float | None, typer.Option(help=_about("start"))]
Known = Annotated[
    Path | None, typer.Option(help="an image that samples keep where --mask is black")
]
Mask = Annotated[
    Path | None, typer.Option(help="an image: white where samples are free to differ from --known")
]
Measurement = Annotated[
    Path | None,
    typer.Option(
        help="what samples follow with a driver of inverse problems: .npz, .npy or .safetensors"
    ),
]
Noised = Annotated[bool, typer.Option("--noised", help=_about("noised"))]
Json = Annotated[bool, typer.Option("--json", help="print JSON")]


MOST = 1_000_000  # samples of one command
CONSTANTS = {"True": True, "False": False, "None": None}


def written(context: typer.Context) -> dict[str, str]:
    """The parameters that stand on the command line, each with its option: classes as --class."""
    sources = {p: context.get_parameter_source(str(p.name)) for p in context.command.params}
    return {
        str(p.name): p.opts[0]
        for p, source in sources.items()
        if source and source.name == "COMMANDLINE"
    }


def spec_of(context: typer.Context, network: ScoreNetwork, rule: Solver, **more: Any) -> Spec:
    """What a command's options ask of a sampler, those that are fields of a Spec, over the network's own.

    more  in place of what the command line says
    """
    from ..sampler import defaults
    from ..sampler.recipe import about

    own = Spec.model_fields.keys() - {"dtype"}  # how_of has it
    given = {k: v for k, v in context.params.items() if k in own} | {"solver": rule}
    asked = defaults.asked(network, **given)
    if options := options_of("--guider-option", context.params.get("guider_option")):
        if asked.get("guider") is None:
            raise ValueError("--guider-option goes with --guider: say which")
        asked["guider"] = {"name": asked["guider"], "options": options}
    if "forecast" in asked:
        asked["forecast"] = options_of("--forecast", asked["forecast"]) or None
    return Spec(**asked | more | {"solver": about(rule)})


def how_of(context: typer.Context, place: torch.device) -> dict[str, Any]:
    """What a command's options say of how the network is run, on a device."""
    from ..sampler.sampler import HOW

    made = {k: v for k, v in context.params.items() if k in HOW} | {"device": place}
    if (threads := made.get("threads")) is not None:
        made["threads"] = int(threads) if threads.isdecimal() else threads
    if "dtype" in made:
        from ..networks.placement import named_dtype

        made["dtype"] = named_dtype(made["dtype"])
    return made


def numbers(text: str) -> list[int]:
    """The integers of "0-3,7": [0, 1, 2, 3, 7]."""
    made: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,20})(?:\s*-\s*(\d{1,20}))?\s*", part)
        if not match:
            raise ValueError(f"{text!r} is no list of numbers; write it as 3, 0-9 or 1,4,7")
        low, high = int(match[1]), int(match[2] or match[1])
        if high < low:
            raise ValueError(f"{part!r} runs from {low} to {high}; write the lower one first")
        if len(made) + high - low >= MOST:
            raise ValueError(f"{text!r} are more than {MOST} numbers; ask for fewer at once")
        made += range(low, high + 1)
    return made


def options_of(named: str, given: list[str] | None) -> dict[str, Any]:
    """Options written as name=value: values are JSON or Python's True, False and None, else text."""
    made: dict[str, Any] = {}
    for item in given or []:
        option, equals, value = item.partition("=")
        if not equals:
            raise ValueError(f"{named} {item!r}: write it as name=value")
        if option in made:
            raise ValueError(f"{named} {option} is given twice; leave one out")
        try:
            made[option] = json.loads(value)
        except (ValueError, RecursionError):
            made[option] = CONSTANTS.get(value, value)
    return made


def solver_of(name: str, given: list[str] | None) -> Solver:
    """The solver of a name, eta=0.5 as its eta: values are JSON where they can be, else text."""
    from ..adapters.checkpoint.folder import config_of
    from ..learned import names as shipped
    from ..solvers import solver

    made = options_of("--option", given)
    if ":" not in name:
        # Here, and in no JSON, the text of a table is a file's name.
        given = made.get("table")
        if name == "learned" and isinstance(given, str) and given not in shipped():
            made["table"] = Path(given)
        if name == "exp_rk" and str(made.get("tableau")).endswith(".json"):
            made["tableau"] = config_of(Path(made["tableau"]))
        return solver(name, **made)
    own = found("--solver", name)
    return solver(own(**made)) if isinstance(own, type) else solver(own, **made)


def chosen(
    model: str,
    place: torch.device,
    name: str | None,
    given: list[str] | None,
    encodes: bool = False,
) -> tuple[ScoreNetwork, Solver]:
    """The network that --model names, and the solver of --solver; without one the network's own.

    encodes  take one that runs upwards in place of the network's own
    """
    from ..sampler import defaults
    from ..solvers import solver

    if name is not None:
        rule = solver_of(name, given)
        return network_of(model, rule, place), rule
    network = network_of(model, None, place)
    own, options = defaults.encoder(network) if encodes else defaults.solver(network)
    return network, solver(own, **options | options_of("--option", given))


def guidance_of(network: ScoreNetwork, asked: float | None, conditional: bool) -> float:
    """What --guidance says; without it the network's own scale, where samples have a class."""
    from ..sampler import defaults

    return defaults.guidance(network, conditional) if asked is None else asked


def driver_of(name: str | None, given: list[str] | None) -> Driver | None:
    """The driver of a name, rtol=0.01 as its rtol; None without a name."""
    from ..drivers import driver

    made = options_of("--driver-option", given)
    if name is None:
        if made:
            raise ValueError(f"--driver-option {', '.join(made)}: say by --driver whose that is")
        return None
    if ":" not in name:
        return driver(name, **made)
    own = found("--driver", name)
    return driver(own(**made)) if isinstance(own, type) else driver(own, **made)


def device_of(device: str | None, number: int = 0) -> torch.device:
    """The device of a name, the GPU where there is one; of several GPUs the one of that number."""
    import torch

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
    return place
