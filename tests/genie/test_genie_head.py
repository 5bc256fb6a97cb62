"""GENIE's head: its loss, its training, and the one that ships with the digits network."""

from __future__ import annotations

import json
import shutil
import sys

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from diffusion_engine import Sampler, ScoreNetwork, zoo
from diffusion_engine.cli import app as cli
from diffusion_engine.genie import Head, attach
from diffusion_engine.processes import VP
from diffusion_engine.processes.levels import Levels, per_sample
from diffusion_engine.training import Trainer, data, read
from diffusion_engine.training.objectives.genie import HeadLoss
from diffusion_engine.zoo import load_network

PLACES = {"feature": "feature", "embedding": "embedding"}
SHIPPED = {"feature": "up1", "embedding": "time"}


class Unit(nn.Module):
    """eps of data N(0, 1) under VP: sigma x. It shows its head the state and g."""

    def __init__(self) -> None:
        super().__init__()
        self.feature, self.embedding = nn.Identity(), nn.Identity()
        self.gain = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        at = Levels.of(VP(), t.double())
        self.embedding(at.ratio[:, None].to(x.dtype))
        return per_sample(at.sigma, x) * self.feature(self.gain * x)


class Perfect(nn.Module):
    """d eps / dg = x / (1 + g^2)^(3/2), said by one of the three parts or by all."""

    def __init__(self, parts: tuple[float, float, float], factor: float = 1.0) -> None:
        super().__init__()
        self.parts, self.factor, self.seen = parts, factor, []

    def forward(self, x: Tensor, eps: Tensor, features: Tensor, embedding: Tensor) -> Tensor:
        self.seen.append((x, eps))
        g = embedding[:, :, None, None]
        slope = self.factor * features / (1 + g * g) ** 1.5
        of_each = (-g, (1 + g * g) / g, g * (1 + g * g))
        return torch.cat([a * b * slope for a, b in zip(self.parts, of_each, strict=True)], dim=1)


def unit(head: nn.Module) -> ScoreNetwork:
    base = ScoreNetwork(
        Unit().double().eval(), VP(), (1, 4, 4), label_dtype=torch.float64, name="unit"
    )
    return attach(base, head, **PLACES)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


DATA = torch.randn(64, 1, 4, 4, generator=seeded(7), dtype=torch.float64)


@pytest.mark.parametrize("parts", [(1, 0, 0), (0, 1, 0), (0, 0, 1), (0.5, 0.2, 0.3)])
def test_the_loss_of_the_exact_derivative_is_zero(parts):
    loss = HeadLoss(unit(Perfect(parts)))
    assert loss(DATA, seeded()) < 1e-20
    assert loss(DATA.float(), seeded()) < 1e-9


def test_a_difference_is_the_derivative_to_second_order():
    wide, narrow = (
        float(HeadLoss(unit(Perfect((0, 1, 0))), span=span)(DATA, seeded())) for span in (0.2, 0.1)
    )
    assert 0.0 < narrow < 1e-4
    assert wide / narrow == pytest.approx(2.0**4, rel=0.2)  # of squares


def test_the_loss_is_weighted_with_g_squared():
    """A head that says twice the derivative is wrong by it: E g^2 x^2 / (1 + g^2)^3."""
    x0 = torch.randn(8192, 1, 4, 4, generator=seeded(7), dtype=torch.float64)
    loss = HeadLoss(unit(Perfect((0, 1, 0), factor=2.0)))(x0, seeded())
    t = torch.linspace(1e-3, 1.0, 100_001, dtype=torch.float64)
    g = Levels.of(VP(), t).ratio
    assert float(loss) == pytest.approx(float((g**2 / (1 + g * g) ** 3).mean()), rel=0.02)


def test_what_the_head_is_given_as_noise():
    for eps in ("true", "predicted"):
        network = unit(Perfect((1, 0, 0)))
        HeadLoss(network, eps)(DATA, seeded())
        ((x, given),) = network.module.head.seen
        distance = float((given - x).square().mean())
        assert float(given.std()) == pytest.approx(1.0 if eps == "true" else 0.8, abs=0.2)
        assert (distance > 0.3) == (eps == "true")


