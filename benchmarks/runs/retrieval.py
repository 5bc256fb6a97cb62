"""What emoji_retrieval makes of neighbours, measured: python -m benchmarks.runs.retrieval.

Settled before there were weights: every tenth training picture by its name, with one seed each. The network
is told the 4 nearest of all names, so that the picture itself is the first; or the 4 nearest of all others.
A sample is found where the picture is among its 5 nearest by the features of emoji_categories, and memorised
as diffusion_engine.drivers.memorisation says it.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from diffusion_engine import Sampler
from diffusion_engine.drivers.database import Database
from diffusion_engine.evaluation import Estimate
from diffusion_engine.evaluation.cases import weights_of
from diffusion_engine.evaluation.pictures import NEAR, Pictures, trained
from diffusion_engine.sampler import defaults
from diffusion_engine.zoo import load_network

from .. import results
from .genie import CPU

MODEL, EVERY, BATCH = "emoji_retrieval", 10, 50
WAYS = ("itself the first", "itself left out")


def contexts(database: Database, places: Sequence[int], way: str) -> Tensor:
    """What the network is told of names of the database [n, k, width]."""
    retrieval = database.retrieval
    own = retrieval.index.embeddings[list(places)]
    found = retrieval.index.neighbours(own, database.k + 1)
    itself = found.indices == torch.tensor(places)[:, None]
    # Stable: others keep their order.
    order = (itself if way == WAYS[1] else ~itself).int().argsort(dim=1, stable=True)
    chosen = found.embeddings.gather(1, order[..., None].expand_as(found.embeddings))
    return retrieval.scale * chosen[:, : database.k]


def measured(path: str, pictures: Pictures, way: str) -> Iterator[results.Row]:
    """The rows of a way to choose neighbours."""
    network = load_network(path)
    assert isinstance(network.null, Tensor)
    database = Database(tuple(pictures.names), len(network.null))
    places = list(range(0, len(pictures.names), EVERY))
    scale = defaults.guidance(network, True)
    sampler = Sampler(network, guidance=scale, batch_size=BATCH)
    made = sampler.sample(condition=contexts(database, places, way), progress=False)
    shown = pictures.shown(pictures.seen(made.samples), [pictures.names[i] for i in places])
    for quantity, found in quantities(shown.ranks, shown.features, pictures):
        yield results.row(
            CPU, results.RETRIEVAL_KEYS, way=way, weights=weights_of(path), calls=made.nfe,
            guidance=scale, samples=len(places), quantity=quantity, value=found.value,
            spread=found.spread,
        )  # fmt: skip


def quantities(
    ranks: Tensor, features: Tensor, pictures: Pictures
) -> Iterator[tuple[str, Estimate]]:
    """Figures of samples, and in place of the distances those that held-out pictures have."""
    yield "found", Estimate.share(ranks <= NEAR)
    yield "nearest", Estimate.share(ranks == 1)
    about = pictures.memorisation(features).to_dict()
    for who in ("samples", "held_out"):
        yield f"median d1, {who}", Estimate(about[who]["distance"]["median"], 0.0)
        yield f"below 1/3, {who}", Estimate(about[who]["below_ratio"], 0.0)


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", default=MODEL, help="a name or a .safetensors file")
    path = parser.parse_args(words).weights
    torch.set_num_threads(1)
    rows = [row for way in WAYS for row in measured(path, trained(), way)]
    for row in rows:
        print(row["way"], row["quantity"], row["value"], flush=True)
    print(f"wrote {results.replace(rows, results.RETRIEVAL)}")


if __name__ == "__main__":
    main()
