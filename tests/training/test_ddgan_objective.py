"""Denoising diffusion GANs: the laws of the chain, the penalty, and what each turn lowers."""

import math

import pytest
import torch
from torch import nn

from diffusion_engine import Sampler, ScoreNetwork
from diffusion_engine.processes import Discrete
from diffusion_engine.testing import GaussianGenerator
from diffusion_engine.training import Trainer, read
from diffusion_engine.training.objectives.ddgan import Chain, generated, gradient_penalty
from diffusion_engine.training.objectives.discriminator import Discriminator
from diffusion_engine.zoo.latent import LatentUNet
from diffusion_engine.zoo.networks import network_of_card

MU, S2 = 0.3, 0.25
N = 40000


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def tiny(**changes):
    recipe = read("ddgan")
    shape = {"channels": [8, 8, 32], "emb": 16, "latent": 4}
    card = recipe.card | {"architecture": recipe.card["architecture"] | shape, "latent": 4}
    return read("ddgan", **({"card": card, "start": None, "batch": 8, "steps": 20} | changes))


def same_moments(a, b):
    """Means and covariances of two samples [N, k] agree within 4 standard errors of each."""
    both = torch.stack((a, b)).double()
    centred = both - both.mean(dim=1, keepdim=True)
    products = torch.einsum("snk,snl->snkl", centred, centred).flatten(2)
    for found in (both, products):
        means, errors = found.mean(dim=1), (found.var(dim=1).sum(dim=0) / N).sqrt()
        assert ((means[0] - means[1]).abs() < 4 * errors).all()


@pytest.mark.parametrize("n", [2, 4])
def test_pairs_are_two_states_of_one_path(n):
    """Cov(x_{i-1}, x_i) of data N(mu, s2), in closed form of the chain's alpha_bar."""
    process = Discrete.few(n)
    bar = [1.0, *process.alpha_bar]
    for i in range(n):
        x0 = MU + math.sqrt(S2) * torch.randn(N, 1, generator=seeded(i))
        before, x = Chain(process).pairs(x0, torch.full((N,), i), seeded(50 + i))
        low, high = bar[i], bar[i + 1]
        variances = [a * S2 + 1.0 - a for a in (low, high)]
        shared = math.sqrt(high / low) * variances[0]
        found = torch.cat((before, x), dim=1).double()
        want = torch.tensor([[variances[0], shared], [shared, variances[1]]])
        means = torch.tensor([math.sqrt(low) * MU, math.sqrt(high) * MU])
        torch.testing.assert_close(found.mean(dim=0).float(), means, rtol=0, atol=4 / math.sqrt(N))
        torch.testing.assert_close(found.T.cov().float(), want, rtol=0, atol=6 / math.sqrt(N))


def test_the_exact_generator_makes_pairs_of_the_same_law():
    """Its x' beside x_i is distributed as x_{i-1} is: nothing is left for a discriminator. The mean of x0,
    which is no draw of it, fails."""
    process = Discrete.few(4)
    exact, chain = GaussianGenerator(process, MU, S2), Chain(process)

    def drawn(i, spread, seed):
        maker = ScoreNetwork(
            lambda x, i, z, y: exact(x, i, spread * z), process, (1,), prediction="x0", latent=1
        )
        x0 = MU + math.sqrt(S2) * torch.randn(N, 1, generator=seeded(seed))
        before, x = chain.pairs(x0, i, seeded(seed + 1))
        made = generated(maker, x, i, torch.zeros_like(i), seeded(seed + 2))
        fake = chain.posterior(made, x, i, seeded(seed + 3))
        return torch.cat((before, x), dim=1), torch.cat((fake, x), dim=1)

    for k in range(4):
        i = torch.full((N,), k)
        real, fake = drawn(i, 1.0, 10 * k)[0], drawn(i, 1.0, 10 * k + 100)[1]
        same_moments(real, fake)
        if k < 2:
            with pytest.raises(AssertionError):
                same_moments(real, drawn(i, 0.0, 10 * k + 100)[1])


def test_the_penalty_of_a_linear_discriminator_is_its_weights_square():
    weight = torch.randn(1, 2, 4, 4, generator=seeded(), requires_grad=True)
    x = torch.randn(5, 2, 4, 4, generator=seeded(1), requires_grad=True)
    found = gradient_penalty((weight * x).flatten(1).sum(dim=1), x)
    torch.testing.assert_close(found, weight.square().sum())
    found.backward()
    torch.testing.assert_close(weight.grad, 2.0 * weight)


def test_the_turns_pull_apart():
    """A step of the discriminator lowers its loss and raises the generator's; one of the generator lowers
    the generator's own, and neither moves the other's weights."""
    trainer = Trainer(tiny(objective={"name": "ddgan", "r1": 0.0}))
    objective, batch = trainer.objective, trainer.draw(seeded())
    critic, maker = objective.discriminator, trainer.module

    def losses():
        return [turn.loss(batch, seeded(3)).item() for turn in objective.turns()]

    def moved(turn, module, rate):
        others = [p for m in (critic, maker) if m is not module for p in m.parameters()]
        before = [p.detach().clone() for p in others]
        for p in (*critic.parameters(), *maker.parameters()):
            p.grad = None
        if turn == 1:
            objective.discriminate(batch, seeded(3))
        objective.turns()[turn].loss(batch, seeded(3)).backward()
        with torch.no_grad():
            for p in module.parameters():
                if p.grad is not None:
                    p -= rate * p.grad
        assert all(torch.equal(a, b) for a, b in zip(before, others, strict=True))

    start = losses()
    moved(0, critic, 0.001)
    sharper = losses()
    assert sharper[0] < start[0] and sharper[1] > start[1]
    moved(1, maker, 0.01)
    fooled = losses()
    assert fooled[1] < sharper[1] and fooled[0] > sharper[0]
    assert all(p.requires_grad for p in critic.parameters())


