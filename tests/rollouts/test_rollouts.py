"""What a rollout holds, that it replays to the same bits, and what is refused."""

import dataclasses

import pytest
import tape
import torch
from rollout_cases import ALL
from rollout_networks import policy
from sampler_cases import SHAPE, conditional, sampler
from tape import taping

from diffusion_engine import Sampler, ScoreNetwork
from diffusion_engine.executors import GraphError
from diffusion_engine.plan.linear import normal, raw, slot
from diffusion_engine.processes import VP
from diffusion_engine.rollouts import Rollout, log_prob
from diffusion_engine.rollouts.tape import objection
from diffusion_engine.testing import exact_network

launches_are_recorded = tape.launches_are_recorded
STATES = ("trajectory", "mean", "std", "noise", "log_prob")


def same(one: Rollout, other: Rollout) -> bool:
    tensors = all(torch.equal(getattr(one, name), getattr(other, name)) for name in STATES)
    return tensors and (one.rows, one.slots, one.seeds) == (other.rows, other.slots, other.seeds)


def test_shapes():
    made = sampler("flow_sde", 4)
    result = made.sample(seeds=[7, 8, 9], record=ALL)
    rollout = result.rollout
    assert rollout.rows == (1, 2, 3) and rollout.slots == (0,)  # row 4 goes to clean data
    assert rollout.log_prob.shape == (3, 3) and rollout.log_prob.dtype == torch.float64
    assert rollout.trajectory.shape == (3, 5, *SHAPE)
    assert rollout.before.shape == rollout.after.shape == rollout.mean.shape == (3, 3, *SHAPE)
    assert rollout.std.shape == (3, 3, 3, 1, 1)
    assert rollout.noise.shape == (5, 1, 3, *SHAPE) and rollout.noise.dtype == torch.float32
    told = [row.call.label for row in made.plan().rows[1:4]]
    assert rollout.labels.tolist() == told
    assert torch.equal(rollout.trajectory[:, -1], result.samples)
    assert torch.equal(rollout.before[:, 1:], rollout.after[:, :-1])
    drawn = rollout.mean + rollout.std * rollout.noise[1:4, 0].movedim(1, 0)
    assert torch.allclose(drawn, rollout.after, rtol=1e-5, atol=1e-6)
    normal = torch.distributions.Normal(rollout.mean.double(), rollout.std.double())
    wanted = normal.log_prob(rollout.after.double()).flatten(2).sum(2)
    assert torch.allclose(wanted, rollout.log_prob, rtol=1e-4)


def test_what_is_recorded_is_what_is_asked_for():
    made = sampler("cps")
    assert made.sample(2).rollout is None
    only = made.sample(2, record=["noise"]).rollout
    assert only.noise is not None and only.log_prob is only.trajectory is only.mean is None
    with pytest.raises(ValueError, match="no trajectory was recorded"):
        _ = only.before
    steady = Sampler(exact_network("heun"), "heun", 3).sample(2, record=("trajectory", "noise"))
    assert steady.rollout.rows == () and steady.rollout.trajectory.shape == (2, 6, 1)
    assert steady.rollout.mean is None


@pytest.mark.parametrize(
    "name, options",
    [
        ("flow_sde", {}),
        ("dpmpp_sde", {}),
        ("heun", {"s_churn": 2.0}),
        ("sscs2", {}),
        ("dpmpp_2m_sde", {}),
    ],
)
def test_replays_to_the_same_bits(name, options):
    """By its recipe, by its recipe with the normals, and by the normals alone whatever the seeds."""
    network = exact_network(name, (2, 3))
    made = Sampler(network, name, 5, **options)
    result = made.sample(seeds=[3, 2**64 - 1], record=ALL)
    assert torch.equal(made.sample(seeds=[3, 2**64 - 1]).samples, result.samples)
    again = Sampler.replay(network, result.recipe, record=ALL)
    assert same(again.rollout, result.rollout)
    given = Sampler.replay(network, result.recipe, noise=result.rollout.noise, record=ALL)
    assert same(given.rollout, result.rollout)
    others = made.sample(seeds=[0, 1], noise=result.rollout.noise, record=ALL)
    assert torch.equal(others.rollout.trajectory, result.rollout.trajectory)
    assert torch.equal(others.rollout.log_prob, result.rollout.log_prob)


