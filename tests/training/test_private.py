"""Private training: clipping, noise, the budget, and what is refused."""

import sys

import pytest
import torch

from diffusion_engine.training import Trainer, privacy, read
from diffusion_engine.training.data import Batch
from diffusion_engine.training.objectives.denoising import dropped, errors
from diffusion_engine.training.objectives.times import drawn_times, spread
from diffusion_engine.zoo.small import SmallUNet

opacus = pytest.importorskip("opacus")
pytest.importorskip("dp_accounting")

TINY = {"name": "small_unet", "channels": [8, 8, 32], "emb": 8}


def trainer(changes=(), **options):
    recipe = read("dp_8")
    card = recipe.card | {"architecture": TINY}
    objective = recipe.objective | {"copies": 3, "norm": 0.5} | options
    asked = {"steps": 20, "batch": 6, "card": card, "objective": objective}
    made = Trainer(read("dp_8", **(asked | dict(changes))))
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for p in made.module.parameters():  # some begin at zero
            p.normal_(std=0.2, generator=generator)
    return made


def batch_of(made, n):
    return Batch(2.0 * made.draw.images[:n] - 1.0, made.draw.labels[:n])


def flat(tensors):
    return torch.cat([each.flatten() for each in tensors])


def gradients_of_copies(made, batch):
    """Gradient of each image's each copy, [B, K, P], from the draws that the objective makes."""
    own, generator = made.objective, torch.Generator().manual_seed(1)
    y = dropped(own.given.network, batch.y, own.drop, generator)
    n, k = len(y), own.copies
    copied = Batch(batch.x0.repeat_interleave(k, 0), y.repeat_interleave(k, 0))
    network = own.given.network
    t = drawn_times(network.process, n * k, generator, own.times, groups=n)
    eps = torch.randn(copied.x0.shape, generator=generator)
    losses = errors(network, copied, t, eps, "output").flatten(1).mean(1)
    moved = list(made.module.parameters())
    found = [flat(torch.autograd.grad(each, moved, retain_graph=True)) for each in losses]
    return torch.stack(found).view(n, k, -1)


def clip(g, norm):
    return g * (norm / g.norm(dim=-1, keepdim=True)).clamp(max=1.0)


def clipped(made, batch):
    return flat(made.objective.clipped(batch, torch.Generator().manual_seed(1)))


def test_the_mean_of_an_images_copies_is_clipped():
    made = trainer()
    batch = batch_of(made, 4)
    each = gradients_of_copies(made, batch)
    means = each.mean(1)
    norm = made.objective.norm = means.norm(dim=1).median().item()  # some are clipped, some are not
    torch.testing.assert_close(clipped(made, batch), clip(means, norm).sum(0), rtol=1e-3, atol=1e-5)
    other = clip(each, norm).mean(1).sum(0)
    assert (clipped(made, batch) - other).norm() > 0.05 * other.norm()


def test_parts_of_a_batch_add_up(monkeypatch):
    made = trainer(drop=0.0, times={"name": "lognormal", "mean": -1.2, "std": 0.0})
    batch = batch_of(made, 5)
    monkeypatch.setattr(torch, "randn", lambda shape, **options: torch.zeros(shape))
    whole = clipped(made, batch)
    monkeypatch.setattr("diffusion_engine.training.objectives.private.PHYSICAL", 6)
    torch.testing.assert_close(clipped(made, batch), whole, rtol=1e-4, atol=1e-6)


def test_one_copy_is_plain_dp_sgd():
    made = trainer(copies=1)
    own, batch = made.objective, batch_of(made, 4)
    ours = clipped(made, batch)
    # Opacus' sampler of convolutions (1.6.0) is right for contiguous images only.
    made.module.to(memory_format=torch.contiguous_format)
    for part in made.module.modules():
        if isinstance(part, torch.nn.Conv2d):
            part.register_forward_pre_hook(lambda module, given: (given[0].contiguous(),))
    module = opacus.GradSampleModule(made.module, loss_reduction="sum")
    optimizer = opacus.optimizers.DPOptimizer(
        torch.optim.SGD(made.module.parameters(), lr=1.0), noise_multiplier=0.0,
        max_grad_norm=own.norm, expected_batch_size=1, loss_reduction="sum",
    )  # fmt: skip
    own.loss(batch, torch.Generator().manual_seed(1)).backward()
    optimizer.pre_step()
    module.remove_hooks()
    # Opacus adds 1e-6 to the norm that it divides by.
    theirs = flat(p.grad for p in made.module.parameters())
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_an_empty_batch_leaves_the_noise():
    made = trainer()
    own = made.objective
    said = own.step(batch_of(made, 0), torch.Generator().manual_seed(0))
    noise = flat(p.grad for p in made.module.parameters()) * own.batch / (own.sigma * own.norm)
    n = noise.numel()
    assert abs(noise.var().item() - 1.0) < 4.0 * (2.0 / n) ** 0.5
    assert abs(noise.mean().item()) < 4.0 * n**-0.5
    assert not said.requires_grad and said.item() > 0.0
    again = own.step(batch_of(made, 0), torch.Generator().manual_seed(1))
    assert again != said


