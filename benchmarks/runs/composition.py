"""What a Markov chain does for compositions of the digits network: python -m benchmarks.runs.composition.

Settled before the first row of each: 20 levels of ddpm, each with 3 moves of ULA of a step 0.1 sigma^2, and
ddpm alone in as many steps and in as many calls. Two compositions whose right answer samples can tell:

    sharpened  p(x | c)^3 p(x)^-2, that is p(x | c) p(c | x)^2 with a constant: nearly the law of the digit c,
               of which hardly one is doubtful. Measured: Frechet distance from the law of the digits, recall
    both       p(x | a) p(x | b) / p(x), digits that may be read as a and as b. Measured: the share whose two
               likeliest digits are a and b
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from diffusion_engine import Sampler
from diffusion_engine.evaluation import Estimate, describe, quality, shipped
from diffusion_engine.evaluation.features import classifier
from diffusion_engine.zoo import load_network

from .. import results

CHAIN = {
    "name": "annealed_mcmc",
    "options": {"sampler": "ula", "steps": 3, "step": 0.1, "unit": "sigma"},
}
# name: steps, options of Sampler
CONTENDERS: dict[str, tuple[int, dict[str, Any]]] = {
    "ddpm, as many steps": (20, {}),
    "ddpm, as many calls": (80, {}),
    "ddpm and ULA": (20, {"driver": CHAIN}),
}
SCALE, SAMPLES = 3.0, 300
PAIRS, EACH = ((4, 9), (3, 5), (7, 9)), 50


def sampler_of(name: str, **options: Any) -> Sampler:
    steps, own = CONTENDERS[name]
    return Sampler(load_network("digits"), "ddpm", steps, **own, **options)


def sharpened(name: str) -> tuple[Tensor, int]:
    """Samples, the digits in turn, and calls."""
    made = sampler_of(name, guidance=SCALE, batch_size=100).sample(
        seeds=range(SAMPLES), condition=asked(), progress=False
    )
    return made.samples, made.nfe


def both(name: str) -> tuple[Tensor, int]:
    """Samples, `EACH` of each pair, and calls."""
    sampler, parts, calls = sampler_of(name, batch_size=EACH), [], 0
    for i, pair in enumerate(PAIRS):
        made = sampler.sample(
            seeds=range(i * EACH, (i + 1) * EACH),
            compose=[(digit, 1.0) for digit in pair],
            progress=False,
        )
        parts.append(made.samples)
        calls = made.nfe
    return torch.cat(parts), calls


def asked() -> list[int]:
    return [i % 10 for i in range(SAMPLES)]


def of_sharpened(samples: Tensor) -> Mapping[str, Estimate]:
    found = quality(describe(samples), shipped(), asked())
    return {"Frechet": found.frechet, "recall": found.recall}


def of_both(samples: Tensor) -> Mapping[str, Estimate]:
    with torch.no_grad():
        logits = classifier().head(describe(samples).features.relu())
    likeliest = logits.topk(2, dim=1).indices.sort(dim=1).values
    wanted = torch.tensor(PAIRS).repeat_interleave(len(samples) // len(PAIRS), dim=0)
    return {"both": Estimate.share((likeliest == wanted).all(dim=1))}


PARTS = {"sharpened": (sharpened, of_sharpened), "both": (both, of_both)}


def rows(part: str, name: str, samples: Tensor, calls: int) -> Iterator[results.Row]:
    for quantity, found in PARTS[part][1](samples).items():
        yield results.row(
            torch.device("cpu"), results.COMPOSITION_KEYS, composition=part, contender=name, calls=calls,
            samples=len(samples), quantity=quantity, value=found.value, spread=found.spread,
        )  # fmt: skip


def measure() -> Iterator[results.Row]:
    torch.set_num_threads(1)
    for part, (sample, _) in PARTS.items():
        for name in CONTENDERS:
            for row in rows(part, name, *sample(name)):
                print(part, name, row["quantity"], row["value"], file=sys.stderr, flush=True)
                yield row


def main() -> None:
    print(f"wrote {results.replace(list(measure()), results.COMPOSITION)}")


if __name__ == "__main__":
    main()
