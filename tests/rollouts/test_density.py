"""The log-density of what rows draw, of every stochastic solver of the table in every form."""

import math

import law_cases as cases
import numpy as np
import pytest
import torch
from oracles import moments
from rollout_cases import ALL, STOCHASTIC, log_density, sampler

from diffusion_engine.plan import Plan, Row
from diffusion_engine.plan.linear import normal, x
from diffusion_engine.rollouts import log_prob
from diffusion_engine.rollouts.transition import Transition, transitions

SEEDS = [3, 2**63 + 5]


def sizes(values):
    return 1.0 + values.abs()


@pytest.mark.parametrize("form", STOCHASTIC, ids=str)
def test_density_of_what_a_row_drew(form):
    """In float64 against the law that the engine's own rows show, and again from the states alone; in
    float32, whose states are rounded, the same."""
    made = sampler(form, cases.MIXTURE)
    rollout = made.sample(seeds=SEEDS, record=ALL).rollout
    assert torch.equal(rollout.trajectory[:, -1, :3], made.sample(seeds=SEEDS).samples)
    some = sorted({rollout.rows[0], rollout.rows[-1]})
    for row in some:
        wanted = torch.from_numpy(log_density(made, rollout, row))
        found = rollout.log_prob[:, rollout.rows.index(row)]
        assert (found - wanted).abs().max() <= 1e-10 * sizes(wanted).max()
    again = log_prob(rollout, made.network)
    assert ((again - rollout.log_prob).abs() / sizes(again)).max() <= 1e-10
    single = (
        sampler(form, cases.MIXTURE, dtype=torch.float32)
        .sample(seeds=SEEDS, record="log_prob")
        .rollout
    )
    assert single.trajectory is None
    gap = (single.log_prob - rollout.log_prob).abs() / sizes(rollout.log_prob)
    assert gap.max() <= 1e-5


def told(plan: Plan) -> bool:
    """Whether each call reads just what the row before it drew, in the slots that a state has."""
    drawn = transitions(plan)
    before = [drawn[i].slots if i in drawn else None for i in range(1, len(plan.rows) - 1)]
    reads = [row.call.read if row.call else () for row in plan.rows[2:]]
    own = tuple(range(plan.inputs))
    return before == reads and all(read == own for read in reads)


CLOSED = [
    form for form in STOCHASTIC if form.name not in ("ddgan", "ald") and told(sampler(form).plan())
]


def test_most_forms_have_a_closed_form():
    assert {"ddpm", "flow_sde", "cps", "dpmpp_3m_sde", "sscs"} <= {form.name for form in CLOSED}


@pytest.mark.parametrize("form", CLOSED, ids=str)
def test_density_of_a_run_is_that_of_the_papers_loop(form):
    """All that the network reads is jointly Gaussian, with the law that the independent loop has: its density
    is that of the first state and of what the rows drew."""
    made = sampler(form)
    plan, parts = made.plan(), made.network.process.parts
    rollout = made.sample(seeds=SEEDS, record=ALL).rollout

    def run(draw):
        reads, _ = cases.by_loop(form, made, cases.GAUSSIAN, lambda: draw()[:, None])
        return [part[:, 0] for part in reads]

    mean, spread = moments.law(run, 4 * len(plan.rows) + 4)
    states = rollout.trajectory[:, :-1].unflatten(2, (parts, -1)).numpy()  # [n, R - 1, parts, d]
    size = [row.call.c_in[0] for row in plan.rows[1:]]
    path = (states * np.reshape(size, (-1, 1, 1))).reshape(len(states), len(mean), -1)
    off = path - mean[:, None]
    square = np.einsum("nia,ij,nja->na", off, np.linalg.inv(spread), off)
    log_det = np.linalg.slogdet(spread)[1] - 2.0 * parts * np.log(size).sum()
    wanted = -0.5 * (square + log_det + len(mean) * math.log(2.0 * math.pi)).sum(1)
    first = Transition.of(plan.rows[0])
    z = {m: rollout.noise[0, m].double() for m in range(parts)}
    found = first.log_density(first.from_normals(z)).sum(1)
    found = found + rollout.log_prob[:, : len(plan.rows) - 2].sum(1)
    condition = np.linalg.cond(spread)
    bound = 1e-10 + condition * np.finfo(float).eps
    assert np.abs(found.numpy() - wanted).max() <= bound * sizes(found).max()


@pytest.mark.parametrize(
    "new, slots, rank",
    [
        ({0: 2.0 * normal(0)}, (0,), 1),
        ({0: 3.0 * normal(0) + 4.0 * normal(1)}, (0,), 1),
        ({0: x + normal(0), 1: x - 2.0 * normal(0)}, (0, 1), 1),
        ({0: 0.5 * normal(0), 1: 0.3 * normal(0) + 0.2 * normal(1)}, (0, 1), 2),
        ({0: normal(1), 2: normal(0) + normal(1), 3: normal(0)}, (0, 2, 3), 2),
        ({0: 1e-9 * normal(0), 1: normal(0) + normal(1)}, (0, 1), 2),
    ],
)
def test_law_of_normals_in_several_slots(new, slots, rank):
    """Two normals in one slot, one in two slots, and both in three, where the law has a plane of its own."""
    made = Transition.of(Row(call=None, new=new))
    weights = np.array([[new[k]["z0"], new[k]["z1"]] for k in slots])
    assert made.slots == slots and made.rank == rank == np.linalg.matrix_rank(weights, tol=1e-12)
    assert made.root @ made.basis == pytest.approx(weights, abs=1e-15)
    s = np.linalg.svd(weights, compute_uv=False)[:rank]
    z = {m: torch.tensor([[0.7, -1.3], [0.2, 0.4]], dtype=torch.float64)[m] for m in range(2)}
    w = made.from_normals(z)
    off = {k: sum(weights[i, m] * z[m] for m in range(2)) for i, k in enumerate(slots)}
    again = made.from_states({k: off[k] for k in made.told}, None)
    for one, other in zip(w, again, strict=True):
        assert one.tolist() == pytest.approx(other.tolist(), rel=1e-6)
    for k in slots:
        assert made.noise(k, w).tolist() == pytest.approx(off[k].tolist(), rel=1e-12)
        assert made.std(k) == pytest.approx(np.linalg.norm(weights[slots.index(k)]))
    white = np.linalg.pinv(weights) @ np.stack([off[k].numpy() for k in slots])
    wanted = -0.5 * (white**2).sum(0) - np.log(s).sum() - 0.5 * rank * math.log(2.0 * math.pi)
    assert made.log_density(w).tolist() == pytest.approx(wanted.tolist(), rel=1e-6)


def test_what_the_next_call_reads_tells_the_draw():
    """Not a partial sum with little noise, whatever slots they are in."""
    row = Row(call=None, new={0: x + 1e-5 * normal(0), 2: x + normal(0), 3: normal(1)})
    assert Transition.of(row).told == (0, 3)
    assert Transition.of(row, first=(2,)).told == (2, 3)
    assert Transition.of(row, first=(3, 1)).told == (3, 0)
    one, other = Transition.of(row), Transition.of(row, first=(3, 2))
    assert one.log_size == pytest.approx(other.log_size, rel=1e-12)
    plan = sampler(next(f for f in STOCHASTIC if "flipped" in str(f) and "eta" in f.options)).plan()
    for i, drawn in transitions(plan).items():
        assert drawn.told == plan.rows[i + 1].call.read


def test_a_row_without_noise_has_no_law():
    assert Transition.of(Row(call=None, new={0: x})) is None
