"""Bulk generation by Ray Data: a table of (index, seed, condition) becomes shards on disk.

A row of the dataset is a whole shard: batches of Ray Data end where blocks do, and depend on who was fast.
Ray makes the rows of a killed node again, as often as it takes, and a sample is a function of its seed: the
shard that is made again has the same bytes.
"""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from .. import checks
from ..engine import Engine, EngineError
from ..models import network_of
from ..networks.network import ScoreNetwork
from ..networks.placement import AUTO, named_dtype, place
from ..sampler.sampler import Sampler
from ..sampler.spec import Spec
from ..solvers import solver
from . import shards
from .table import Table

FORMS = ("dtype", "bucket", "network_form", "threads")  # of a recipe: what its bits depend on


@dataclass(frozen=True)
class Progress:
    """A shard is there.

    name, samples  of it; kept: whether it was there before
    node           that made or checked it, its address
    shards, of     how many are there, of all; done and total: their samples
    seconds        since the start
    """

    name: str
    samples: int
    kept: bool
    node: str
    shards: int
    of: int
    done: int
    total: int
    seconds: float


class Failed(RuntimeError):
    """Shards could not be made; what is there stays, and the same call makes the rest."""


def generate(
    model: str,
    table: Table,
    out: Path,
    spec: Spec | Mapping[str, Any],
    *,
    samples_per_shard: int = 256,
    capacity: int = 16,
    executor: str = "eager",
    dtype: str | None = None,
    threads: int | None = 1,
    actors: int | None = None,
    num_cpus: float = 1.0,
    num_gpus: float = 0.0,
    told: Callable[[Progress], Any] = lambda progress: None,
) -> list[dict[str, Any]]:
    """Makes every sample of a table, or those that a folder lacks, on the cluster that `ray.init` joined.

    model              the name of a network that ships, a file of one, or package.module:function
    table              its rows; each becomes the sample of its seed and condition
    out                a folder that all nodes share; what is whole in it is kept, after its checksum
    spec               what is asked of the sampler, one for all rows
    samples_per_shard  indices of a file; it and the index say in which file a sample is
    capacity           samples of a call: calls have one size, that a sample depends on no neighbour
    executor, threads  as in Engine; threads=None leaves torch's, which a node's cores decide
    dtype              by its name, as in Engine; "auto" is what suits this machine, on every node
    actors             that work at a time; as many as the cluster has room for
    num_cpus, num_gpus of an actor; with a GPU its network is there
    told               called with each shard

    Returns what the manifest says of the shards. Raises ValueError before anything is written where an
    argument makes no sense or the folder is another recipe's, Failed where shards could not be made.
    """
    wanted = "at least 1 sample a shard"
    size = checks.whole("samples_per_shard", samples_per_shard, 1, wanted)
    network = network_of(model)
    asked = spec if isinstance(spec, Spec) else Spec.model_validate(spec)
    _check(network, asked, table)
    job = {
        "model": model, "weights": weights_sum(network), "spec": asked.model_dump(mode="json"),
        "samples_per_shard": size, "capacity": checks.whole("capacity", capacity, 1, "at least 1"),
        "executor": executor, "threads": threads, "device": "cuda" if num_gpus else "cpu",
        "dtype": _dtype(network, dtype, num_gpus), "samples": len(table), "table": table.digest(),
    }  # fmt: skip
    parts = dict(table.shards(size))
    with shards.opened(out, job):
        pool = _pool(actors, len(parts), num_cpus, num_gpus)
        made = _run(
            job, parts, out.resolve(), pool, {"num_cpus": num_cpus, "num_gpus": num_gpus}, told
        )
        about = [made[name] for name in parts]
        shards.put_manifest(out, job, about)
    return about


def _dtype(network: ScoreNetwork, given: str | None, gpus: float) -> str | None:
    """The name of the one in which all nodes compute; None for the module's own."""
    dtype = named_dtype(given)
    if dtype == AUTO:
        dtype = None if gpus else place(network.module, AUTO, "cpu")[0]
    return None if dtype is None else str(dtype).removeprefix("torch.")


def weights_sum(network: ScoreNetwork) -> str:
    """SHA-256 of a network's weights, by which nodes know that they have the same."""
    made = hashlib.sha256()
    for name, value in _state(network).items():
        plain = value.detach().cpu().contiguous()
        made.update(f"{name} {plain.dtype} {list(plain.shape)}".encode())
        made.update(plain.reshape(-1).view(torch.uint8).numpy().data)
    return made.hexdigest()


def _state(network: ScoreNetwork) -> Mapping[str, torch.Tensor]:
    module = network.module
    return module.state_dict() if isinstance(module, torch.nn.Module) else {}


def _check(network: ScoreNetwork, spec: Spec, table: Table) -> None:
    """Raises ValueError where the network cannot make the rows."""
    if spec.start is not None or spec.noised or spec.encoding is not None:
        raise ValueError("bulk generation begins with noise; leave out start, noised and encoding")
    Sampler(network, solver(spec.solver.name, **spec.solver.options), **spec.arguments()).plan()
    if table.condition is None:
        return
    if network.classes is None:
        raise ValueError(f"the network {network.name!r} has no classes; leave condition out")
    low, high = int(table.condition.min()), int(table.condition.max())
    if low < 0 or high >= network.classes:
        wrong = low if low < 0 else high
        raise ValueError(
            f"condition={wrong}: the network knows the classes 0 to {network.classes - 1}"
        )


