"""Composition: scores added with their weights, exact densities, recipes, refusals."""

import json
import math

import pytest
import torch
from columns import F64, column
from guidance_cases import denoised_of
from oracles.moments import output_moments

from diffusion_engine import (
    Sampler,
    ScoreNetwork,
    compose,
)
from diffusion_engine.processes import VP
from diffusion_engine.testing import labelled_mixture as mixture

PAIR = {"weights": (0.5, 0.5), "means": (0.0, 1.0), "stds": (1.0, 1.0)}


def moments(solver, options, steps_, composed):
    """Mean and variance of the samples, exactly: scores of Gaussians are affine."""
    sampler = Sampler(mixture(null=None, **PAIR), solver, steps_, **(F64 | options))

    def run(x, noise):
        made = {}

        def source(i, m, seeds):
            if (i, m) not in made:
                made[i, m] = torch.as_tensor(noise(i, m))[:, None]
            return made[i, m]

        out = sampler.sample(
            x=torch.as_tensor(x)[:, None],
            noised=True,
            noise=source,
            compose=composed,
            batch_size=10**6,
        )
        return out.samples[:, 0].numpy()

    return output_moments(run, 1.0, max_draws=len(sampler.points))


@pytest.mark.parametrize("single", [{}, {"dtype": torch.float32, "backend": "cpp"}])
def test_a_product_of_gaussians_is_not_its_samplers(single):
    """N(0, 1) N(1, 1) is N(1/2, 1/2): the ODE of the summed scores collapses, the SDE gives 1/3."""
    composed = [(0, 1.0), (1, 1.0)]
    mean, variance = moments("dpm_solver_3", {"end": "t_min", **single}, 60, composed)
    assert mean == pytest.approx(0.5, abs=1e-4)
    assert variance == pytest.approx(4.3e-5, rel=0.02)
    mean, variance = moments("dpmpp_2m_sde", {"end": "t_min", **single}, 200, composed)
    assert mean == pytest.approx(0.5, abs=1e-4)
    assert variance == pytest.approx(1.0 / 3.0, abs=5e-4)


def test_one_condition_of_weight_s_is_guidance():
    network, given = mixture(), {"x": column(0.7, -1.3), "noised": True}
    for scale in (1.0, 2.5, -1.0):
        a = Sampler(network, "dpmpp_2m", 6, **F64).sample(**given, compose=[([0, 2], scale)])
        b = Sampler(network, "dpmpp_2m", 6, guidance=scale, **F64).sample(**given, condition=[0, 2])
        assert (a.samples - b.samples).abs().max() < 1e-12
        assert a.evaluations == b.evaluations


@pytest.mark.parametrize("weights", [(1.0, -0.5), (0.5, 0.5), (2.0, 1.5)])
@pytest.mark.parametrize("null", [3, None])
def test_scores_are_added_with_their_weights(weights, null):
    network = mixture(null=null)
    plan = compose(Sampler(network, "ddim", 3).plan(), weights, unconditional=null is not None)
    at, state = plan.rows[1].call.at, 0.9
    eps = {0: 0.3, 2: -0.4, 1: 0.1}
    total = weights[0] * eps[0] + weights[1] * eps[2]
    total += (1.0 - sum(weights)) * eps[1] if null is not None else 0.0
    found = denoised_of(plan, at, state, {branch: [e] for branch, e in eps.items()})
    assert found == pytest.approx((state - at.sigma * total) / at.alpha)
    assert plan.rows[1].entries == ((0, 1, 2) if null is not None and sum(weights) != 1 else (0, 2))


@pytest.mark.parametrize("null", [3, None])
@pytest.mark.parametrize("solver", ["ddim", "heun", "dpmpp_2m", "unipc", "lms"])
def test_five_conditions_of_either_sign(solver, null):
    weights, classes = (1.0, -0.5, 0.3, 0.4, -0.1), (0, 1, 2, 0, 1)
    base = mixture(null=null)

    def summed(x, t):
        eps = [base.module(x, t, torch.full((len(x),), y)) for y in classes]
        total = sum(w * e for w, e in zip(weights, eps, strict=True))
        return total + (1.0 - sum(weights)) * base.module(x, t) if null else total

    given = {"x": column(0.7, -1.3), "noised": True}
    one = ScoreNetwork(summed, VP(), (1,), label_dtype=torch.float64)
    want = Sampler(one, solver, 6, **F64).sample(**given).samples
    composed = list(zip(classes, weights, strict=True))
    for options, tolerance in ((F64, 1e-9), ({"backend": "cpp"}, 1e-4)):
        made = Sampler(base, solver, 6, **options).sample(**given, compose=composed)
        assert (made.samples - want).abs().max() < tolerance * max(1.0, float(want.abs().max()))
        assert made.evaluations == 2 * made.nfe * (6 if null else 5)


