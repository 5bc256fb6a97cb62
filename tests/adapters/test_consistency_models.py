"""openai/consistency_models' networks: what a student and EDM's network of that code are told."""

import math

import pytest
import torch
from checkpoint_cases import folder, images, normals
from oracles.published_samplers import edm_sampler, karras_levels, stochastic_iterative

from diffusion_engine import Sampler
from diffusion_engine.adapters.consistency_models import (
    consistency_models_network,
    from_consistency_models,
)

CLASSES = torch.tensor([3, 999])


def denoiser(network, student, clip=True):
    """f, or D, of Song et al. 2023, appendix C, clipped as their sampler does."""

    def call(x, sigma):
        g, sd, least = float(sigma), 0.5, 0.002
        gap = g - least if student else g
        c_skip = sd**2 / (gap**2 + sd**2)
        c_out = gap * sd / math.hypot(g, sd)
        told = torch.full((len(x),), 1000 * 0.25 * math.log(g + 1e-44))
        with torch.no_grad():
            out = network.module((x / math.hypot(g, sd)).float(), told, CLASSES).double()
        made = c_skip * x + c_out * out
        return made.clamp(-1, 1) if clip else made

    return call


def near(got, want):
    return float((got - want).abs().max()) < 2e-5 * float(want.abs().max())


@pytest.mark.parametrize(
    ("steps", "places", "scales"), [(1, (0, 39), 40), (2, (0, 22, 39), 40), (2, (0, 106, 200), 201)]
)
def test_a_student_in_one_and_more_steps(steps, places, scales, tmp_path):
    network = from_consistency_models(folder(tmp_path / "it", "consistency"))
    made = []

    def draw(row, m, seeds):
        made.append(torch.from_numpy(normals(f"z{len(made)}", len(seeds), 3, 8, 8)).float())
        return made[-1]

    x = 80.0 * images(3)
    sampler = Sampler(
        network, "consistency", steps, indices=places, scales=scales, backend="torch"
    )  # fmt: skip
    got = sampler.sample(x=x, noised=True, condition=CLASSES, noise=draw).samples
    kept = iter(made)
    want = stochastic_iterative(
        denoiser(network, True), x.double(), places, karras_levels(scales),
        lambda: next(kept).double(),
    )  # fmt: skip
    assert near(got, want) and float(got.abs().max()) <= 1.0


def test_edm_s_network_of_that_code(tmp_path):
    network = from_consistency_models(folder(tmp_path / "it", "consistency", training_mode="edm"))
    x = 80.0 * images(3)
    got = Sampler(network, "heun", 4, backend="torch")
    got = got.sample(x=x, noised=True, condition=CLASSES).samples
    assert near(got, edm_sampler(denoiser(network, False), x, karras_levels(4)))


def test_conventions(tmp_path):
    student = from_consistency_models(folder(tmp_path / "it", "consistency"))
    teacher = consistency_models_network(student.module, "progdist", shape=(3, 8, 8))
    for network, p in ((student, 1.0), (teacher, 0.25 / (0.002**2 + 0.25))):
        about, least = network.parameterisation, network.process.at(0.002)
        (skip,), out = about.weights(least)
        assert skip == pytest.approx(p, abs=1e-15) and about.clip == (-1.0, 1.0)
        assert (out == 0.0) == (network is student)  # its function is x there
        assert about.label_of(least) == pytest.approx(250 * math.log(0.002), rel=1e-12)
        assert about.c_in(least) == pytest.approx(1 / math.hypot(0.002, 0.5), rel=1e-12)
    other = from_consistency_models(folder(tmp_path / "other", "consistency", sigma_min=0.01))
    assert other.process.t_min == other.parameterisation.prediction.sigma_min == 0.01


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"training_mode": None}, "lacks 'training_mode'"),
        ({"training_mode": "consistency"}, "choose edm, progdist"),
        ({"learn_sigma": True}, "learned variance"),
        ({"class_cond": False}, "label_emb.weight"),
        ({"sigma_min": 100.0}, "t_min is the smaller"),
    ],
)
def test_refusals(said, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        from_consistency_models(folder(tmp_path / "it", "consistency", **said))
