"""What a model card says becomes a network of its family, and a card that lies is refused."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from diffusion_engine import Sampler, zoo
from diffusion_engine.networks.condition import ScaleEmbedding, ScaleValue
from diffusion_engine.networks.prediction import Consistency, F
from diffusion_engine.processes import CLD, VDM, Discrete, FlowMatching
from diffusion_engine.sampler import defaults
from diffusion_engine.zoo import weights
from diffusion_engine.zoo.networks import PROCESSES, check_call, network_of_card

SMALL = {"name": "unet", "channels": [8, 8, 32], "emb": 8}
CARD = {
    "architecture": SMALL, "process": {"name": "vp"}, "shape": [1, 16, 16], "prediction": "eps",
    "classes": list("0123456789"), "null": 10,
}  # fmt: skip
CLD_CARD = CARD | {
    "architecture": SMALL | {"inputs": 2, "outputs": 1},
    "process": {"name": "cld", "beta0": 8.0},
    "prediction": "mixed_velocity",
    "sampler": {"solver": "sscs", "steps": 3, "guidance": 1.5},
}


class Generator(nn.Module):
    """x0 of (x, step, z, y)."""

    def __init__(self, size: int = 4) -> None:
        super().__init__()
        self.label, self.z = nn.Embedding(11, 1), nn.Linear(size, 1)

    def forward(self, x, step, z, y):
        return 0.1 * x + (self.label(y) + self.z(z))[:, :, None, None]


class Jump(nn.Module):
    """A flow's average velocity of (x, t, r, y, guidance)."""

    def __init__(self) -> None:
        super().__init__()
        self.label = nn.Embedding(11, 1)

    def forward(self, x, t, end, y, guidance):
        return x + (self.label(y)[:, 0] * guidance + t - end)[:, None, None, None]


class Scheduled(nn.Module):
    """eps of (x, gamma, y), with a noise schedule that rises from its low end to 5."""

    class Gamma(nn.Module):
        def __init__(self, low: float) -> None:
            super().__init__()
            self.low = nn.Parameter(torch.tensor(low))

        def forward(self, t):
            return self.low + (5.0 - self.low) * t * (1.0 + t) / 2.0

    def __init__(self, low: float = -8.0) -> None:
        super().__init__()
        self.gamma, self.scale = self.Gamma(low), nn.Parameter(torch.ones(()))

    def forward(self, x, label, y):
        return self.scale * x


@pytest.fixture
def saved(tmp_path, monkeypatch):
    """Writes a network of a card, and returns its path."""
    more = {"generator": Generator, "jump": Jump, "scheduled": Scheduled}
    monkeypatch.setattr(weights, "ARCHITECTURES", weights.ARCHITECTURES | more)

    def write(card, change=lambda module: None):
        module = zoo.build(card["architecture"])
        change(module)
        zoo.save(tmp_path / "mine.safetensors", module, card)
        return tmp_path / "mine.safetensors"

    return write


def test_a_card_is_read_without_torch():
    code = "import sys; from diffusion_engine import zoo; zoo.card('digits'); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]


@pytest.mark.parametrize("name", zoo.names())
def test_shipped_networks_run_as_their_cards_say(name):
    card = zoo.card(name)
    if not card.samples:
        assert isinstance(zoo.load(name), nn.Module)
        with pytest.raises(ValueError, match="is a part"):
            zoo.load_network(name)
        return
    network = zoo.load_network(name)
    own = defaults.asked(network)
    few = {"steps": min(2, own["steps"])} if own["solver"] != "ddgan" else {}
    assert card.calls in (None, Sampler(network).plan().nfe)
    sampler = Sampler(network, guidance=own.get("guidance", 1.0), **few)
    told = [3, 7] if network.classes else None
    if card.context:
        told = torch.randn(2, *card.context, generator=torch.Generator().manual_seed(0))
    made = sampler.sample(2, condition=told)
    shape = network.shape
    if network.decoder is not None:
        shape = network.decoder.image_shape(shape)
    assert all(made.finite) and made.samples.shape[1:] == shape


