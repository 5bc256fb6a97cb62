"""The commands of `diffusion-engine ray`: generate and serve, on one machine or on a cluster."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .conditions import classes_of
from .options import (
    Classes,
    Dtype,
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
    chosen,
    device_of,
    guidance_of,
    numbers,
    spec_of,
)

if TYPE_CHECKING:
    from ..networks.network import ScoreNetwork
    from ..ray.generate import Progress
    from ..ray.table import Table

app = typer.Typer(no_args_is_help=True, help="Many machines, by Ray.")

Address = Annotated[
    str | None,
    typer.Option(help="of a Ray cluster, host:port or auto; one of this machine alone without it"),
]
Cpus = Annotated[float, typer.Option("--cpus", help="of each")]
Gpus = Annotated[float, typer.Option("--gpus", help="of each")]


@app.command()
def generate(
    context: typer.Context,
    table: Annotated[
        str,
        typer.Option(
            help=".csv or .parquet of index, seed and condition; or 0-49999, indices that are the seeds"
        ),
    ],
    out: Annotated[Path, typer.Option(help="a folder that all nodes share")],
    model: Model = "digits",
    solver: SolverName = None,
    steps: Steps = None,
    classes: Classes = "all",
    guidance: Guidance = None,
    grid: Grid = None,
    end: End = None,
    option: Option = None,
    noise: Noise = None,
    samples_per_shard: Annotated[int, typer.Option(help="indices of a file")] = 256,
    capacity: Annotated[int, typer.Option(help="samples of a network call")] = 16,
    executor: Executor = "eager",
    dtype: Dtype = None,
    threads: Annotated[int, typer.Option(help="of the CPU that run the network", min=1)] = 1,
    actors: Annotated[
        int | None, typer.Option(help="that work at a time; as many as there is room for")
    ] = None,
    cpus: Cpus = 1.0,
    gpus: Gpus = 0.0,
    address: Address = None,
    as_json: Json = False,
) -> None:
    """Makes a table of samples as shards in a folder; what is there already is kept."""
    from ..ray import cluster
    from ..ray.generate import Failed
    from ..ray.generate import generate as made_of

    cluster.check_version()
    network, rule = chosen(model, device_of("cpu"), solver, option)
    rows = _table(table, network, classes)
    scale = guidance_of(network, guidance, rows.condition is not None)
    spec = spec_of(context, network, rule, guidance=scale)
    with cluster.joined(address):
        try:
            found = made_of(
                model, rows, out, spec, samples_per_shard=samples_per_shard, capacity=capacity,
                executor=executor, dtype=dtype, threads=threads, actors=actors, num_cpus=cpus, num_gpus=gpus,
                told=_nothing if as_json else _told,
            )  # fmt: skip
        except Failed as error:
            raise ValueError(str(error)) from error
    about = {"out": str(out), "samples": len(rows), "shards": len(found)}
    typer.echo(
        json.dumps(about) if as_json else f"{out}: {len(rows)} samples in {len(found)} shards"
    )


@app.command()
def serve(
    model: Annotated[
        list[str] | None,
        typer.Option(help="a network, as of `serve`; name=network where it is no name; repeatable"),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="TOML file of settings, as of `serve`")
    ] = None,
    host: Annotated[str | None, typer.Option(help="address to listen on; 127.0.0.1")] = None,
    port: Annotated[int | None, typer.Option(help="8000")] = None,
    key_file: Annotated[
        Path | None, typer.Option(help="file of keys, one a line, that every node has")
    ] = None,
    replicas: Annotated[int, typer.Option(help="how many; with --most the least", min=1)] = 1,
    most: Annotated[
        int | None, typer.Option(help="replicas that waiting work may want; as many as --replicas")
    ] = None,
    seconds: Annotated[
        float, typer.Option(help="that a replica's work may take before another is wanted")
    ] = 10.0,
    every_node: Annotated[
        bool, typer.Option("--every-node", help="listen on every node, not on the head alone")
    ] = False,
    cpus: Cpus = 1.0,
    gpus: Gpus = 0.0,
    address: Address = None,
) -> None:
    """Serves networks over HTTP by replicas on a cluster, until SIGTERM or SIGINT."""
    from ..ray import cluster

    cluster.check_version()
    from ..ray.serve import start, until_signal
    from ..server.settings import Settings

    flags = {"models": model, "host": host, "port": port, "key_file": key_file}
    given = {name: value for name, value in flags.items() if value is not None}
    settings = Settings.read(config, given)
    with cluster.joined(address):
        at = start(
            settings,
            every_node,
            replicas=replicas,
            most=most,
            seconds=seconds,
            num_cpus=cpus,
            num_gpus=gpus,
        )
        said = f"serving {', '.join(settings.models)} at {at}"
        until_signal(lambda: print(said, flush=True))


def _table(text: str, network: ScoreNetwork, classes: str) -> Table:
    from ..ray import table

    if text.endswith((".csv", ".parquet")):
        return table.read(Path(text))
    index = numbers(text)
    if index != list(range(index[0], index[0] + len(index))):
        raise ValueError(f"--table {text}: give a file, or one span of indices as 0-49999")
    return table.span(index[0], len(index), classes_of(network, classes, len(index)))


def _told(progress: Progress) -> None:
    rate = progress.done / progress.seconds if progress.seconds else 0.0
    who = "was there" if progress.kept else f"by {progress.node}"
    typer.echo(
        f"{progress.shards}/{progress.of} shards, {progress.done}/{progress.total} samples, "
        f"{rate:.1f} a second; {progress.name} {who}"
    )


def _nothing(progress: Progress) -> None:
    pass
