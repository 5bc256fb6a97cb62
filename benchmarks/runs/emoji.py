"""Pictures from words, measured: python -m benchmarks.runs.emoji; with names of parts, those anew.

The prompts, their seeds, the scales and the counts of calls were settled before there were weights:

    features     copies of training pictures, which should be nearest to their own
    captions     40 names of training pictures
    paraphrases  40 descriptions in other words, none of which is a training caption
    guidance     the captions at six scales
    calls        the captions by the network and by its distilled form, in few calls
    time         the command `sample` for 4 prompts, in a process of its own

Each prompt has `EACH` samples, and the first of them is the one that pages show. A sample is found where the
picture that it was asked for is among its 5 nearest training pictures (diffusion_engine.evaluation.pictures).
"""

from __future__ import annotations

import argparse
import csv
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from diffusion_engine import Sampler, ScoreNetwork
from diffusion_engine.evaluation import Estimate
from diffusion_engine.evaluation.cases import weights_of
from diffusion_engine.evaluation.pictures import (
    CLASSIFIER,
    NEAR,
    Pictures,
    Shown,
    diversity,
    trained,
)
from diffusion_engine.sampler import defaults
from diffusion_engine.training.emoji import emoji

from .. import results
from .emoji_prompts import PROMPTS, check, digests, prompts, trained_on
from .emoji_words import words
from .evaluation import Networks
from .genie import CPU

MODEL, STUDENT, CALLS, EACH = "emoji", "emoji_lcm", 20, 4
SCALES = (1.0, 2.0, 3.0, 4.0, 6.0, 8.0)
FEW = ((MODEL, 20), (MODEL, 4), (STUDENT, 4), (STUDENT, 2), (STUDENT, 1))
ASKED = ("a red heart", "a slice of pizza", "a panda", "a rocket")  # of the command that is timed
WAITING, REPEATS = ("passive", "active"), 5
BATCH = 40
SHIFTS = (2, 3)  # pixels


@dataclass(frozen=True)
class Case:
    """Samples of every prompt of a file.

    calls     of the network, in steps of its own solver
    guidance  None is the network's own scale
    """

    part: str
    model: str = MODEL
    calls: int = CALLS
    guidance: float | None = None
    file: str = "captions"

    def scale(self, network: ScoreNetwork) -> float:
        return defaults.guidance(network, True) if self.guidance is None else self.guidance


def cases(part: str) -> list[Case]:
    """What a part samples."""
    if part == "guidance":
        return [Case(part, guidance=scale) for scale in SCALES]
    if part == "calls":
        return [Case(part, model, calls) for model, calls in FEW]
    return [Case(part, file=part)]


