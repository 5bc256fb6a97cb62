"""Normals that a caller gives in place of the engine's: each is read where its row says."""

import pytest
import tape
import torch
from analytic import network
from batches import jobs_of, together
from oracles.problems import TM
from tape import taping

from diffusion_engine import Sampler, ScoreNetwork
from diffusion_engine.executors import Eager
from diffusion_engine.processes import VP

SHAPE = (2, 3, 4)
launches_are_recorded = tape.launches_are_recorded
PLAIN = ScoreNetwork(lambda x, t: 0.7 * x + 0.1 * x.abs(), VP(), SHAPE)
MASK = (torch.arange(12).view(1, 3, 4) % 3 > 0).float()


def normals(row, m, n=2):
    """Others for every row, draw and sample."""
    phase = torch.arange(n * 24).reshape(n, *SHAPE) + 1000.0 * row + 300.0 * m
    return phase.sin()


@pytest.fixture(params=[Eager, taping])
def executor(request):
    return request.param()


def test_the_known_region_is_noised_with_the_third(executor):
    """After each row it is alpha known + sigma z, z being draw 2 of that row."""
    known, seen = torch.linspace(-1.0, 1.0, 24).reshape(SHAPE), []
    sampler = Sampler(PLAIN, "ddpm", 4, executor=executor)
    asked = []

    def source(row, m, seeds):
        asked.append((row, m))
        return normals(row, m)

    sampler.sample(
        2, noise=source, mask=MASK, known=known, on_step=lambda p: seen.append((p.row, p.x.clone()))
    )
    rows = sampler.plan().rows
    for i, x in seen:
        at = rows[i].state
        want = at.alpha * known + (at.sigma * normals(i, 2) if at.sigma else 0.0)
        kept = (MASK == 0.0).expand_as(x)
        assert torch.allclose(x[kept], want.expand_as(x)[kept], atol=1e-6)
    drawn = [
        (i, m)
        for i, row in enumerate(rows)
        for m in (0, 2)
        if (row.draws(0) if m == 0 else row.state.sigma)
    ]
    assert asked == drawn and (0, 2) in drawn and (4, 2) not in drawn


def test_two_draws_of_a_row(executor):
    """A churned step of a solver with noise of its own takes both: tensor and function say the same."""
    sampler = Sampler(PLAIN, "heun", 4, s_churn=3.0, executor=executor)
    rows = len(sampler.plan().rows)
    assert sampler.plan().normals == 2
    tensor = torch.stack([torch.stack([normals(i, m) for m in range(3)]) for i in range(rows)])
    one = sampler.sample(2, noise=tensor).samples
    two = sampler.sample(2, noise=lambda row, m, seeds: normals(row, m)).samples
    assert torch.equal(one, two) and torch.equal(
        one, sampler.sample(2, noise=tensor.numpy()).samples
    )
    for m in range(2):
        other = tensor.clone()
        other[0, m] += 1.0
        assert not torch.equal(sampler.sample(2, noise=other).samples, one)
    unread = tensor.clone()
    unread[:, 2] = torch.nan  # without a known region nobody reads it
    assert torch.equal(sampler.sample(2, noise=unread).samples, one)


def test_plans_of_a_batch_read_their_own_rows(executor):
    """Also those behind the end of another plan, and where another draws nothing."""
    samplers = [
        Sampler(PLAIN, "ddim", 2),
        Sampler(PLAIN, "ddpm", 5),
        Sampler(PLAIN, "heun", 3, s_churn=2.0),
    ]
    plan_of = [0, 1, 2, 1]
    given = [lambda row, m, i=i: normals(row, m, 4)[i] for i in range(4)]
    made, finite = together(executor, PLAIN, jobs_of(samplers, plan_of, noise=given))
    assert all(finite)
    for i, p in enumerate(plan_of):
        alone = samplers[p].sample(
            1, noise=lambda row, m, seeds, i=i: normals(row, m, 4)[i : i + 1]
        )
        assert torch.equal(made[i], alone.samples[0])


def test_a_run_of_given_normals_is_the_loop_with_them():
    """DDPM of an exact network by hand, with the normals of its rows."""
    net = network(TM, VP(), SHAPE)
    sampler = Sampler(net, "ddpm", 5)
    made = sampler.sample(2, noise=lambda row, m, seeds: normals(row, m)).samples
    x = normals(0, 0).double()
    for i, row in enumerate(sampler.plan().rows[1:], 1):
        at, new = row.call.at, row.new[0]
        x0 = torch.from_numpy(TM.denoised(x.numpy(), at.alpha, at.sigma))
        x = new["S0"] * x + new["D"] * x0 + new["z0"] * normals(i, 0).double()
    assert torch.allclose(made.double(), x, atol=1e-4)
