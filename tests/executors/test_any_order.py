"""Jobs come and go in any order, with any solvers, steps, guidance, conditions, seeds and noise: every sample
has the bits that it has alone."""

from functools import cache

import pytest
import torch
from analytic import suited
from batches import together
from executor_cases import CONDITIONAL, SHAPE
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from tape import launches_are_recorded, taping

from diffusion_engine import Sampler
from diffusion_engine.executors import Capacity, Eager, Job
from diffusion_engine.processes import VP

__all__ = ["launches_are_recorded"]
EXECUTORS = {"torch": lambda: Eager("torch"), "cpp": lambda: Eager("cpp"), "recorder": taping}
SOLVERS = tuple(suited(VP()))
GUIDANCE = ((1.0, None), (2.0, None), (3.0, (0.3, 3.0)))
SEATS = 3


@cache
def plan_of(solver, steps, guidance, kind):
    scale, interval = guidance
    how = {"interval": interval} if interval else {}
    sampler = Sampler(CONDITIONAL, solver, steps, guidance=scale, **how)
    if kind == "image":
        return sampler.plan(start=0.6, kind="image")
    return sampler.plan(masked=kind == "region")


def normals(seed, row, m):
    generator = torch.Generator().manual_seed((1000 * seed + 10 * row + m) % 2**62)
    return torch.randn(SHAPE, generator=generator)


@cache
def job_of(solver, steps, guidance, kind, noise, label, seed):
    def drawn(row, m):
        return normals(seed, row, m)

    return Job(
        plan_of(solver, steps, guidance, kind),
        seed,
        conditions=(torch.tensor(label), torch.tensor(10)),
        x=normals(seed, 0, 5) if kind == "image" else None,
        noise=drawn if noise == "given" else None,
        brownian=noise == "brownian",
        mask=(normals(seed, 0, 6) > 0).float() if kind == "region" else None,
        known=normals(seed, 0, 7) if kind == "region" else None,
    )


jobs = st.builds(
    job_of,
    st.sampled_from(SOLVERS),
    st.integers(1, 5),
    st.sampled_from(GUIDANCE),
    st.sampled_from(("prior", "image", "region")),
    st.sampled_from((None, None, "given", "brownian")),
    st.integers(0, 9),
    st.integers(0, 2**64 - 1),
)
# What happens before each step: who comes, and the number of one who is sent away.
events = st.lists(
    st.tuples(st.lists(jobs, max_size=2), st.none() | st.integers(0, SEATS - 1)),
    min_size=1,
    max_size=12,
)


@cache
def alone(job):
    return together(Eager("torch"), CONDITIONAL, [job])[0][0]


def capacity():
    """Of a batch that takes them all."""
    plans = [plan_of(s, 5, GUIDANCE[1], k) for s in SOLVERS for k in ("prior", "image", "region")]
    return Capacity.of(
        CONDITIONAL, plans, SEATS, device=torch.device("cpu"), given=True, brownian=True, masked=True,
        conditions=(torch.tensor(0), torch.tensor(10)),
    )  # fmt: skip


CAPACITY = capacity()


def check(batch, happens):
    """Steps through what happens and then to the end; every sample that came to its end is itself alone."""
    inside, made = {}, []

    def step():
        for seat in batch.step():
            made.append((inside.pop(seat), batch.read([seat])[0]))
            assert batch.finite([seat]) == [True]
            batch.release(seat)

    for come, sent in happens:
        if sent in inside:
            batch.release(sent)
            del inside[sent]
        for job in come[: SEATS - len(inside)]:
            inside[batch.admit(job)] = job
        step()
    while inside:
        step()
    assert batch.live == 0
    for job, sample in made:
        assert torch.equal(sample, alone(job)), job


@pytest.mark.parametrize("name", EXECUTORS)
def test_any_order(name):
    batch = EXECUTORS[name]().open(CONDITIONAL, CAPACITY)

    @settings(
        max_examples=40, deadline=None, derandomize=True, phases=(Phase.generate, Phase.shrink)
    )
    @given(events)
    def any_order(happens):
        batch.clear()  # of an example that failed
        check(batch, happens)

    any_order()


@pytest.mark.slow
@pytest.mark.parametrize("name", EXECUTORS)
def test_any_order_at_length(name):
    batch = EXECUTORS[name]().open(CONDITIONAL, CAPACITY)

    @settings(max_examples=1000, deadline=None, suppress_health_check=list(HealthCheck))
    @given(events)
    def any_order(happens):
        batch.clear()
        check(batch, happens)

    any_order()
