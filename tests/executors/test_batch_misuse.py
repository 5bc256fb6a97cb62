"""What a batch is given wrongly is refused before anything is taken, and who comes and goes is told right."""

import numpy as np
import pytest
import torch
from executor_cases import PLAIN, SHAPE
from tape import launches_are_recorded, taping

from diffusion_engine import Sampler, ScoreNetwork
from diffusion_engine.executors import Capacity, Eager, Job, graph
from diffusion_engine.executors.course import Course, Move
from diffusion_engine.processes import CLD

__all__ = ["launches_are_recorded"]
CPU = torch.device("cpu")
PLAN = Sampler(PLAIN, "dpmpp_2m_sde", 3).plan()
IMAGE = Sampler(PLAIN, "ddim", 3).plan(start=0.5, kind="image")


def open_batch(seats=2, plans=(PLAN, IMAGE), network=PLAIN, **widths):
    return Eager("cpp").open(network, Capacity.of(network, plans, seats, device=CPU, **widths))


def finish(batch):
    while batch.live:
        batch.step()


def normals(row, m):
    return torch.zeros(SHAPE)


@pytest.mark.parametrize(
    "job, message",
    [
        (Job(PLAN, 1.5), r"its seed is 1.5; a seed lies in 0 ... 2\^64 - 1 and is whole"),
        (Job(PLAN, None), "its seed is None"),
        (Job(IMAGE, 0, x=np.zeros(SHAPE)), r"x is ndarray \[3, 5, 7\]; give a tensor"),
        (Job(IMAGE, 0), "its plan 'ddim' begins with a given x, which is missing"),
        (Job(PLAN, 0, noise=normals, brownian=True), "noise of its own and a Brownian path"),
        (Job(PLAN, 0, noise=torch.zeros(4, *SHAPE)), r"noise is Tensor .*; give a function"),
    ],
    ids=lambda given: given[:20] if isinstance(given, str) else "job",
)
def test_a_job_in_bad_hands_takes_no_seat(job, message):
    batch = open_batch(given=True, brownian=True)
    with pytest.raises(ValueError, match=f"the job does not fit: .*{message}"):
        batch.admit(job)
    assert [batch.admit(Job(PLAN, seed)) for seed in range(2)] == [0, 1]
    finish(batch)


def test_a_state_that_is_half_given():
    cld = ScoreNetwork(lambda x, label: 0.5 * x[:, :3] - x[:, 3:], CLD(), SHAPE, "velocity")
    plan = Sampler(cld, "cld_exp", 3).plan(kind="whole")
    batch = open_batch(plans=[plan], network=cld)
    with pytest.raises(ValueError, match=r"begins with a given \[x, v\], and x is \[3, 5, 7\]"):
        batch.admit(Job(plan, 0, x=torch.zeros(SHAPE)))
    batch.admit(Job(plan, 0, x=torch.zeros(6, 5, 7)))


def test_seeds_of_64_bits_whoever_counts_them():
    for seed in (2**63 - 1, 2**63, 2**64 - 1):
        batch = open_batch()
        seats = [batch.admit(Job(PLAN, given)) for given in (seed, np.uint64(seed))]
        finish(batch)
        made = Sampler(PLAIN, "dpmpp_2m_sde", 3).sample(seeds=[seed]).samples
        assert torch.equal(batch.read(seats), made.expand(2, *SHAPE))


def test_nobody_is_called_for_who_left():
    batch = open_batch()
    seats = [batch.admit(Job(PLAN, seed)) for seed in range(2)]
    _ = batch.step(), batch.step()
    for seat in seats:
        batch.release(seat)
    assert batch.inputs() is None
    batch.admit(Job(PLAN, 5))
    assert batch.inputs() is None  # of a first row
    batch.step()
    batch.clear()
    assert batch.inputs() is None and batch.step() == []


def test_a_seat_that_a_callback_gave_away_has_not_ended():
    def ends(i, x, denoised):
        if i == len(PLAN.rows) - 1:
            batch.release(seat)
            assert batch.admit(Job(PLAN, 8)) == seat

    batch, ended = open_batch(), []
    seat = batch.admit(Job(PLAN, 0, on_row=ends))
    stays = batch.admit(Job(PLAN, 1))
    for _ in PLAN.rows:
        ended += batch.step()
    assert ended == [stays] and batch.row(seat) == 0
    finish(batch)
    made = Sampler(PLAIN, "dpmpp_2m_sde", 3).sample(seeds=[8, 1]).samples
    assert torch.equal(batch.read([seat, stays]), made)


def test_who_just_came_has_met_nothing():
    lost = ScoreNetwork(lambda x, label: x / 0.0, PLAIN.process, SHAPE)
    batch = open_batch(network=lost)
    seat = batch.admit(Job(PLAN, 0))
    finish(batch)
    assert batch.finite([seat]) == [False]
    batch.release(seat)
    assert batch.finite([batch.admit(Job(PLAN, 1))]) == [True]


def test_rows_that_could_not_be_loaded_are_not_held(monkeypatch):
    """Nor is a seat taken: the next with the plan loads them."""
    batch = open_batch()
    monkeypatch.setattr(batch.rows, "_put", lambda *a: (_ for _ in ()).throw(RuntimeError("lost")))
    with pytest.raises(RuntimeError, match="lost"):
        batch.admit(Job(PLAN, 0))
    with pytest.raises(RuntimeError, match="lost"):
        batch.lead(Course((move for move in [Move(PLAN.rows[0], PLAN.rows[1])]), [Job(PLAN, 0)]))
    assert batch.live == 0
    monkeypatch.undo()
    seat = batch.admit(Job(PLAN, 0))
    batch.admit(Job(IMAGE, 0, x=torch.zeros(SHAPE)))
    finish(batch)
    assert torch.equal(
        batch.read([seat]), Sampler(PLAIN, "dpmpp_2m_sde", 3).sample(seeds=[0]).samples
    )


def test_a_capture_of_a_batch_of_ones_own_is_on_its_device(monkeypatch):
    on, entered = graph._on, []
    monkeypatch.setattr(graph, "_on", lambda device: entered.append(device) or on(device))
    batch = taping().open(PLAIN, Capacity.of(PLAIN, [PLAN], 1, device=CPU))
    entered.clear()
    batch.admit(Job(PLAN, 0))
    _ = batch.step(), batch.step()  # captures
    assert entered == [CPU]