def test_cards_are_complete_and_the_weights_small():
    folder = Path(zoo.__file__).parent
    assert sum(path.stat().st_size for path in folder.glob("*.safetensors")) <= 28_000_000
    for name in zoo.names():
        card = zoo.card(name)
        assert card.about.endswith(".") and card.family and card.data, name
        assert card.training.keys() >= {"steps", "batch", "lr", "seed", "threads", "seconds"}, name
        assert card.training["steps_done"] == card.training["steps"], name
        if card.samples:
            assert card.sampler and {"solver", "steps"} <= card.sampler.keys(), name


def test_cld(saved):
    network = zoo.load_network(saved(CLD_CARD))
    assert isinstance(network.process, CLD) and network.process.beta0 == 8.0
    sampler = Sampler(network)
    assert sampler.solver.name == "sscs" and len(sampler.points) >= 4
    assert sampler.sample(2, condition=[0, 1]).samples.shape == (2, 1, 16, 16)


def test_times_are_the_law_s_range(saved):
    network = zoo.load_network(saved(CARD | {"process": {"name": "flow"}, "time": [0.01, 0.9]}))
    assert network.process == FlowMatching(t_min=0.01, t_max=0.9)


def test_a_learned_gamma_lies_in_the_same_file(saved):
    card = CARD | {
        "architecture": {"name": "scheduled"},
        "process": {"name": "vdm", "gamma": "gamma"},
        "label": "gamma",
    }
    network = zoo.load_network(saved(card, lambda module: module.gamma.low.data.fill_(-6.0)))
    assert isinstance(network.process, VDM)
    assert float(network.process.lam(0.0)) == 3.0
    assert network.parameterisation.label == "gamma"
    with pytest.raises(ValueError, match=r"gamma='beta' names no module of Scheduled"):
        zoo.load_network(saved(card | {"process": {"name": "vdm", "gamma": "beta"}}))


def test_a_generator_of_a_short_chain(saved):
    card = CARD | {
        "architecture": {"name": "generator"}, "process": {"name": "ddgan", "n": 4}, "prediction": "x0",
        "label_dtype": "int64", "latent": 4, "sampler": {"solver": "ddgan", "steps": 4},
    }  # fmt: skip
    network = zoo.load_network(saved(card))
    assert network.process == Discrete.few(4)
    assert Sampler(network).sample(2, condition=[1, 2]).nfe == 4
    with pytest.raises(ValueError, match=r"does not take that"):
        zoo.load_network(saved(card | {"latent": 3}))


def test_a_network_that_is_told_its_end_and_its_guidance(saved):
    card = CARD | {
        "architecture": {"name": "jump"}, "process": {"name": "flow"}, "prediction": "flow",
        "end_label": "t", "scale_input": "guidance", "sampler": {"solver": "flow_map", "steps": 1},
    }  # fmt: skip
    network = zoo.load_network(saved(card))
    assert network.scale_input == ScaleValue("guidance")
    one, two = (Sampler(network, guidance=w).sample(1, condition=[3]).samples for w in (1.0, 2.0))
    assert not torch.equal(one, two)
    embedded = network_of_card(Jump(), card | {"scale_input": {"dim": 8, "name": "timestep_cond"}})
    assert embedded.scale_input == ScaleEmbedding(8, name="timestep_cond")


def test_predictions_have_options():
    card = CARD | {
        "process": {"name": "edm"},
        "prediction": {"name": "F", "sigma_data": 0.25},
        "label": "c_noise",
    }
    about = network_of_card(nn.Identity(), card).parameterisation
    assert about.rule == F(0.25) and about.label(about.process.at(1.0)) == 0.0
    card |= {"prediction": {"name": "consistency", "sigma_min": 0.01}, "label": "log_sigma/4"}
    assert network_of_card(nn.Identity(), card).parameterisation.rule == Consistency(0.5, 0.01)


