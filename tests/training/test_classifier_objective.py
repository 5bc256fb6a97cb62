"""The classifier of noised images: its loss against the exact one, and what its gradient does to samples."""

import math

import pytest
import torch
from torch import nn

from diffusion_engine import Sampler, with_classifier, zoo
from diffusion_engine.evaluation import describe
from diffusion_engine.processes import EDM, VP
from diffusion_engine.testing import labelled_mixture
from diffusion_engine.training import read
from diffusion_engine.training.data import Batch
from diffusion_engine.training.objectives.base import Given
from diffusion_engine.training.objectives.classifier import Classifier
from diffusion_engine.zoo.classifier import NoisedClassifier

WEIGHTS, MEANS, STDS = (0.3, 0.5, 0.2), (-0.9, 0.1, 0.8), (0.15, 0.1, 0.2)


class Sharpened(nn.Module):
    """The exact p(y | x, t) of a mixture, to a power."""

    def __init__(self, exact, scale):
        super().__init__()
        self.exact, self.scale = exact, scale
        self.power = nn.Parameter(torch.ones(()))

    def forward(self, x, label):
        x, t = self.scale(x, label)
        return self.power * self.exact(x, t).log_softmax(dim=1)


def draw(n):
    generator = torch.Generator().manual_seed(0)
    y = torch.multinomial(torch.tensor(WEIGHTS), n, True, generator=generator)
    x0 = torch.tensor(MEANS)[y] + torch.tensor(STDS)[y] * torch.randn(n, generator=generator)
    return Batch(x0[:, None], y)


@pytest.mark.parametrize("process, prediction", [("vp", "eps"), ("edm", "F")])
def test_the_exact_classifier_is_the_best(process, prediction):
    """The loss is least at the power 1; EDM's networks are given c_in x and log(sigma) / 4."""
    law, scale = {
        "vp": (VP(), lambda x, t: (x, t)),
        "edm": (
            EDM(),
            lambda x, c: (
                x * (torch.exp(4.0 * c.double())[:, None] ** 2 + 0.25).sqrt(),
                torch.exp(4.0 * c.double()),
            ),
        ),
    }[process]
    module = Sharpened(labelled_mixture(law).module.classifier, scale)
    label = {"label": "c_noise"} if process == "edm" else {}
    if prediction == "F":
        prediction = {"name": "F", "sigma_data": 0.5}
    card = {"architecture": {"name": "none"}, "process": {"name": process}, "shape": [1], **label}
    recipe = read("classifier", card=card)
    made = Classifier(Given(recipe, module, torch.device("cpu")), prediction=prediction)
    (turn,) = made.turns()
    slopes = []
    for power in (0.8, 1.0, 1.25):
        module.power.data.fill_(power)
        loss = turn.loss(draw(20_000), torch.Generator().manual_seed(1))
        slopes.append(float(torch.autograd.grad(loss, module.power)[0]))
    assert slopes[0] < -0.02 and abs(slopes[1]) < 0.005 and slopes[2] > 0.02, slopes


def test_it_is_told_the_time_and_refuses_widths_that_do_not_fit():
    module = NoisedClassifier((8, 8, 8), emb=8, side=16)
    torch.manual_seed(0)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)
    x = torch.randn(2, 1, 16, 16)
    with torch.no_grad():
        early, late = (module(x, torch.full((2,), t)) for t in (0.1, 0.9))
    assert early.shape == (2, 10) and float((early - late).abs().max()) > 1e-3
    with pytest.raises(ValueError, match="multiples of 8"):
        NoisedClassifier((8, 12, 8))


def test_its_gradient_leads_unconditional_samples_to_the_class():
    """The digits network without a class, judged by the classifier of clean digits."""
    network, classifier = zoo.load_network("digits"), zoo.load("classifier")
    guided = with_classifier(network, classifier, conditional="null")
    y = torch.arange(20) % 10
    found = {}
    for scale in (0.0, 4.0):
        made = Sampler(guided, "dpmpp_2m", 10, classifier_scale=scale).sample(condition=y)
        found[scale] = int((describe(made.samples).classes == y).sum())
    assert found[0.0] <= 6 and found[4.0] >= 16, found
    unled = Sampler(guided, "dpmpp_2m", 10, classifier_scale=0.0).sample(seeds=[3], condition=[3])
    plain = Sampler(network, "dpmpp_2m", 10).sample(seeds=[3])
    assert torch.equal(unled.samples, plain.samples)
    with pytest.raises(ValueError, match="conditional='null'"):
        with_classifier(labelled_mixture(null=None), classifier, conditional="null")


def test_the_card_tells_accuracy_by_noise():
    figures = zoo.card("classifier").figures
    known = {float(ratio): share for ratio, share in figures["accuracy by sigma/alpha"].items()}
    assert figures["images"] == 1000 and known[0.1] > 0.95
    by_noise = [known[ratio] for ratio in sorted(known)]
    assert all(math.isfinite(share) for share in by_noise) and by_noise[0] > 3 * by_noise[-1]