def test_recorded_from_captured_graphs():
    """The same, with a stand-in for CUDA graphs, and beside runs that nobody records."""
    eager, captured = sampler("dpmpp_sde", 4), sampler("dpmpp_sde", 4, executor=taping())
    for record in ((), ALL, "log_prob", ALL):
        one, other = (made.sample(seeds=[3, 4], record=record) for made in (eager, captured))
        assert torch.equal(one.samples, other.samples)
        if record is ALL:
            assert same(one.rollout, other.rollout)
        elif record:
            assert torch.equal(one.rollout.log_prob, other.rollout.log_prob)


def test_a_graph_of_a_whole_run_has_densities_alone():
    eager = sampler("cps").sample(2, record="log_prob").rollout
    captured = sampler("cps", executor=taping(whole_run=True))
    assert torch.equal(captured.sample(2, record="log_prob").rollout.log_prob, eager.log_prob)
    with pytest.raises(GraphError, match="given noise or a recorded trajectory"):
        captured.sample(2, record="trajectory")


def test_given_normals_are_those_that_were_read():
    made = sampler("cps")
    normals = torch.Generator().manual_seed(3)

    def source(row, m, seeds):
        return torch.randn(len(seeds), *SHAPE, generator=normals, dtype=torch.float64)

    result = made.sample(3, noise=source, record=ALL)
    again = made.sample(3, noise=result.rollout.noise, record=ALL)
    assert same(again.rollout, result.rollout)


def test_learned_variances():
    """Their std is that of each element, and keeping it changes no bit."""
    made = policy("ddpm", 5, torch.float32, variance="learned")
    request = {"seeds": [1, 2], "condition": 1, "guidance": 2.0}
    result = made.sample(**request, record=ALL)
    assert torch.equal(result.samples, made.sample(**request).samples)
    rollout = result.rollout
    assert rollout.std.shape == rollout.mean.shape == rollout.after.shape
    drawn = rollout.mean + rollout.std * rollout.noise[list(rollout.rows), 0].movedim(1, 0)
    assert torch.allclose(drawn, rollout.after, rtol=1e-5, atol=1e-5)
    assert len(rollout.std[0, 0].unique()) > 1


def test_parts_and_minibatches():
    """Batches of a request make one rollout; some of its samples are those alone."""
    made = conditional()
    made = Sampler(made.network, "flow_sde", 4)
    request = {"condition": [0, 1, 2, 3, 4], "guidance": [1.0, 2.0, 2.0, 3.0, 1.0], "record": ALL}
    whole, parts = made.sample(**request).rollout, made.sample(**request, batch_size=2).rollout
    assert same(whole, parts)
    chosen = whole.select([3, -1])
    assert chosen.n == 2 and chosen.seeds == (3, 4)
    alone = made.sample(seeds=[3, 4], condition=[3, 4], guidance=[3.0, 1.0], record=ALL).rollout
    assert same(chosen, alone)
    found = log_prob(whole, made.network)
    assert torch.equal(log_prob(chosen, made.network), found[[3, 4]])
    assert torch.equal(log_prob(parts, made.network), found)
    with pytest.raises(IndexError):
        whole.select([5])


def test_named_conditions():
    """A condition of several tensors, and a null one beside it."""

    def module(x, label, text, scale):
        return 0.5 * x * scale.view(-1, 1) + text

    null = {"text": torch.zeros(4), "scale": torch.ones(1)}
    network = ScoreNetwork(module, VP(), (4,), null=null, label_dtype=torch.float64)
    text = torch.linspace(-1.0, 1.0, 12, dtype=torch.float64).view(3, 4)
    given = {"text": text, "scale": 0.3 + text[:, :1].abs()}
    made = Sampler(network, "cps", 4, guidance=1.5, dtype=torch.float64, backend="torch")
    rollout = made.sample(condition=given, record=ALL).rollout
    found = log_prob(rollout, network)
    assert torch.allclose(found, rollout.log_prob, rtol=1e-10)
    assert torch.equal(log_prob(rollout.select([1]), network), found[1:2])


