"""Autoguidance: a second network as a branch, against one network that is both, and against the formula."""

import pytest
import torch
from tape import TapeRecorder, taped
from torch import nn

from diffusion_engine import Engine, Sampler, ScoreNetwork
from diffusion_engine.executors import Graph, stages
from diffusion_engine.networks.autoguidance import Autoguided, autoguidance
from diffusion_engine.networks.condition import ScaleEmbedding
from diffusion_engine.processes import EDM, VP, Discrete
from diffusion_engine.testing import Gaussian, labelled_mixture

SHAPE = (2, 3)
GOOD = labelled_mixture(shape=SHAPE, null=None, name="good")
WORSE = labelled_mixture(shape=SHAPE, stds=(0.4, 0.5, 0.6), weights=(0.4, 0.3, 0.3), name="worse")
F64 = {"dtype": torch.float64, "backend": "torch"}
CLASSES = [0, 1, 2, 0]


def test_two_closed_forms_by_the_formula():
    """Euler's steps of guide + s (network - guide), written out."""
    scale, both = 2.5, autoguidance(GOOD, WORSE)
    assert both.name == "good guided by worse"
    sampler = Sampler(both, "ddim", 6, guidance=scale, **F64)
    x = torch.randn(4, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    made = sampler.sample(x=x, noised=True, condition=CLASSES)
    y = torch.tensor(CLASSES)
    for s, t in zip(sampler.points, sampler.points[1:], strict=False):
        at = torch.full((4,), s.t, dtype=torch.float64)
        worse = WORSE.module(x, at, y)
        eps = worse + scale * (GOOD.module(x, at, y) - worse)
        x = t.alpha / s.alpha * (x - s.sigma * eps) + t.sigma * eps
    assert (made.samples - x).abs().max() < 1e-12
    assert made.evaluations == 2 * 4 * made.nfe


@pytest.mark.parametrize("guider", [None, "apg", "rescale", "tcfg", "cfg_zero"])
def test_scales_intervals_and_guiders(guider):
    """A scale a sample, an interval and guiders as of one network's two branches, sample for sample."""
    both = autoguidance(GOOD, WORSE)
    how = {"guidance": [1.0, 2.0, 3.0, 0.5], "interval": (0.2, 8.0), "guider": guider}
    made = Sampler(both, "dpmpp_2m", 7, **how).sample(condition=CLASSES, seed=3)

    def joined(x, t, y):
        given = torch.where(y >= 10, y - 10, y)
        out = GOOD.module(x, t, given), WORSE.module(x, t, given)
        return torch.where((y >= 10).view(-1, 1, 1), out[1], out[0])

    for i, y in enumerate(CLASSES):
        own = GOOD.with_module(joined, classes=None, null=torch.tensor(10 + y))
        how_one = how | {"guidance": how["guidance"][i]}
        one = Sampler(own, "dpmpp_2m", 7, **how_one).sample(condition=torch.tensor([y]), seed=3 + i)
        assert torch.equal(made.samples[i], one.samples[0])
    assert made.evaluations < 2 * 4 * made.nfe


def test_each_is_called_with_its_own_entries():
    calls = {"good": [], "worse": []}

    def counted(network, name):
        def module(x, t, y):
            calls[name].append(len(x))
            return network.module(x, t, y)

        return network.with_module(module)

    both = autoguidance(counted(GOOD, "good"), counted(WORSE, "worse"))
    made = Sampler(both, "ddim", 4, guidance=[1.0, 2.0, 1.0, 3.0]).sample(condition=CLASSES)
    assert calls == {"good": [4] * 4, "worse": [2] * 4} and made.evaluations == 24
    calls["worse"].clear()
    Sampler(both, "ddim", 4).sample(condition=CLASSES)
    assert calls["worse"] == []


def test_where_nothing_may_be_read_back():
    """Both with all entries, and one taken: where the module is exported."""
    both = autoguidance(*conv_networks())
    how = {"guidance": [1.0, 2.0, 2.5]}
    plain = Sampler(both, "ddim", 4, **how).sample(condition=[0, 1, 2])
    native = Sampler(both, "ddim", 4, executor="native", threads=1, **how)
    made = native.sample(condition=[0, 1, 2])
    assert (made.samples - plain.samples).abs().max() < 1e-4


class Conv(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.first, self.last = nn.Conv2d(1, width, 3, padding=1), nn.Conv2d(width, 1, 3, padding=1)
        self.embed = nn.Embedding(3, width)

    def forward(self, x, t, y):
        told = (self.embed(y) + t[:, None])[:, :, None, None]
        return self.last(torch.nn.functional.silu(self.first(x) + told))


def conv_networks():
    torch.manual_seed(0)
    return [ScoreNetwork(Conv(w), VP(), (1, 8, 8), prediction="v", classes=3) for w in (8, 4)]


def test_a_captured_graph(monkeypatch):
    """As on a GPU."""
    monkeypatch.setattr(stages, "resolve", taped(stages.resolve))
    both, how = autoguidance(*conv_networks()), {"guidance": 2.0, "batch_size": 3}
    plain = Sampler(both, "ddim", 4, **how).sample(condition=[0, 1, 2])
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    whole = Sampler(both, "ddim", 4, **how).sample(condition=[0, 1, 2])
    graph = Sampler(both, "ddim", 4, executor=Graph(recorder=TapeRecorder()), **how)
    assert torch.equal(graph.sample(condition=[0, 1, 2]).samples, whole.samples)
    assert (whole.samples - plain.samples).abs().max() < 1e-5


def test_samples_of_an_engine_and_replays():
    """Guided and unguided requests at different steps in one batch, each as alone."""
    both = autoguidance(GOOD, WORSE)
    with Engine(both) as engine:
        asked = [("ddim", 5, 2.0), ("dpmpp_2m", 7, 1.0), ("heun", 4, 3.0)]
        handles = [
            engine.submit({"solver": s, "steps": n, "guidance": g}, condition=[1], seed=i)
            for i, (s, n, g) in enumerate(asked)
        ]
        made = [handle.result(60) for handle in handles]
    for i, (s, n, g) in enumerate(asked):
        alone = Sampler(both, s, n, guidance=g).sample(condition=[1], seed=i)
        assert torch.equal(made[i].samples, alone.samples)
        assert torch.equal(Sampler.replay(both, alone.recipe).samples, alone.samples)
        saved = Sampler.from_plan(both, Sampler(both, s, n, guidance=g).plan())
        assert torch.equal(saved.sample(condition=[1], seed=i).samples, alone.samples)


def test_an_unconditional_network():
    one, other = (Gaussian(0.3, std).network(VP(), (1,)) for std in (0.5, 0.8))
    both = autoguidance(one, other, name="both")
    made = Sampler(both, "ddim", 10, guidance=2.0, **F64).sample(3)
    assert both.name == "both" and made.evaluations == 60
    alone = Sampler(both, "ddim", 10, **F64).sample(3)
    assert torch.equal(alone.samples, Sampler(one, "ddim", 10, **F64).sample(3).samples)
    # Guided away from the wider law, it is narrower.
    assert made.samples.std() < alone.samples.std()


def test_refusals():
    plain = labelled_mixture(shape=SHAPE)
    scaled = plain.with_module(plain.module, null=None, scale_input=ScaleEmbedding())
    for pair, why in (
        ((plain, labelled_mixture(EDM(), shape=SHAPE)), "differ in process"),
        ((plain, labelled_mixture(shape=(1,))), "differ in shape"),
        ((plain, labelled_mixture(shape=SHAPE, prediction="v")), "differ in prediction"),
        ((plain, labelled_mixture(shape=SHAPE, classes=2, null=2)), "differ in classes"),
        (
            (plain, labelled_mixture(shape=SHAPE, label_dtype=torch.float32)),
            "differ in label_dtype",
        ),
        ((plain, labelled_mixture(Discrete.linear(), shape=SHAPE)), "differ in process"),
        ((scaled, scaled), "is guided within"),
        ((autoguidance(plain, plain), plain), "has a guide already"),
        ((plain, plain.module), "give a ScoreNetwork"),
    ):
        with pytest.raises(ValueError, match=why):
            autoguidance(*pair)
    both = autoguidance(GOOD, WORSE)
    with pytest.raises(ValueError, match="leave out compose"):
        Sampler(both, "ddim", 4).sample(compose=[(0, 0.5), (1, 0.5)])
    with pytest.raises(ValueError, match="second branch is its guide's"):
        Sampler(both, "ddim", 4, cfg_pp=True)
    with pytest.raises(ValueError, match="name yours otherwise"):
        Sampler(both, "ddim", 4, guidance=2.0).sample(1, condition={"network": torch.tensor([1])})
    with pytest.raises(ValueError, match="is told which of two is called"):
        both.module(torch.zeros(1, *SHAPE), torch.zeros(1))
    wide = Autoguided(lambda x, t: x, lambda x, t: torch.cat([x, x], dim=1))
    with pytest.raises(ValueError, match="the two return the same"):
        wide(torch.zeros(2, 1), torch.zeros(2), network=torch.tensor([0, 1]))
