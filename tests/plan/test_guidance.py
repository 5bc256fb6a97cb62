"""Guidance: the algebra of the transforms, both kinds at once, intervals, batches."""

from dataclasses import replace

import pytest
import torch
from columns import F64, column
from guidance_cases import classified, denoised_of

from diffusion_engine import (
    Plan,
    Sampler,
    classifier_free,
    classifier_guidance,
    compose,
    scale_of_w,
    with_classifier,
)
from diffusion_engine.plan.linear import raw, x
from diffusion_engine.processes import EDM, VP, FlowMatching, Point
from diffusion_engine.solvers import Solver, Update
from diffusion_engine.solvers.base import steps
from diffusion_engine.testing import labelled_mixture as mixture


def test_both_conventions_of_the_scale():
    plan, w = Sampler(mixture(), "ddim", 3).plan(), 0.7
    at, eps_c, eps_u, state = plan.rows[1].call.at, 0.3, -0.4, 1.1
    guided = denoised_of(classifier_free(plan, scale_of_w(w)), at, state, {0: [eps_c], 1: [eps_u]})
    papers = (1 + w) * eps_c - w * eps_u
    assert guided == pytest.approx((state - at.sigma * papers) / at.alpha)
    assert scale_of_w(0.0) == 1.0


def test_blocks_are_guided_as_one():
    """raw of several blocks: what a network returns beside eps takes the same weights."""

    class Both(Solver):
        name = "both"

        def updates(self, process, points):
            for s, t in steps(points):
                yield Update(s, {0: t.alpha / s.alpha * x + 0.0 * raw}, t, raw=(0.5, 0.25))

        exact = False

    plan = Both().plan(mixture().parameterisation, Sampler(mixture(), "ddim", 3).points)
    row = classifier_free(plan, 3.0).rows[1]
    assert row.e == (1.5, 0.75, -1.0, -0.5)
    assert row.channel_blocks == (0, 1, 0, 1) and row.branches == (0, 0, 1, 1)
    row = compose(plan, (1.0, 2.0)).rows[1]
    assert row.e == (0.5, 0.25, 1.0, 0.5, -1.0, -0.5)
    assert row.branches == (0, 0, 2, 2, 1, 1)
    # The gradient is added to the prediction behind x0, and so to raw: eps - sigma s grad.
    row = classifier_guidance(plan, 2.0, 2).rows[1]
    assert row.e[-1] == pytest.approx(-0.5 * 2.0 * row.call.at.sigma)
    alone = classifier_free(
        plan, 0.0
    )  # the unconditional branch: that of the condition weighs nothing
    assert classifier_guidance(alone, 2.0, 2).rows[1].e[-1] == pytest.approx(row.e[-1])


def test_intervals_of_both():
    inside = (0.2, 5.0)
    free = Sampler(mixture(), "ddim", 10, guidance=3.0, interval=inside, **F64)
    # The branch outside is the conditional one, and of a classifier the unconditional one.
    plan = Sampler(classified(), "ddim", 10, classifier_scale=3.0, interval=inside).plan()
    for row in plan.rows[1:]:
        assert len(row.q) == 1 + (0.2 < row.call.at.ratio <= 5.0)
    assert free.plan().evaluations == 10 + sum(len(row.q) == 2 for row in plan.rows[1:])


@pytest.mark.parametrize("process", [VP(), EDM(), FlowMatching()], ids=["vp", "edm", "flow"])
def test_the_edges_of_an_interval(process):
    """(low, high], also where the ratio of a level is off by its last bit."""
    sigmas = [50.0, 10.0, 5.0, 2.9, 1.7, 0.9, 0.28, 0.1]
    for low, high in ((0.28, 2.9), (0.9, 10.0), (0.1, 5.0)):
        options = {"guidance": 2.0, "interval": (low, high), "sigmas": sigmas}
        plan = Sampler(mixture(process), "ddim", **options).plan()
        assert [len(row.q) == 2 for row in plan.rows[1:]] == [low < s <= high for s in sigmas[:-1]]
    row = Sampler(mixture(process), "ddim", sigmas=sigmas).plan().rows[4]
    off = replace(row, call=replace(row.call, at=Point(row.call.at.t, 1.0, 2.9 * (1 + 4e-16))))
    for interval, inside in (((0.28, 2.9), True), ((2.9, 5.0), False)):
        rows = [*Sampler(mixture(process), "ddim", sigmas=sigmas).plan().rows[:1], off]
        guided = classifier_free(Plan(tuple(rows), exact=False), 2.0, interval)
        assert (len(guided.rows[1].q) == 2) is inside


