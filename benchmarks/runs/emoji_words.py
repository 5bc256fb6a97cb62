"""What the text encoder leaves of paraphrases: how often the caption that is nearest to one is of its own
picture, and what the network draws of that caption in its place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch

from diffusion_engine import Sampler
from diffusion_engine.evaluation.pictures import NEAR, Pictures
from diffusion_engine.evaluation.quality import Estimate
from diffusion_engine.networks.network import ScoreNetwork
from diffusion_engine.networks.text import TextEncoder
from diffusion_engine.sampler import defaults
from diffusion_engine.training import contexts
from diffusion_engine.training.emoji import emoji


def words(
    network: ScoreNetwork,
    pictures: Pictures,
    asked: Mapping[str, str],
    calls: int,
    seeds: list[int],
) -> Iterator[tuple[str, Estimate]]:
    """Shares of the paraphrases.

    asked   paraphrases and the names of what they mean
    seeds   of each paraphrase's sample
    """
    encoder = network.text
    assert isinstance(encoder, TextEncoder)
    tokens, rows = contexts.captions(emoji(), encoder)
    captions = torch.nn.functional.normalize(tokens[:, 0].float(), dim=1)
    alike = encoder.embed(list(asked)) @ captions.T
    best = alike[:, rows].amax(dim=2)
    own = pictures.places(list(asked.values()))
    ranks = 1 + (best > best.gather(1, own[:, None])).sum(dim=1)
    yield "nearest caption is its own", Estimate.share(ranks == 1)
    yield f"own caption among {NEAR}", Estimate.share(ranks <= NEAR)
    sampler = Sampler(network, steps=calls, guidance=defaults.guidance(network, True))
    nearest = tokens[alike.argmax(dim=1)].float()
    made = sampler.sample(condition=nearest, seeds=seeds, progress=False).samples
    shown = pictures.shown(pictures.seen(made), list(asked.values()))
    yield "nearest caption drawn, found", Estimate.share(shown.ranks <= NEAR)
