"""Classifier guidance: its gradient, exact densities, networks with weights, recipes, refusals."""

import json
import math

import pytest
import torch
from columns import F64, column
from guidance_cases import classified
from torch import nn

from diffusion_engine import (
    Sampler,
    ScoreNetwork,
    classifier_guidance,
    with_classifier,
)
from diffusion_engine.processes import EDM, VE, VP, FlowMatching
from diffusion_engine.testing import labelled_mixture as mixture


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


def test_accelerated_networks_with_a_classifier():
    torch.manual_seed(0)
    network = ScoreNetwork(Convolutional(3).eval(), VP(), (3, 16, 16))
    network = with_classifier(network, Classifier(4).eval())
    plain, fast = (
        Sampler(network, "ddim", 3, classifier_scale=9.0, accelerate=on).sample(2, condition=[0, 3])
        for on in (False, True)
    )
    assert torch.allclose(plain.samples, fast.samples, rtol=1e-4, atol=1e-3)


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