def sampled(network: ScoreNetwork, case: Case, each: int = EACH) -> Tensor:
    """The first `each` samples of every prompt, one prompt after another; the prompt i has the seeds EACH i
    on."""
    asked = [prompt for prompt in prompts(case.file) for _ in range(each)]
    seeds = [EACH * (i // each) + i % each for i in range(len(asked))]
    sampler = Sampler(network, steps=case.calls, guidance=case.scale(network), batch_size=BATCH)
    return sampler.sample(condition=asked, seeds=seeds, progress=False).samples


def measured(
    network: ScoreNetwork, path: str, case: Case, pictures: Pictures
) -> Iterator[results.Row]:
    """The rows of a case: those of prompts of each one's first sample, and then those of the set."""
    began = time.perf_counter()
    samples = sampled(network, case)
    seconds = time.perf_counter() - began
    asked = [(p, name) for p, name in prompts(case.file).items() for _ in range(EACH)]
    shown = pictures.shown(pictures.seen(samples), [name for _, name in asked])
    known: results.Row = {
        "part": case.part, "model": case.model, "weights": weights_of(path), "calls": case.calls,
        "guidance": case.scale(network),
    }  # fmt: skip
    if case.part == case.file:
        for i in range(0, len(asked), EACH):
            yield row(
                **known, samples=1, prompt=asked[i][0], name=asked[i][1], rank=int(shown.ranks[i]),
                nearest=pictures.names[shown.nearest[i]], distance=float(shown.distance[i]),
            )  # fmt: skip
    for quantity, found in quantities(shown, pictures):
        yield row(
            **known, samples=len(asked), quantity=quantity, value=found.value, spread=found.spread
        )
    yield row(**known, samples=len(asked), quantity="seconds", value=seconds)


def quantities(shown: Shown, pictures: Pictures) -> Iterator[tuple[str, Estimate]]:
    """Figures of a set of samples, and what held-out pictures have in their place."""
    # Samples of one prompt are alike: the spread is that over prompts.
    yield "found", _over_prompts(shown.ranks <= NEAR)
    yield "accuracy", _over_prompts(shown.right)
    yield "diversity", diversity(shown.features, EACH)
    about = pictures.memorisation(shown.features).to_dict()
    for who in ("samples", "held_out"):
        part = about[who]
        yield f"nearest, {who}", Estimate(part["distance"]["median"], 0.0)
        yield f"below {about['threshold']:.3f}, {who}", Estimate(part["below_threshold"], 0.0)
        yield f"ratio below 1/3, {who}", Estimate(part["below_ratio"], 0.0)


def _over_prompts(hits: Tensor) -> Estimate:
    return Estimate.over(hits.double().view(-1, EACH).mean(dim=1).tolist())


def timed(model: str, waiting: str) -> list[float]:
    """Seconds of the command for `ASKED`, import and pictures included, once it has run before."""
    words = [word for prompt in ASKED for word in ("--prompt", prompt)]
    threads = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
    own = {name: value for name, value in os.environ.items() if name not in threads}
    found = []
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable, "-m", "diffusion_engine.cli", "sample", "--model", model, *words,
            "--steps", str(CALLS), "--out", str(Path(folder, "x.png")),
        ]  # fmt: skip
        for _ in range(1 + REPEATS):
            began = time.perf_counter()
            subprocess.run(
                command,
                check=True,
                stdout=subprocess.DEVNULL,
                env=own | {"OMP_WAIT_POLICY": waiting},
            )
            found.append(time.perf_counter() - began)
    return found[1:]


def times(path: str) -> Iterator[results.Row]:
    """The median time of the command, and the longest, by how its threads wait."""
    for waiting in WAITING:
        found = timed(path, waiting)
        for quantity, value in (("median", statistics.median(found)), ("longest", max(found))):
            yield row(
                part="time", model=MODEL, weights=weights_of(path), calls=CALLS, samples=len(ASKED),
                quantity=f"{quantity}, {waiting}", value=value, threads=os.cpu_count(),
            )  # fmt: skip


def row(**known: str | float | None) -> results.Row:
    return results.row(CPU, results.EMOJI_KEYS, **known)


def worded(network: ScoreNetwork, path: str, case: Case) -> Iterator[results.Row]:
    """What the text encoder leaves of the paraphrases."""
    asked = prompts("paraphrases")
    seeds = list(range(0, EACH * len(asked), EACH))
    for quantity, found in words(network, trained(), asked, case.calls, seeds):
        yield row(
            part="words", model=case.model, weights=weights_of(path), calls=case.calls,
            guidance=case.scale(network), samples=len(asked), quantity=quantity, value=found.value,
            spread=found.spread,
        )  # fmt: skip


def copies(images: Tensor) -> dict[str, Tensor]:
    """Pictures on white [n, 3, H, W] uint8, shifted down and to the right, and blurred."""
    side = images.shape[-1]
    ink = 255.0 - images.float()
    made = {
        f"shifted by {by} pixels": F.pad(ink, (by, 0, by, 0))[..., :side, :side] for by in SHIFTS
    }
    line = torch.exp(-0.5 * torch.arange(-3.0, 4.0).square())
    kernel = (line[:, None] * line / line.sum() ** 2).expand(3, 1, 7, 7)
    made["blurred"] = F.conv2d(F.pad(ink, (3, 3, 3, 3)), kernel, groups=3)
    return {name: (255.0 - each).round().to(torch.uint8) for name, each in made.items()}


def features(pictures: Pictures, images: Tensor) -> Iterator[results.Row]:
    """Of how many copies the own picture is the nearest one."""
    for name, each in copies(images).items():
        ranks = pictures.shown(pictures.seen(each), pictures.names).ranks
        found = Estimate.share(ranks == 1)
        yield row(
            part="features", model=CLASSIFIER, weights=weights_of(CLASSIFIER), samples=len(ranks),
            quantity=name, value=found.value, spread=found.spread,
        )  # fmt: skip


PARTS = ("features", "captions", "paraphrases", "words", "guidance", "calls", "time")


def measure(parts: Sequence[str], networks: Networks) -> Iterator[results.Row]:
    """The rows of some parts; of a network that is not there they are left out, which is said."""
    torch.set_num_threads(1)
    for name in ("captions", "paraphrases"):
        check(emoji(), prompts(name))
    if digests(chain.from_iterable(emoji().captions)) != trained_on():
        raise ValueError(
            f"{PROMPTS / 'trained.txt'} is of other captions than those that are trained on"
        )
    for part in parts:
        if part == "features":
            yield from features(trained(), emoji().images)
            continue
        for case in [Case(part)] if part in ("words", "time") else cases(part):
            path = networks.path(case.model)
            if path is None:
                print(f"there is no network {case.model!r}: left out of {part}", file=sys.stderr)
            elif part == "time":
                yield from times(path)
            elif part == "words":
                yield from worded(networks[case.model], path, case)
            else:
                yield from measured(networks[case.model], path, case, trained())


def others(parts: Sequence[str]) -> list[results.Row]:
    """The rows of the parts that are not measured now."""
    path = results.FOLDER / results.EMOJI
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return [dict(each) for each in csv.DictReader(file) if each["part"] not in parts]


def main() -> None:
    made = argparse.ArgumentParser(prog="python -m benchmarks.runs.emoji", description=__doc__)
    made.add_argument("parts", nargs="*", default=[*PARTS], help=", ".join(PARTS))
    made.add_argument("--weights", type=Path, help="folder of networks that do not ship yet")
    made.add_argument("--no-save", action="store_true", help="print only")
    given = made.parse_args()
    if unknown := set(given.parts) - set(PARTS):
        made.error(f"unknown parts {', '.join(sorted(unknown))}; choose {', '.join(PARTS)}")
    found = []
    for each in measure(given.parts, Networks(given.weights)):
        said = ("prompt", "nearest", "rank", "quantity", "value", "spread")
        print(each["part"], each["model"], each["calls"], each["guidance"], end=": ")
        print(*(each[key] for key in said if each[key] is not None), flush=True)
        found.append(each)
    if not given.no_save:
        print(f"wrote {results.replace([*others(given.parts), *found], results.EMOJI)}")


if __name__ == "__main__":
    main()
