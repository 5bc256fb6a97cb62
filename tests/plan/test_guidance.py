"""Guidance and composition: the algebra of the transforms, exact densities, and what samples show."""

import json
import math
from dataclasses import replace

import pytest
import torch
from oracles.moments import output_moments
from torch import nn

from diffusion_engine import (
    Plan,
    Sampler,
    ScoreNetwork,
    classifier_free,
    classifier_guidance,
    compose,
    scale_of_w,
    with_classifier,
)
from diffusion_engine.plan.linear import raw, x
from diffusion_engine.processes import EDM, VE, VP, FlowMatching, Point
from diffusion_engine.solvers import Solver, Update
from diffusion_engine.solvers.base import steps
from diffusion_engine.testing import labelled_mixture as mixture

F64 = {"dtype": torch.float64, "backend": "torch"}


def classified(**options):
    """The unconditional mixture and its own classifier."""
    base = mixture(**options)
    return with_classifier(base, base.module.classifier, conditional=False)


def column(*values):
    return torch.tensor(values, dtype=torch.float64)[:, None]


def denoised_of(plan, at, state, outs):
    """`denoised` of a row for a state and the outputs of its branches, by the row's own weights."""
    row = plan.rows[1]
    total = row.p[0] * state
    for q, block, branch in zip(row.q, row.channel_blocks, row.branches, strict=True):
        total = total + q * outs[branch][block]
    return total


# --- classifier-free -------------------------------------------------------------------------


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


# --- classifier guidance ---------------------------------------------------------------------


@pytest.mark.parametrize("process", [VP(), VE(), EDM()], ids=["vp", "ve", "edm"])
@pytest.mark.parametrize("solver", ["ddim", "dpmpp_2m", "heun", "unipc"])
def test_a_classifier_makes_the_conditional_sample(solver, process):
    """grad log p(y | x) of the exact classifier turns the mixture into its component y."""
    state = column(0.7, -1.3, 0.2) * process.prior_std(process.at(process.t_max))
    given = {"x": state, "noised": True, "condition": [0, 1, 2]}
    guided = Sampler(classified(process=process), solver, 8, **F64).sample(**given)
    want = Sampler(mixture(process), solver, 8, **F64).sample(**given)
    assert (guided.samples - want.samples).abs().max() < 1e-9
    single = Sampler(classified(process=process), solver, 8).sample(**given).samples
    assert torch.allclose(single.double(), want.samples, rtol=0, atol=1e-4)


@pytest.mark.parametrize("scale", [0.0, 1.0, 3.0])
def test_a_classifier_is_free_guidance_on_exact_densities(scale):
    given = {"x": column(0.7, -1.3), "noised": True, "condition": [0, 2]}
    by_classifier = Sampler(classified(), "dpmpp_2m", 8, classifier_scale=scale, **F64)
    free = Sampler(mixture(), "dpmpp_2m", 8, guidance=scale, **F64)
    a, b = (s.sample(**given) for s in (by_classifier, free))
    assert (a.samples - b.samples).abs().max() < 1e-9
    assert a.evaluations == 2 * 8  # the gradient comes with the prediction


@pytest.mark.parametrize("prediction", ["v", "x0", "score", "flow", "F"])
def test_the_gradient_in_every_parameterisation(prediction):
    """eps - s sigma grad, through the weights of whatever the network predicts and however it is scaled."""
    process = {"flow": FlowMatching(), "F": EDM()}.get(prediction, VP())
    at = process.at(0.4)
    network = ScoreNetwork(lambda x, t: x, process, (1,), prediction=prediction)
    row_plan = Sampler(network, "ddim", times=[at.t, at.t / 2]).plan()
    row = classifier_guidance(row_plan, 2.0, 1).rows[1]
    plain = row_plan.rows[1]
    state, out, gradient_of_x = 0.8, 0.3, 0.7
    gradient = gradient_of_x / row.call.c_in[0]  # of the input, which is c_in x
    d = row.p[0] * state + row.q[0] * out + row.q[1] * gradient
    d_plain = plain.p[0] * state + plain.q[0] * out
    eps, eps_plain = ((state - at.alpha * value) / at.sigma for value in (d, d_plain))
    assert eps == pytest.approx(eps_plain - 2.0 * at.sigma * gradient_of_x)
    assert row.channel_blocks == (0, 1) and row.branches == (0, 0)


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