def region():
    mask = torch.zeros(SHAPE)
    mask[:, :2] = 1.0
    return mask, torch.linspace(-1.0, 1.0, mask.numel()).reshape(SHAPE)


@pytest.mark.parametrize("name", ["flow_sde", "dpmpp_2m_sde", "dpmpp_2m"])
def test_a_kept_region_is_not_drawn(name):
    """Its elements have no share in a density; the others have what a run without them has."""
    mask, known = region()
    made = sampler(name, 4, dtype=torch.float64, backend="torch")
    names = ALL if name != "dpmpp_2m" else ALL[1:]
    rollout = made.sample(2, mask=mask, known=known, record=names).rollout
    again = made.sample(2, mask=mask, known=known, noise=rollout.noise, record=names).rollout
    assert torch.equal(again.trajectory, rollout.trajectory)
    if name == "dpmpp_2m":
        return
    mean, std = rollout.mean.double(), rollout.std.double()
    density = torch.distributions.Normal(mean, std).log_prob(rollout.after.double())
    wanted = (density * mask).flatten(2).sum(2)
    assert torch.allclose(rollout.log_prob, wanted, rtol=1e-9)
    assert torch.allclose(log_prob(rollout, made.network), rollout.log_prob, rtol=1e-9)
    kept = mask == 0.0
    assert torch.equal(rollout.mean[..., kept[0, :, 0], :], rollout.after[..., kept[0, :, 0], :])


def test_a_generators_latent_is_drawn_again():
    network = exact_network("ddgan", (3,))
    made = Sampler(network, "ddgan", 4, dtype=torch.float64, backend="torch")
    rollout = made.sample(3, record=ALL).rollout
    assert torch.allclose(log_prob(rollout, network), rollout.log_prob, rtol=1e-9)


def test_a_given_image():
    """Row 0 noises it, with normals of its own."""
    made = sampler("flow_sde", 4)
    x = torch.full((2, *SHAPE), 0.3)
    rollout = made.sample(x=x, start=0.6, record=ALL).rollout
    assert same(rollout, made.sample(x=x, start=0.6, noise=rollout.noise, record=ALL).rollout)
    assert torch.allclose(log_prob(rollout, made.network), rollout.log_prob, rtol=1e-3)


def test_what_is_refused():
    made = sampler("flow_sde", 3)
    with pytest.raises(ValueError, match=r"record=\['means'\]: 'means' is none; give some of"):
        made.sample(2, record=["means"])
    with pytest.raises(ValueError, match="record=7: give some of"):
        made.sample(2, record=7)
    with pytest.raises(ValueError, match="'dpmpp_2m' draws nothing after its first state"):
        sampler("dpmpp_2m").sample(2, record=ALL)
    with pytest.raises(ValueError, match="noise='brownian' makes a row's normals"):
        sampler("dpmpp_2m_sde").sample(2, noise="brownian", record=ALL)
    mask, known = region()
    with pytest.raises(ValueError, match="give one of zeros and ones"):
        made.sample(2, mask=0.5 * mask, known=known, record=ALL)
    with pytest.raises(ValueError, match="encode takes no record"):
        sampler("dpmpp_2m").encode(torch.zeros(1, *SHAPE), record=ALL)


def test_plans_that_cannot_be_recorded():
    plan = policy("ddpm", 3, variance="learned").plan()
    last = dataclasses.replace(plan.rows[1], e=(1.0, 0.0))
    assert "uses raw" in objection(plan.replace_rows([plan.rows[0], last]), ALL, None, None)
    wide = dataclasses.replace(plan.rows[1], new=plan.rows[1].new | {4: raw})
    made = plan.replace_rows([plan.rows[0], wide])
    assert "no free slot" in objection(made, ALL, None, None)
    both = {0: slot(0) + normal(0), 1: normal(0)}
    kept = dataclasses.replace(plan.rows[1], learned=None, new=both, known=(1.0, 0.5))
    made = dataclasses.replace(plan, exact=False).replace_rows([plan.rows[0], kept])
    assert "draws several slots" in objection(made, ALL, None, torch.ones(1))
