"""A request that takes several batches: each sample gets what was given for it, whichever batch it is in."""

import pytest
import torch

from diffusion_engine import Decoder, Sampler, ScoreNetwork
from diffusion_engine.processes import CLD, VP

SHAPE = (2, 3, 4)
N = 5
IMAGES = torch.linspace(-1.0, 1.0, N * 24).reshape(N, *SHAPE)
MASKS = (torch.arange(N * 12).reshape(N, 1, 3, 4) % 7 > 2).float()
TEXT = torch.linspace(-2.0, 2.0, N * 6).reshape(N, 6)


def module(x, label, *given, **named):
    """Elementwise, so that a sample's bits do not depend on its batch."""
    out = x * 0.7 + 0.1 * x.abs() - 0.05 * label.view(-1, 1, 1, 1)
    for k, told in enumerate((*given, *(named[name] for name in sorted(named))), 1):
        out = out + 0.01 * k * told.to(x.dtype).reshape(len(told), -1).sum(1).view(-1, 1, 1, 1)
    return out


CLASSES = {"null": 10, "classes": 10}
NAMED = {"null": {"text": torch.zeros(6), "size": torch.zeros(())}}
BY_NAME = {"text": TEXT, "size": torch.arange(N)}
REVERSED = {name: tensor.flip(0) for name, tensor in BY_NAME.items()}
REQUESTS = {
    "seeds": ({}, {"seeds": [5, 2**63 + 1, 0, 9, 7]}),
    "classes": (CLASSES, {"condition": [1, 2, 3, 9, 10]}),
    "tensors": ({}, {"condition": TEXT}),
    "names": (NAMED, {"condition": BY_NAME, "guidance": 2.0}),
    "scales": (CLASSES, {"condition": [4, 3, 2, 1, 0], "guidance": [1.0, 2.0, 1.0, 4.0, 0.5]}),
    "one class": (CLASSES, {"n": N, "condition": 3, "guidance": 3.0}),
    "composed classes": (CLASSES, {"compose": [([1, 2, 3, 4, 5], [1.0, 0.5, 2.0, 0.1, 1.5]), (7, -0.5)]}),
    "composed names": (NAMED, {"compose": [(BY_NAME, 1.0), (REVERSED, 0.5)]}),
    "images": ({}, {"x": IMAGES, "start": 0.4}),
    "states": ({}, {"x": IMAGES, "noised": True}),
    "regions": ({}, {"n": N, "mask": MASKS, "known": IMAGES}),
    "one region": ({}, {"n": N, "mask": MASKS[0], "known": IMAGES[0]}),
    "normals": ({}, {"n": N, "noise": torch.arange(5 * N * 24).sin().reshape(5, 1, N, *SHAPE)}),
    "paths": ({}, {"n": N, "noise": "brownian"}),
}  # fmt: skip


def entry(value, i):
    """What a request gives for sample i alone."""
    if isinstance(value, dict):
        return {name: tensor[i : i + 1] for name, tensor in value.items()}
    several = isinstance(value, (list, torch.Tensor)) and len(value) == N
    return value[i : i + 1] if several else value


def alone(request, i):
    """The request for sample i alone."""
    own = {name: entry(value, i) for name, value in request.items() if name not in ("n", "noise")}
    if "compose" in request:
        own["compose"] = [(entry(c, i), entry(w, i)) for c, w in request["compose"]]
    if "noise" in request:
        given = request["noise"]
        own["noise"] = given if isinstance(given, str) else given[:, :, i : i + 1]
    return {"seeds": [i]} | own


@pytest.mark.parametrize("kind", REQUESTS)
def test_a_sample_gets_its_own_in_any_batch(kind):
    options, request = REQUESTS[kind]
    sampler = Sampler(ScoreNetwork(module, VP(), SHAPE, **options), "ddpm", 4)
    whole, parts = (sampler.sample(**request, batch_size=size) for size in (N, 2))
    assert torch.equal(parts.samples, whole.samples)
    for name in ("seeds", "nfe", "evaluations", "recipe", "finite"):
        assert getattr(parts, name) == getattr(whole, name), name
    for i in range(N):
        one = sampler.sample(**alone(request, i))
        assert torch.equal(one.samples[0], whole.samples[i])
        assert one.seeds == [whole.seeds[i]]
    assert len({tuple(s.flatten().tolist()) for s in whole.samples}) == N


def test_velocities_that_are_encoded_in_batches():
    network = ScoreNetwork(lambda x, label: 0.5 * x[:, :2] - x[:, 2:], CLD(), SHAPE, "velocity")
    sampler = Sampler(network, "cld_exp", 4)
    for x in (IMAGES, torch.cat([IMAGES, IMAGES.flip(0)], dim=1)):
        whole, parts = (sampler.encode(x, batch_size=size).samples for size in (N, 2))
        assert torch.equal(whole, parts) and whole.shape == (N, 4, 3, 4)


def test_given_normals_are_asked_for_with_the_seeds_of_each_batch():
    asked = []

    def normals(row, m, seeds):
        asked.append((row, m, seeds))
        return torch.zeros(len(seeds), *SHAPE)

    Sampler(ScoreNetwork(module, VP(), SHAPE), "ddpm", 2).sample(
        seeds=[4, 8, 6], noise=normals, batch_size=2
    )
    assert asked == [(0, 0, (4, 8)), (1, 0, (4, 8)), (0, 0, (6,)), (1, 0, (6,))]


def test_what_is_wrong_in_a_later_batch_is_said_there():
    """A lost sample keeps its place and its seed; an absent normal is missed where it is read."""
    sampler = Sampler(ScoreNetwork(module, VP(), SHAPE), "ddpm", 3)
    with pytest.warns(RuntimeWarning, match=r"seeds \[13\] met"):
        made = sampler.sample(
            5,
            seed=10,
            batch_size=2,
            condition=torch.tensor([0.0, 0.0, 0.0, torch.nan, 0.0])[:, None],
        )
    assert made.finite == [True, True, True, False, True]
    few = torch.zeros(4, 1, 4, *SHAPE)
    with pytest.raises(ValueError, match="the run reads row 0, draw 0 of 5 samples"):
        sampler.sample(5, batch_size=2, noise=few)


def test_batches_are_made_as_they_are_asked_for():
    sizes = []

    def counted(x, label):
        sizes.append(len(x))
        return 0.5 * x

    sampler = Sampler(ScoreNetwork(counted, VP(), SHAPE), "ddim", 1, batch_size=3)
    parts = sampler.chunks(7)
    assert sizes == []
    assert next(parts).seeds == [0, 1, 2] and sizes == [3]
    assert [part.seeds for part in parts] == [[3, 4, 5], [6]] and sizes == [3, 3, 1]
    with pytest.raises(ValueError, match="n=0"):  # not only once a batch is asked for
        sampler.chunks(0)


def test_latents_of_several_batches():
    sampler = Sampler(
        ScoreNetwork(module, VP(), SHAPE), "ddim", 2, decoder=Decoder(lambda z: 2.0 * z)
    )
    whole, parts = (sampler.sample(N, batch_size=size) for size in (N, 2))
    assert torch.equal(parts.latents, whole.latents) and torch.equal(parts.samples, whole.samples)
    assert torch.equal(parts.samples, 2.0 * parts.latents)