class Convolutional(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv = nn.Conv2d(3, channels, 3, padding=1)

    def forward(self, x, label):
        return self.conv(x)


class Classifier(Convolutional):
    def forward(self, x, label):
        return self.conv(x).square().mean(dim=(2, 3))


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_classifier_with_weights(memory_format, dtype):
    torch.manual_seed(0)
    network = with_classifier(
        ScoreNetwork(Convolutional(3).eval(), VP(), (3, 6, 5), memory_format=memory_format),
        Classifier(4).eval(),
        channel_blocks=1,
    )
    samplers = [
        Sampler(network, "ddim", 4, dtype=dtype, backend=b, classifier_scale=5.0)
        for b in ("cpp", "torch")
    ]
    a, b = (s.sample(3, condition=[0, 3, 1]).samples for s in samplers)
    assert torch.equal(a, b)
    off = Sampler(network, "ddim", 4, dtype=dtype, classifier_scale=0.0)
    assert not torch.equal(off.sample(3, condition=[0, 3, 1]).samples, a)
    plain = ScoreNetwork(network.module.module, VP(), (3, 6, 5), memory_format=memory_format)
    plain = Sampler(plain, "ddim", 4, dtype=dtype).sample(3).samples
    assert torch.equal(off.sample(3).samples, plain)
    assert torch.equal(off.sample(3, condition=[0, 3, 1]).samples, plain)
    within = Sampler(network, "ddim", 4, dtype=dtype, classifier_scale=5.0, interval=(0.5, 10.0))
    made = within.sample(3, condition=[0, 3, 1]).samples
    assert not torch.equal(made, a) and not torch.equal(made, plain)


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


def test_accelerated_networks_with_a_classifier():
    torch.manual_seed(0)
    network = ScoreNetwork(Convolutional(3).eval(), VP(), (3, 16, 16))
    network = with_classifier(network, Classifier(4).eval())
    plain, fast = (
        Sampler(network, "ddim", 3, classifier_scale=9.0, accelerate=on).sample(2, condition=[0, 3])
        for on in (False, True)
    )
    assert torch.allclose(plain.samples, fast.samples, rtol=1e-4, atol=1e-3)


def test_a_scale_of_nothing():
    """0 turns a classifier off, also where there is none."""
    plan = Sampler(mixture(), "dpmpp_2m", 4).plan()
    assert Sampler(mixture(), "dpmpp_2m", 4, classifier_scale=0.0).plan() == plan
    assert classifier_guidance(plan, 0.0, 1) == plan


def test_the_null_class_has_no_gradient():
    network = classified()
    x = column(0.3, 0.4)
    t = torch.tensor([0.2, 0.2], dtype=torch.float64)
    _, gradient = network.module(x, t, torch.tensor([1, 3]))
    assert gradient[0] != 0.0 and gradient[1] == 0.0
    assert torch.equal(
        gradient, network.module.gradient(x, t, torch.tensor([1, 3]), functional=True)
    )


def test_a_recipe_with_a_classifier():
    network = classified()
    made = Sampler(network, "ddim", 4, classifier_scale=2.0).sample(2, condition=[0, 1])
    recipe = json.loads(json.dumps(made.recipe))
    assert torch.equal(Sampler.replay(network, recipe).samples, made.samples)


def test_a_recipe_of_before_says_less():
    """What a recipe had no word for yet was left at its default."""
    network = classified()
    made = Sampler(network, "ddim", 4).sample(2, condition=[0, 1])
    recipe = json.loads(json.dumps(made.recipe))
    for name in ("classifier_scale", "compose", "encoding", "noise", "decoder"):
        del recipe[name]
    again = Sampler.replay(network, recipe)
    assert torch.equal(again.samples, made.samples) and again.recipe == made.recipe


# --- composition -----------------------------------------------------------------------------

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


# --- bad input -------------------------------------------------------------------------------


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


@pytest.mark.parametrize(
    "classifier, condition, message",
    [
        (lambda x, t: x[:, 0], [0, 1], r"returned \[2\] for 2 samples; it returns logits"),
        (lambda x, t: None, [0, 1], "returned NoneType"),
        (lambda x, t: torch.zeros(len(x), 3), [0, 1], "no derivative with respect to x"),
        (lambda x, t: x[:1].repeat(1, 3), [0, 1], r"returned \[1, 3\] for 2 samples"),
        (
            lambda x, t: x.repeat(1, 3),
            torch.rand(2),
            r"one whole number a sample, .* float32 \[2\]",
        ),
        (lambda x, t: x.repeat(1, 3), torch.zeros(2, 1, dtype=torch.int64), r"int64 \[2, 1\]"),
        (lambda x, t: x.repeat(1, 3), {"z": torch.zeros(2)}, r"and the condition has \['z'\]"),
    ],
)
def test_classifiers_and_classes_that_are_none(classifier, condition, message):
    network = with_classifier(ScoreNetwork(lambda x, t: x, VP(), (1,)), classifier)
    with pytest.raises(ValueError, match=message):
        Sampler(network, "ddim", 2).sample(2, condition=condition)


def test_bad_classifiers():
    with pytest.raises(ValueError, match="a classifier guides to one class"):
        Sampler(classified(), "ddim", 3).sample(2, compose=[(0, 1.0), (1, 1.0)])
    with pytest.raises(ValueError, match="give condition=, or sample with classifier_scale=0"):
        Sampler(classified(), "ddim", 3).sample(2)
    with pytest.raises(ValueError, match="classifier_scale=nan"):
        Sampler(classified(), "ddim", 3, classifier_scale=math.nan)
    with pytest.raises(ValueError, match="has a classifier already"):
        with_classifier(classified(), print)
    flow = ScoreNetwork(lambda x, t: x, FlowMatching(), (1,), prediction="flow")
    flow = with_classifier(flow, lambda x, t: x)
    with pytest.raises(ValueError, match="where alpha is 0; begin below"):
        Sampler(flow, "ddim", 3)
    assert Sampler(flow, "ddim", 3, classifier_scale=0.0).plan().nfe == 3
    assert Sampler(flow, "ddim", 3, interval=(0.0, 1000.0)).plan().nfe == 3
    two = with_classifier(
        ScoreNetwork(lambda x, t: torch.cat((x, x), dim=1), VP(), (1,)), lambda x, t: x
    )
    with pytest.raises(ValueError, match=r"say with_classifier\(\.\.\., channel_blocks=2\)"):
        Sampler(two, "ddim", 3).sample(1, condition=[0])
    flow = ScoreNetwork(lambda x, t, y: x, FlowMatching(), (1,), prediction="flow")
    with pytest.raises(ValueError, match="alpha must not be 0"):
        Sampler(flow, "ddim", 3).sample(2, compose=[(torch.zeros(2), 1.0), (torch.ones(2), 1.0)])
