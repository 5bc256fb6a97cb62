"""The denoising loss against closed forms, for every prediction."""

import math

import pytest
import torch

from diffusion_engine import ScoreNetwork
from diffusion_engine.networks.prediction import F
from diffusion_engine.processes import EDM, VP, FlowMatching
from diffusion_engine.processes.levels import Levels, per_sample
from diffusion_engine.training.data import Augmentation, Batch, Draws
from diffusion_engine.training.objectives.denoising import denoising, dropped, target
from diffusion_engine.training.objectives.times import drawn_times, times

FORMS = {
    "eps": (VP(), "eps", lambda at, x0, eps: eps),
    "x0": (VP(), "x0", lambda at, x0, eps: x0),
    "v": (VP(), "v", lambda at, x0, eps: at.alpha * eps - at.sigma * x0),
    "score": (VP(), "score", lambda at, x0, eps: -eps / at.sigma),
    "flow": (FlowMatching(), "flow", lambda at, x0, eps: eps - x0),
    "F": (
        EDM(),
        F(0.5),
        lambda at, x0, eps: (
            (x0 - 0.25 / (at.sigma**2 + 0.25) * (x0 + at.sigma * eps))
            * (at.sigma**2 + 0.25).sqrt()
            / (at.sigma * 0.5)
        ),
    ),
}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("form", FORMS)
def test_the_target_is_what_the_network_predicts(form):
    process, prediction, wanted = FORMS[form]
    network = ScoreNetwork(torch.nn.Identity(), process, (1,), prediction=prediction)
    t = torch.linspace(0.1, 0.9, 7, dtype=torch.float64)
    x0, eps = torch.randn(2, 7, 1, dtype=torch.float64, generator=seeded())
    at = Levels.of(process, t)
    columns = Levels(at.t[:, None], at.alpha[:, None], at.sigma[:, None])
    torch.testing.assert_close(
        target(network, at, x0, eps), wanted(columns, x0, eps), rtol=1e-10, atol=1e-10
    )


@pytest.mark.parametrize("weight", ["output", "x0", "truncated_snr"])
def test_the_exact_network_has_no_loss_and_one_that_says_0_has_that_of_its_weight(weight):
    """Data at one point a: eps = (x - alpha a) / sigma."""
    a = 0.5

    class Exact(torch.nn.Module):
        def forward(self, x, t):
            at = Levels.of(VP(), t.double())
            return (x - per_sample(at.alpha, x) * a) / per_sample(at.sigma, x)

    def network(module):
        return ScoreNetwork(module, VP(), (1, 2, 2))

    batch = Batch(torch.full((4096, 1, 2, 2), a), torch.zeros(4096, dtype=torch.int64))
    assert denoising(network(Exact()), batch, seeded(), weight=weight) < 1e-5
    nothing = network(lambda x, t: torch.zeros_like(x))
    at = Levels.of(VP(), torch.linspace(1e-3, 1.0, 20001, dtype=torch.float64))
    mean = {
        "output": torch.ones(()),
        "x0": (at.sigma / at.alpha).square().mean(),
        "truncated_snr": (at.sigma / at.alpha).square().clamp(min=1.0).mean(),
    }[weight]
    found = denoising(nothing, batch, seeded(), weight=weight)
    assert float(found) == pytest.approx(float(mean), rel=0.1)


def test_classes_are_dropped_as_often_as_was_said():
    network = ScoreNetwork(torch.nn.Identity(), VP(), (1,), null=10, classes=10)
    y = dropped(network, torch.full((4096,), 3), 0.25, seeded())
    assert set(y.tolist()) == {3, 10}
    assert (y == 10).float().mean() == pytest.approx(0.25, abs=0.03)


def test_times_are_spread_evenly():
    process = VP()
    t = times(process, 64, seeded())
    assert t.dtype == torch.float64
    assert process.t_min <= t.min() and t.max() <= process.t_max
    gaps = t.sort().values.diff()
    assert gaps.min() == pytest.approx(gaps.max()) == pytest.approx((1.0 - 1e-3) / 64)


def test_times_follow_their_law():
    process, law = EDM(), {"name": "lognormal", "mean": -1.2, "std": 1.2}
    logs = drawn_times(process, 4096, seeded(), law).log()
    assert float(logs.mean()) == pytest.approx(-1.2, abs=0.01)
    assert float(logs.std()) == pytest.approx(1.2, abs=0.02)
    law = {"name": "logit_normal", "mean": 0.5, "std": 0.8}
    logits = torch.logit(drawn_times(FlowMatching(), 4096, seeded(), law))
    assert float(logits.mean()) == pytest.approx(0.5, abs=0.01)
    assert float(logits.std()) == pytest.approx(0.8, abs=0.02)
    with pytest.raises(ValueError, match="times='cosine'"):
        drawn_times(process, 4, seeded(), {"name": "cosine"})


def test_batches_are_drawn_as_the_accounting_supposes():
    images, labels = torch.rand(400, 1, 8, 8), torch.arange(400)
    draw, generator = Draws(images, labels, 40, None, "poisson"), seeded()
    batches = [draw(generator) for _ in range(200)]
    sizes = torch.tensor([float(len(batch.y)) for batch in batches])
    assert float(sizes.mean()) == pytest.approx(40.0, abs=1.5)
    assert float(sizes.var()) == pytest.approx(36.0, rel=0.35)  # n q (1 - q)
    assert all(len(set(batch.y.tolist())) == len(batch.y) for batch in batches)
    torch.testing.assert_close(batches[0].x0, 2.0 * images[batches[0].y] - 1.0)


def test_augmentation_of_nothing_changes_nothing_and_keeps_the_range():
    x = torch.rand(6, 1, 16, 16, generator=seeded())
    still = Augmentation(shift=0.0, degrees=0.0, zoom=0.0)(x, seeded())
    torch.testing.assert_close(still, x, rtol=0, atol=1e-5)
    moved = Augmentation()(x, seeded())
    assert moved.min() >= 0.0 and moved.max() <= 1.0 and not torch.equal(moved, x)


def test_a_law_of_logs_is_that_of_sigma_over_alpha():
    t = drawn_times(VP(), 512, seeded(), {"name": "lognormal", "mean": -1.0, "std": 0.1})
    assert float(Levels.of(VP(), t).ratio.log().mean()) == pytest.approx(-1.0, abs=0.01)
    assert math.isfinite(float(t.max()))