def test_the_noise_is_added_to_the_gradient():
    made = trainer()
    own, batch = made.objective, batch_of(made, 3)
    own.sigma = 0.0
    own.step(batch, torch.Generator().manual_seed(1))
    got = flat(p.grad for p in made.module.parameters())
    torch.testing.assert_close(got, clipped(made, batch) / own.batch)


def test_the_average_holds_no_hooks():
    made = trainer()
    made.advance()
    for module in (made.module, made.average.module):
        for part in module.modules():
            assert not part._forward_hooks and not part._backward_hooks


def test_the_times_of_an_image_are_its_own():
    parts = spread(12, torch.Generator().manual_seed(0), groups=4).view(4, 3)
    ordered = parts.sort(dim=1).values
    torch.testing.assert_close(ordered.diff(dim=1), torch.full((4, 2), 1 / 3, dtype=torch.float64))
    assert len(ordered[:, 0].unique()) == 4
    whole = spread(12, torch.Generator().manual_seed(0)).sort().values
    torch.testing.assert_close(whole.diff(), torch.full((11,), 1 / 12, dtype=torch.float64))


def test_the_budget_is_met_and_counted_twice():
    sigma = privacy.noise_multiplier(10.0, 1e-4, 6 / 60, 20)
    opacus, other = privacy.spent(sigma, 6 / 60, 20, 1e-4)
    assert 9.9 < opacus <= 10.0 and other == pytest.approx(opacus, rel=5e-3)
    fewer = privacy.spent(sigma, 6 / 60, 11, 1e-4)
    assert fewer[0] < 0.9 * opacus and fewer[1] == pytest.approx(fewer[0], rel=5e-3)


def test_the_card_says_what_was_spent(tmp_path):
    made = trainer()
    assert made.recipe.card.get("privacy") is None
    said = made.objective.after(11, made.average.module)["privacy"]
    assert said["steps"] == 11 and said["epsilon"] < 9.0
    assert said["epsilon_dp_accounting"] == pytest.approx(said["epsilon"], rel=5e-3)
    assert said["noise_multiplier"] == made.objective.sigma
    assert (said["delta"], said["sample_rate"]) == (1e-4, 0.1)


@pytest.mark.parametrize(
    "changes, options, message",
    [
        ({}, {"epsilon": 1e-4}, r"epsilon=0.0001 at delta=0.0001 cannot be met by 20 steps"),
        ({}, {"epsilon": -1.0}, "epsilon=-1"),
        ({}, {"norm": 0.0}, "norm=0"),
        ({}, {"copies": 0}, "copies=0"),
        ({}, {"delta": 0.05}, "delta=0.05: of 60 images"),
        ({"sampling": "uniform"}, {}, "sampling='uniform'; the accounting supposes 'poisson'"),
        ({"batch": 61}, {}, "batches of 61 of 60 images"),
    ],
)
def test_what_cannot_be_private(changes, options, message):
    with pytest.raises(ValueError, match=message):
        trainer(changes, **options)


@pytest.mark.parametrize("missing", ["opacus.accountants.utils", "opacus.grad_sample"])
def test_without_opacus(missing, monkeypatch):
    if missing == "opacus.accountants.utils":
        monkeypatch.setattr(privacy, "noise_multiplier", privacy.noise_multiplier.__wrapped__)
    monkeypatch.delitem(sys.modules, "diffusion_engine.training.per_example", raising=False)
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ValueError, match=r"pip install 'diffusion-engine\[train\]'"):
        trainer()


def test_the_small_network_is_the_unet_a_fold_farther():
    module = SmallUNet((8, 8, 32), 8)
    with torch.no_grad():
        for p in module.parameters():
            p.normal_(std=0.2, generator=torch.Generator().manual_seed(p.numel()))
        x, t, y = torch.randn(2, 1, 32, 32), torch.tensor([-1.0, 0.5]), torch.tensor([3, 10])
        out = module(x, t, y)
        assert out.shape == x.shape
        assert module.stem.in_channels == 16 and not torch.equal(out[0], out[1])