def test_the_penalty_is_lazy():
    trainer = Trainer(tiny(objective={"name": "ddgan", "r1": 3.0, "lazy": 4}))
    objective, batch = trainer.objective, trainer.draw(seeded())
    free = objective.discriminate(batch, seeded(3)).item()
    found = []
    for step in range(8):
        objective.before(step, None)
        found.append(objective.discriminate(batch, seeded(3)).item())
    assert found[1:4] == found[5:] == [found[1]] * 3 and found[0] == found[4] == free
    objective.r1 = 6.0
    objective.before(0, None)
    twice = objective.discriminate(batch, seeded(3)).item()
    assert twice - found[1] == pytest.approx(2.0 * (free - found[1]), rel=1e-4)


def test_the_discriminator_goes_ahead(tmp_path):
    """The generator stays as it began; then both move, and a checkpoint resumes to the same bits."""
    recipe = tiny(objective={"name": "ddgan", "ahead": 3}, steps=8, warm_up=1)
    trainer = Trainer(recipe)
    began = [p.detach().clone() for p in trainer.module.parameters()]
    critic = [p.detach().clone() for p in trainer.objective.discriminator.parameters()]
    for _ in range(3):
        trainer.advance()
    assert all(map(torch.equal, began, trainer.module.parameters()))
    assert not any(map(torch.equal, critic, trainer.objective.discriminator.parameters()))
    trainer.advance()
    assert not all(map(torch.equal, began, trainer.module.parameters()))
    trainer.advance()
    trainer.save(tmp_path / "kept.safetensors")
    again = Trainer(recipe)
    again.resume(tmp_path / "kept.safetensors")
    whole, rest = trainer.run(tmp_path / "whole"), again.run(tmp_path / "rest")
    assert whole.read_bytes() == rest.read_bytes()


def test_it_begins_as_the_mean_of_a_flow():
    """Before any training x0 = tanh(2 (x_f - t v)) with the flow's own v, whatever z."""
    torch.manual_seed(0)
    maker = LatentUNet((8, 8, 32), 16, latent=4)
    for layer in (maker.head, maker.mid1.conv2):
        nn.init.normal_(layer.weight, std=0.1)
    lam, y = torch.tensor([0.4, -1.5]), torch.tensor([1, 2])
    alpha, sigma = torch.sigmoid(2.0 * lam).sqrt(), torch.sigmoid(-2.0 * lam).sqrt()
    x, z = torch.randn(2, 1, 32, 32), torch.randn(2, 4)
    t = sigma / (alpha + sigma)
    column = (alpha + sigma).view(-1, 1, 1, 1)
    velocity = super(LatentUNet, maker).forward(x / column, t, y)
    want = torch.tanh(2.0 * (x / column - t.view(-1, 1, 1, 1) * velocity))
    torch.testing.assert_close(maker(x, lam, z, y), want, rtol=1e-4, atol=1e-5)
    nn.init.normal_(maker.latent[2].weight)
    assert not torch.allclose(maker(x, lam, z, y), maker(x, lam, -z, y))
    assert torch.allclose(maker(x, lam, z, y), maker(x, lam, 3.0 * z, y), atol=1e-5)


def test_the_discriminator_tells_batches_that_do_not_vary():
    torch.manual_seed(0)
    critic = Discriminator(4, 10, widths=(8, 8, 8), emb=8)
    x = torch.randn(4, 1, 32, 32)
    one = x[:1].expand(4, -1, -1, -1)
    i = y = torch.zeros(4, dtype=torch.int64)
    assert critic(x, x, i, y)[0] != critic(one, one, i, y)[0]
    assert critic(x, x, i, y)[0] != critic(x, x, i + 1, y)[0] != critic(x, x, i, y + 1)[0]
    assert critic(x[:1], x[:1], i[:1], y[:1]).isfinite().all()


def test_what_is_trained_is_sampled():
    """In four calls of the solver that its card names."""
    trainer = Trainer(tiny())
    network = network_of_card(trainer.module.eval(), trainer.recipe.card)
    sampler = Sampler(network, "ddgan", 4)
    assert [row.call.label for row in sampler.plan().rows[1:]] == pytest.approx(
        [p.lam for p in sampler.points[:-1]]
    )
    made = sampler.sample(2, condition=[3, 7], progress=False).samples
    assert made.shape == (2, 1, 32, 32) and made.abs().max() <= 1.0


def test_what_is_no_generator():
    card = read("flow").card
    with pytest.raises(ValueError, match=r"describes none; say \"process\""):
        Trainer(tiny(card=card))
    with pytest.raises(ValueError, match="latent=0: a generator's z"):
        LatentUNet((8, 8, 32), 16, latent=0)