def test_no_gradient_reaches_the_network():
    torch.manual_seed(0)
    network = unit(Head(1, 1, 1, width=4).double())
    HeadLoss(network)(DATA, seeded()).backward()
    assert network.module.unet.gain.grad is None
    assert network.module.head.conv_out.weight.grad.abs().max() > 0


def test_what_cannot_be_trained():
    base = unit(Perfect((1, 0, 0))).module.network
    with pytest.raises(ValueError, match=r"'unit' has no head to train; attach one with genie\.at"):
        HeadLoss(base)
    with pytest.raises(ValueError, match="eps='both': the head is given the 'true' noise"):
        HeadLoss(unit(Perfect((1, 0, 0))), eps="both")
    with pytest.raises(ValueError, match=r"span=1\.0: a share of g, 0 for the derivative itself"):
        HeadLoss(unit(Perfect((1, 0, 0))), span=1.0)
    with pytest.raises(ValueError, match="label that varies smoothly"):
        HeadLoss(
            attach(
                base.with_module(base.module, label_dtype=torch.int64), Perfect((1, 0, 0)), **PLACES
            )
        )


@pytest.fixture
def images(monkeypatch):
    """Thirty drawings in place of the images, which need another package."""
    drawn = torch.zeros(30, 1, 32, 32)
    for i, image in enumerate(drawn[:, 0]):
        image[8:24, 9 + i % 5 : 12 + i % 5] = image[7 + i % 9 : 10 + i % 9, 10:20] = 1.0
    monkeypatch.setattr(data, "mnist", lambda split: (drawn, torch.arange(30) % 10))


def trained(out, **changes):
    return Trainer(read("digits_genie", **changes)).run(out)


def test_training_lowers_the_loss_and_leaves_a_head_that_loads(images, tmp_path, capsys):
    path = trained(tmp_path, steps=30, batch=16, warm_up=5, lr=1e-3, ema=0.8)
    training = zoo.config(path)["training"]
    assert training["steps_done"] == 30
    x0, y = data.mnist("all")
    loss = []
    for head in (zoo.build(zoo.config(path)["architecture"]), load_network(path).module.head):
        attached = attach(load_network("digits"), head, **SHIPPED)
        with torch.no_grad():
            loss.append(float(HeadLoss(attached, span=0.2)(2.0 * x0 - 1.0, seeded(1), y)))
    assert loss[1] < 0.95 * loss[0]


def test_training_is_repeatable(images, tmp_path, capsys):
    path, again = (trained(tmp_path / part, steps=2, batch=4) for part in "ab")
    assert path.read_bytes() == again.read_bytes()


# --- the head that ships ---------------------------------------------------------------------

SEEDS = range(6)


@pytest.fixture(scope="module")
def shipped() -> ScoreNetwork:
    return load_network("digits_genie")


def samples(of, solver, steps, guidance=1.0, **options):
    one = Sampler(of, solver, steps, grid="uniform", guidance=guidance, **options)
    return one.sample(seeds=SEEDS, condition=list(SEEDS))


def distance(a, b):
    return float((a - b).square().mean().sqrt())


@pytest.mark.parametrize("guidance, of_ddim, of_afs", [(1.0, 0.92, 0.98), (2.0, 0.8, 0.9)])
def test_the_shipped_head_is_nearer_to_the_ode_than_ddim(shipped, guidance, of_ddim, of_afs):
    base = load_network("digits")
    exact = samples(base, "dpm_solver_3", 30, guidance).samples
    ddim, plain, afs = (
        samples(of, solver, steps, guidance, **options)
        for of, solver, steps, options in (
            (base, "ddim", 10, {}),
            (shipped, "genie", 10, {}),
            (shipped, "genie", 11, {"afs": True}),
        )
    )
    assert ddim.nfe == plain.nfe == afs.nfe == 10
    errors = [distance(made.samples, exact) for made in (ddim, plain, afs)]
    assert errors[1] < of_ddim * errors[0]
    assert errors[2] < 0.75 * errors[0]
    # More than the step that the analytic one saves: a new head is DDIM.
    new = attach(base, zoo.build(zoo.config("digits_genie")["architecture"]).eval(), **SHIPPED)
    without = distance(samples(new, "genie", 11, guidance, afs=True).samples, exact)
    assert errors[2] < of_afs * without