def test_as_many_conditions_as_a_row_has_outputs():
    given, sampler = {"x": column(0.7, -1.3), "noised": True}, Sampler(mixture(), "ddim", 4, **F64)
    made = sampler.sample(**given, compose=[(i % 2, 1 / 16) for i in range(16)])
    want = sampler.sample(**given, compose=[(0, 0.5), (1, 0.5)])
    assert (made.samples - want.samples).abs().max() < 1e-9


def test_a_product_keeps_its_eps_beside_a_clip():
    """The network's own eps, not that of the clipped estimate, is what the composed scores say."""
    state = {"x": column(0.7, -1.3), "noised": True, "compose": [(0, 0.7), (2, 0.6)]}
    network = mixture(null=None)
    a, b = (
        Sampler(network, "ddim", 6, clipped_eps=on, **F64).sample(**state) for on in (True, False)
    )
    assert (a.samples - b.samples).abs().max() < 1e-9
    v = ScoreNetwork(lambda x, t, y: x, VP(), (1,), prediction="v")
    with pytest.raises(ValueError, match="takes a network that predicts eps"):
        Sampler(v, "ddim", 6, clipped_eps=False).sample(
            compose=[(torch.zeros(1), 1.0), (torch.zeros(1), 1.0)]
        )


def test_compose_batches_parts_and_recipes():
    network, whole = mixture(), [([0, 1, 2, 0, 1], [1.0, 0.5, 2.0, 1.0, 0.7]), (2, -0.3)]
    sampler = Sampler(network, "ddpm", 4)
    made = sampler.sample(5, compose=whole)
    parts = sampler.sample(5, compose=whole, batch_size=2)
    assert torch.equal(made.samples, parts.samples) and made.recipe == parts.recipe
    assert made.evaluations == 5 * 4 * 3
    recipe = json.loads(json.dumps(made.recipe))
    assert torch.equal(Sampler.replay(network, recipe).samples, made.samples)
    alone = sampler.sample(seeds=[2], compose=[(2, 2.0), (2, -0.3)])
    assert torch.equal(made.samples[2], alone.samples[0])


def test_conditions_by_name_are_composed():
    def module(x, label, *, context):
        return 0.5 * x + context.mean(dim=1).view(-1, 1)

    network = ScoreNetwork(module, VP(), (1,), null={"context": torch.zeros(4)})
    a, b = {"context": torch.randn(3, 4)}, {"context": torch.randn(3, 4)}
    made = Sampler(network, "ddim", 4).sample(compose=[(a, 1.0), (b, 0.5)])
    assert made.recipe["needs"] == ["compose"]
    both = {"context": a["context"] + 0.5 * b["context"]}  # the module is affine in it
    want = Sampler(network, "ddim", 4).sample(condition=both)
    assert torch.allclose(made.samples, want.samples, atol=1e-4 * float(want.samples.abs().max()))
    with pytest.raises(ValueError, match="made with compose"):
        Sampler.replay(network, made.recipe)
    again = Sampler.replay(network, made.recipe, compose=[(a, 1.0), (b, 0.5)])
    assert torch.equal(again.samples, made.samples)
    for other in ({"context": torch.randn(3, 5)}, {"text": torch.randn(3, 4)}):
        with pytest.raises(ValueError, match="have to have the same names, shapes and dtypes"):
            Sampler(network, "ddim", 4).sample(compose=[(a, 1.0), (other, 0.5)])


@pytest.mark.parametrize(
    "options, request_, message",
    [
        ({}, {"compose": []}, "give \\(condition, weight\\) pairs"),
        ({}, {"compose": [3]}, "give \\(condition, weight\\) pairs"),
        ({}, {"compose": 5}, "compose=5: give \\(condition, weight\\) pairs"),
        ({}, {"compose": [(None, 1.0)]}, "give \\(condition, weight\\) pairs"),
        ({}, {"compose": [(1, None)]}, "weight=None: give one number"),
        (
            {},
            {"compose": [(1, math.nan)]},
            "weight=nan: give one number, or one a sample, all finite",
        ),
        ({}, {"compose": [(1, 1.0)], "condition": 2}, "leave condition out"),
        ({}, {"compose": [(1, 1.0)], "guidance": 2.0}, "guidance at 1"),
        ({"guidance": 2.0}, {"compose": [(1, 1.0)]}, "guidance at 1"),
        ({"interval": (0.1, 2.0)}, {"compose": [(1, 1.0)]}, "leave the sampler's interval out"),
        ({}, {"n": 2, "compose": [([0, 1], 1.0), ([0, 1, 2], 1.0)]}, "shape \\[3\\] for 2 samples"),
        ({}, {"n": 2, "compose": [(7, 1.0)]}, "knows classes 0 to 2"),
        ({}, {"n": 1, "compose": [(0, 0.1)] * 17}, "a row has 16; compose fewer"),
        ({}, {"n": 1, "compose": [(0, [1.0, 2.0])]}, "2 guidance scales for 1 samples"),
    ],
)
def test_bad_compositions(options, request_, message):
    with pytest.raises(ValueError, match=message):
        Sampler(mixture(), "ddim", 3, **options).sample(**request_)