@pytest.mark.parametrize("name", PROCESSES)
def test_every_process_is_made_without_options(name):
    given = {"n": 4} if name == "ddgan" else {}
    prediction = "velocity" if name == "cld" else "eps"
    card = CARD | {"process": {"name": name, **given}, "prediction": prediction}
    assert network_of_card(nn.Identity(), card).process


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"predictoin": "eps"}, "has no predictoin; did you mean prediction"),
        ({"process": {"name": "vpp"}}, "unknown process 'vpp'.*did you mean"),
        ({"process": {"name": "vp", "beta_maxx": 2.0}}, "beta_maxx; did you mean beta_max"),
        ({"process": None}, "process is missing"),
        ({"prediction": "epss"}, "unknown prediction 'epss'.*did you mean eps"),
        ({"prediction": {"name": "F", "sigma": 1.0}}, "takes no sigma; did you mean sigma_data"),
        ({"label": "c_noise"}, "'eps' has none; name a label"),
        ({"label": "tt"}, "unknown label 'tt'"),
        ({"sampler": {"solver": "ddim", "setps": 3}}, "has no setps; did you mean steps"),
        ({"shape": [1, 1 << 20, 1 << 20]}, "are the most"),
        ({"shape": [1, -4, 4]}, r"shape=\(1, -4, 4\)"),
        ({"scale_input": {"dimm": 4}}, "did you mean dim"),
        ({"process": {"name": "cosine", "n": 10**15}}, "has n=1000000000000000 timesteps"),
    ],
)  # fmt: skip
def test_a_card_that_makes_no_sense(change, message):
    with pytest.raises(ValueError, match=message):
        network_of_card(nn.Identity(), CARD | change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shape": [3, 16, 16]}, r"says shape \[3, 16, 16\], 10 classes, and its architecture does not"),
        ({"shape": [1, 15, 16]}, "does not take that"),
        ({"architecture": SMALL | {"inputs": 2, "outputs": 1}}, "does not take that"),
        ({"architecture": SMALL | {"inputs": 2}, "shape": [2, 16, 16]}, None),
    ],
)  # fmt: skip
def test_a_card_that_lies_about_the_shape(saved, change, message):
    path = saved(CARD | change)
    if message is None:
        assert zoo.load_network(path).shape == (2, 16, 16)
        return
    with pytest.raises(ValueError, match=message):
        zoo.load_network(path)


def test_a_huge_card_is_not_read(saved):
    path = saved(CARD)
    path.with_suffix(".json").write_text(" " * (1 << 21))
    with pytest.raises(ValueError, match="a card has 1048576 at most"):
        zoo.load_network(path)


def test_save_refuses_what_is_no_card(tmp_path):
    with pytest.raises(ValueError, match="has no stpes"):
        zoo.save(tmp_path / "x.safetensors", nn.Linear(1, 1), CARD | {"stpes": 3})
    assert not list(tmp_path.iterdir())


def test_a_classifier_says_how_it_guides(saved):
    path = saved({"architecture": SMALL, "family": "classifier", "about": "Digits in noise."})
    with pytest.raises(ValueError, match=r"is a part.*\(Digits in noise\); guide by it"):
        zoo.load_network(path)


def test_own_defaults_hold_where_nothing_is_said():
    network = network_of_card(
        nn.Identity(),
        CARD | {"sampler": {"solver": {"name": "ddim", "options": {"eta": 0.5}}, "steps": 7, "grid": "karras",
                            "guidance": 3.0}},
    )  # fmt: skip
    own = Sampler(network)
    assert (own.solver.name, own.solver.eta, len(own.points)) == ("ddim", 0.5, 8)
    assert own.points[:-1] == Sampler(network, "ddim", 7, grid="karras").points[:-1]
    assert own.guidance == 1.0  # without a condition there is nothing to guide to
    assert Sampler(network, eta=0.0).solver.eta == 0.0
    bare = network.with_module(network.module, defaults=None)
    assert Sampler(network, "heun").points == Sampler(bare, "heun", 7).points
    assert len(Sampler(network, sigmas=[1.0, 0.1, 0.0]).points) == 3
    plain = Sampler(bare)
    assert (plain.solver.name, len(plain.points)) == (defaults.SOLVER, defaults.STEPS + 1)
    assert defaults.guidance(network, True) == 3.0 and defaults.guidance(network, False) == 1.0


@pytest.mark.parametrize("name", [name for name in zoo.names() if zoo.card(name).prediction])
def test_what_ships_is_called_as_its_card_says(name):
    check_call(zoo.load_network(name), zoo.card(name))