def test_other_solvers_take_the_network_with_its_head(shipped):
    assert shipped.name == "digits_genie" and shipped.parameterisation.derivative == "heads"
    assert not any(module.training for module in shipped.module.modules())
    for solver in ("ddim", "dpmpp_2m"):
        with_head, without = (samples(of, solver, 3) for of in (shipped, load_network("digits")))
        assert torch.equal(with_head.samples, without.samples)


def test_the_head_is_small_and_says_how_it_was_trained():
    path = zoo.cards.HERE / "digits_genie.safetensors"
    assert path.stat().st_size < 100_000
    training = zoo.config("digits_genie")["training"]
    assert training["steps_done"] == training["steps"]
    assert f"--steps {training['steps']}" in training["command"]


@pytest.fixture
def copy(tmp_path):
    """The head's two files in a folder of their own."""
    for suffix in (".safetensors", ".json"):
        shutil.copy(zoo.cards.HERE / f"digits_genie{suffix}", tmp_path / f"mine{suffix}")
    return tmp_path / "mine.safetensors"


def rebase(path, base):
    about = json.loads(path.with_suffix(".json").read_text())
    path.with_suffix(".json").write_text(json.dumps(about | {"base": base}))
    return about["base"]


def test_a_head_of_the_users_own(shipped, copy):
    made = load_network(copy)
    assert made.name == str(copy)
    x, t, y = (
        torch.randn(2, 1, 32, 32, generator=seeded()),
        torch.tensor([0.2, 0.7]),
        torch.arange(2),
    )
    with torch.no_grad():
        want = shipped.module(x, t, y)
        assert all(torch.equal(a, b) for a, b in zip(made.module(x, t, y), want, strict=True))
        # A base beside the head is named by its file.
        for suffix in (".safetensors", ".json"):
            shutil.copy(zoo.cards.HERE / f"digits{suffix}", copy.with_name(f"below{suffix}"))
        rebase(copy, zoo.config(copy)["base"] | {"name": "below.safetensors"})
        found = load_network(copy).module(x, t, y)
        assert all(torch.equal(a, b) for a, b in zip(found, want, strict=True))
    again = copy.with_name("again.safetensors")
    zoo.save(again, made.module.head, zoo.config(copy))
    assert again.read_bytes() == copy.read_bytes()


@pytest.mark.parametrize(
    "change, message",
    [
        ({"sha256": "0"}, "was trained with other weights than those of its base 'digits'"),
        ({"name": "cats"}, "'cats' does not ship with the package"),
        ({"name": "none.safetensors"}, "does not exist"),
        ({"name": 3}, "compare it with 'digits_genie'"),
        ({"feature": "up7"}, "feature='up7' is no module of the network"),
        ({"feature": 7}, "compare it with 'digits_genie'"),
        ({"embedding": None}, "embedding is missing"),
    ],
)
def test_a_base_that_does_not_fit(copy, change, message):
    base = {k: v for k, v in (zoo.config(copy)["base"] | change).items() if v is not None}
    rebase(copy, base)
    with pytest.raises(ValueError, match=message):
        load_network(copy)


@pytest.mark.parametrize("base", [3, [], {}, "digits"])
def test_a_base_that_is_none(copy, base):
    rebase(copy, base)
    with pytest.raises(ValueError, match="compare it with 'digits_genie'"):
        load_network(copy)


def test_a_head_on_a_head_is_refused(copy):
    about = {"name": "digits_genie", "sha256": zoo.config("digits_genie")["sha256"]}
    rebase(copy, zoo.config(copy)["base"] | about)
    with pytest.raises(ValueError, match="before anything is added"):
        load_network(copy)


def test_command_line(tmp_path, monkeypatch, capsys):
    out = tmp_path / "x.npz"
    arguments = ["--solver", "genie", "--steps", "5", "--n", "3", "--json"]
    command = [
        "diffusion-engine",
        "sample",
        "--model",
        "digits_genie",
        "--out",
        str(out),
        *arguments,
    ]
    for options in ([], ["--option", "afs=true"]):
        monkeypatch.setattr(sys, "argv", [*command, *options])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        assert not stop.value.code
        about = json.loads(capsys.readouterr().out)
        assert (
            about["nfe"] == 5 - len(options) // 2 and about["recipe"]["solver"]["name"] == "genie"
        )
    assert np.isfinite(np.load(out, allow_pickle=False)["samples"]).all()