def _pool(actors: int | None, parts: int, cpus: float, gpus: float) -> int:
    """How many actors work. Raises ValueError where not one has room."""
    import ray

    have = ray.cluster_resources()
    room = [have.get(kind, 0.0) // of for kind, of in (("CPU", cpus), ("GPU", gpus)) if of]
    most = int(min(room)) if room else parts
    if most < 1:
        raise ValueError(
            f"an actor wants {cpus:g} CPUs and {gpus:g} GPUs, and the cluster has {have.get('CPU', 0):g} and "
            f"{have.get('GPU', 0):g}; ask for fewer"
        )
    given = most if actors is None else checks.whole("actors", actors, 1, "at least 1")
    return min(given, parts)


def _run(
    job: dict[str, Any],
    parts: Mapping[str, Table],
    out: Path,
    actors: int,
    each: dict[str, float],
    told: Callable[[Progress], Any],
) -> dict[str, dict[str, Any]]:
    """What is said of each shard, by its name."""
    import ray.data

    logging.getLogger("ray.data").setLevel(logging.ERROR)
    ray.data.DataContext.get_current().enable_progress_bars = False
    rows = [{"name": name} | part.signed() for name, part in parts.items()]
    how: dict[str, Any] = each | {
        "fn_constructor_args": (job, str(out)),
        "compute": ray.data.ActorPoolStrategy(min_size=1, max_size=actors),
    }
    found = ray.data.from_items(rows, override_num_blocks=len(rows)).map(_MAKER, **how)
    rows_of: Any = iter(found.iter_rows())
    with closing(rows_of):  # which ends what Ray still runs for it
        return _gathered(rows_of, parts, out, told)


def _gathered(
    found: Iterator[dict[str, Any]],
    parts: Mapping[str, Table],
    out: Path,
    told: Callable[[Progress], Any],
) -> dict[str, dict[str, Any]]:
    began, done, total = time.monotonic(), 0, sum(map(len, parts.values()))
    made: dict[str, dict[str, Any]] = {}
    wrong: list[str] = []
    for one in found:
        name = one["name"]
        if one["stop"] or (not one["error"] and not shards.path_of(out, name).exists()):
            reason = (
                one["error"] or f"{one['node']} wrote it to a disk of its own; share the folder"
            )
            raise Failed(f"shard {name} of {out} could not be written: {reason}")
        if one["error"]:
            wrong.append(f"{name}: {one['error']}")
            continue
        done += len(parts[name])
        made[name] = {"name": f"{name}.safetensors", "samples": len(parts[name])} | {
            key: one[key] for key in ("sha256", "form")
        }
        took = time.monotonic() - began
        where = (len(made), len(parts), done, total, took)
        told(Progress(name, len(parts[name]), bool(one["kept"]), one["node"], *where))
    if wrong:
        raise Failed(f"{len(wrong)} of {len(parts)} shards could not be made, first {wrong[0]}")
    return made


class Maker:
    """An actor's part: an Engine, made with the first shard that is not whole."""

    def __init__(self, job: dict[str, Any], out: str) -> None:
        self._job, self._out = job, Path(out)
        self._engine: Engine | None = None

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """What is said of a shard: in `error` what went wrong, in `stop` whether others would meet it."""
        said = {"name": row["name"], "node": _node(), "kept": False, "stop": False,
                "error": "", "sha256": "", "form": ""}  # fmt: skip
        path = shards.path_of(self._out, row["name"])
        rows = Table.of_signed(row)
        try:
            said["kept"] = shards.objection(path, rows) is None
            if not said["kept"]:
                shards.write(path, self._made(rows))
            recipe = shards.recipe_of(path)
            said["form"] = ", ".join(f"{key} {recipe[key]}" for key in FORMS if recipe.get(key))
            said["sha256"] = shards.file_sum(path)
        except OSError as error:
            reason = error.strerror or str(error)
            said |= {
                "error": f"{reason} on {said['node']}; make room, and start again",
                "stop": True,
            }
        except ValueError as error:
            said |= {"error": str(error), "stop": True}
        except EngineError as error:
            said["error"] = str(error)
        return said

    def _made(self, rows: Table) -> bytes:
        if self._engine is None:
            self._engine = self._opened()
        condition = None if rows.condition is None else rows.condition.tolist()
        given = {} if condition is None else {"condition": condition}
        made = self._engine.submit(self._job["spec"], seeds=rows.seed.tolist(), **given).result()
        return shards.content(rows, made.samples.float().cpu().numpy(), made.recipe)

    def _opened(self) -> Engine:
        job = self._job
        network = network_of(job["model"], device=job["device"])
        if (found := weights_sum(network)) != job["weights"]:
            raise ValueError(
                f"the weights of {job['model']!r} on {_node()} are others ({found[:12]}) than "
                f"where the run was started ({job['weights'][:12]}); give every node the same file"
            )
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")
        how = {key: job[key] for key in ("executor", "threads", "device")}
        how["dtype"] = named_dtype(job["dtype"])
        return Engine(network, job["capacity"], batch="fixed", **how)


def _node() -> str:
    """The address of this node."""
    import ray.util

    return str(ray.util.get_node_ip_address())


_MAKER: Any = Maker  # Ray's types know no class in place of a function
