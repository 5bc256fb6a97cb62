"""The command `serve`."""

from __future__ import annotations

import json
import logging
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import Json, written

if TYPE_CHECKING:
    from ..server.settings import Settings
    from ..workers.service import Service


def serve(
    context: typer.Context,
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="a network, as of `sample`; name=network where it is no name; repeatable"
        ),
    ] = None,
    config: Annotated[Path | None, typer.Option(help="TOML file of settings")] = None,
    host: Annotated[str | None, typer.Option(help="address to listen on; 127.0.0.1")] = None,
    port: Annotated[int | None, typer.Option(help="0 takes a free one; 8000")] = None,
    uds: Annotated[Path | None, typer.Option(help="Unix socket to listen on instead")] = None,
    key_file: Annotated[
        Path | None, typer.Option(help="file of keys, one a line, where --host is no loopback")
    ] = None,
    device: Annotated[
        list[str] | None, typer.Option(help="of a worker; repeatable; every GPU, or else the CPU")
    ] = None,
    capacity: Annotated[int | None, typer.Option(help="samples of one batch; 16")] = None,
    executor: Annotated[str | None, typer.Option(help="as of `sample`")] = None,
    batch: Annotated[str | None, typer.Option(help="bucket, or fixed: calls of one size")] = None,
    accelerate: Annotated[bool, typer.Option(help="fused ops, where that is faster")] = False,
    threads: Annotated[str | None, typer.Option(help="of the CPU: a number, or measured")] = None,
    dtype: Annotated[str | None, typer.Option(help="as of `sample`")] = None,
    max_queue: Annotated[int | None, typer.Option(help="requests at a time; 1024")] = None,
    max_cost: Annotated[int | None, typer.Option(help="entries x rows of a request")] = None,
    drain: Annotated[
        float | None, typer.Option(help="seconds to end what was accepted; 30")
    ] = None,
    ready_file: Annotated[
        Path | None, typer.Option(help="file that holds address and pid while requests are taken")
    ] = None,
    print_config: Annotated[bool, typer.Option(help="print all settings as TOML, and end")] = False,
    as_json: Json = False,
) -> None:
    """Serves networks over HTTP until SIGTERM or SIGINT; more settings stand in a file or the environment."""
    from ..server.listen import Unable
    from ..server.run import announce, run
    from ..server.settings import Settings

    names = {"model": "models", "device": "devices"}
    own = {"config", "ready_file", "print_config", "as_json"}
    given: dict[str, Any] = {
        name: context.params[name] for name in written(context) if name not in own
    }
    given |= {name: list(value) for name, value in given.items() if isinstance(value, tuple)}
    settings = Settings.read(config, {names.get(name, name): v for name, v in given.items()})
    if print_config:
        typer.echo(settings.to_toml())
        return
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")

    announced: list[Path] = []

    def tell(about: dict[str, Any]) -> None:
        if ready_file is not None:
            announce(ready_file, about)
            announced.append(ready_file)
        said = f"serving {', '.join(about['models'])} at {about['address']} (pid {about['pid']})"
        with suppress(OSError):  # of a disk that is full, or a pipe that nobody reads
            print(json.dumps(about) if as_json else said, flush=True)

    try:
        code = run(service_of(settings), settings, tell)
    except Unable as error:
        typer.echo(f"diffusion-engine: {error}", err=True)
        code = 1
    finally:
        for file in announced:  # where none was, the file is another server's
            file.unlink(missing_ok=True)
    raise typer.Exit(code)


def service_of(settings: Settings) -> Service:
    """The service of a command: a worker for each device, for the networks that the settings name."""
    from ..workers.devices import devices
    from ..workers.supervisor import Supervisor

    how = ("capacity", "executor", "batch", "accelerate", "threads", "dtype")
    options = {name: value for name in how if (value := getattr(settings, name)) is not None}
    return Supervisor(
        settings.models, settings.devices or devices(), options, max_queue=settings.max_queue,
        max_cost=settings.max_cost, memory=settings.worker_memory, hang_s=settings.hang,
        retries=settings.retries, quarantine_s=settings.quarantine,
    )  # fmt: skip