def test_guided_gaussians_are_scaled_as_they_should_be():
    """eps_w of two Gaussians is linear: x / alpha is scaled by (V_c)^(w/2) (V_u)^((1-w)/2), V = s^2 + g^2."""
    wide = mixture(weights=[0.5, 0.5], means=[0.8, 0.3], stds=[0.2, 0.5], null=1, classes=2)
    for backend, dtype, w in (("torch", torch.float64, 3.0), ("cpp", torch.float32, 1.5)):
        options = {"end": "t_min", "guidance": w, "dtype": dtype, "backend": backend}
        sampler = Sampler(wide, "dpm_solver_3", 200, **options)
        ends = sampler.sample(x=column(0.0, 1.0), noised=True, condition=[0, 0]).samples[:, 0]
        first, last = sampler.points[0], sampler.points[-1]
        shrunk = [(s**2 + last.ratio**2) / (s**2 + first.ratio**2) for s in (0.2, 0.5)]
        gain = last.alpha / first.alpha * shrunk[0] ** (w / 2) * shrunk[1] ** ((1 - w) / 2)
        assert float(ends[1] - ends[0]) == pytest.approx(gain, rel=3e-5 if w == 3.0 else 1e-3)


def test_both_guidances_at_once():
    """A conditional network with a classifier: the gradient acts on the combination, once."""
    base = mixture()
    both = with_classifier(base, base.module.classifier)
    sampler = Sampler(both, "ddim", 6, guidance=2.0, classifier_scale=1.5, **F64)
    row = sampler.plan().rows[1]
    assert row.channel_blocks == (0, 0, 1) and row.branches == (0, 1, 0)
    given = {"x": column(0.7, -1.3), "noised": True, "condition": [0, 2]}
    want = Sampler(base, "ddim", 6, guidance=3.5, **F64).sample(**given)
    assert (sampler.sample(**given).samples - want.samples).abs().max() < 1e-9


@pytest.mark.parametrize("options", [{}, {"clip": (-3.0, 3.0), "clipped_eps": False}], ids=str)
def test_a_classifier_guides_the_unconditional_branch(options):
    """At guidance=0 the condition is the classifier's alone."""
    base = mixture()
    both = with_classifier(base, base.module.classifier)
    given = {"x": column(0.7, -1.3), "noised": True, "condition": [0, 2]}
    made = Sampler(both, "ddim", 6, guidance=0.0, **options, **F64).sample(**given)
    want = Sampler(classified(), "ddim", 6, **options, **F64).sample(**given)
    assert (made.samples - want.samples).abs().max() < 1e-9


def test_guided_and_unguided_requests_share_a_batch():
    """The null class is guided to nothing, beside others that are; a class nobody knows is flagged."""
    base = mixture(classes=None)
    network = with_classifier(base, base.module.classifier, conditional=False)
    given = {"x": column(0.7, -1.3, 0.2), "noised": True}
    made = Sampler(network, "heun", 5, **F64).sample(**given, condition=[0, 3, 2])
    for i, y in enumerate((0, 3, 2)):
        one = {"x": given["x"][i : i + 1], "noised": True}
        network_ = mixture() if y < 3 else mixture(null=None, classes=None)
        condition = {"condition": [y]} if y < 3 else {}
        want = Sampler(network_, "heun", 5, **F64).sample(**one, **condition).samples
        assert (made.samples[i] - want[0]).abs().max() < 1e-9
    for wrong in (7, -1):
        with pytest.warns(RuntimeWarning, match=r"seeds \[1\] met"):
            flagged = Sampler(network, "heun", 5, **F64).sample(**given, condition=[0, wrong, 2])
        assert flagged.finite == [True, False, True]
        assert torch.equal(flagged.samples[[0, 2]], made.samples[[0, 2]])


def test_a_scale_of_nothing():
    """0 turns a classifier off, also where there is none."""
    plan = Sampler(mixture(), "dpmpp_2m", 4).plan()
    assert Sampler(mixture(), "dpmpp_2m", 4, classifier_scale=0.0).plan() == plan
    assert classifier_guidance(plan, 0.0, 1) == plan
