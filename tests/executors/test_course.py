"""What leads seats: rows are written between the call and the step, beside samples that follow plans."""

from dataclasses import replace

import pytest
import torch
from batches import together
from executor_cases import CONDITIONAL, PLAIN
from tape import launches_are_recorded, taping

from diffusion_engine import Plan, Sampler
from diffusion_engine.executors import BatchFull, Capacity, Eager, Job
from diffusion_engine.executors.course import STAY, Course, Move, Seen
from diffusion_engine.ops import philox
from diffusion_engine.plan.linear import normal

__all__ = ["launches_are_recorded"]
CPU = torch.device("cpu")
SOLVERS = ("dpmpp_2m", "heun", "unipc", "dpmpp_2m_sde")
PLAN = Sampler(PLAIN, "dpmpp_2m_sde", 5).plan()


def open_batch(network=PLAIN, seats=4, plans=(PLAN,), executor=None, **widths):
    room = Capacity.of(network, plans, seats, device=CPU, **widths)
    return (executor or Eager("cpp")).open(network, room)


def alone(job, network=PLAIN):
    return together(Eager("torch"), network, [job])[0][0]


def finish(batch):
    while batch.live:
        batch.step()


def walk(plan, look=None):
    """Follows a plan row by row."""
    rows = plan.rows
    for i, row in enumerate(rows):
        then = rows[i + 1] if i + 1 < len(rows) else None
        seen = yield Move(row, then)
        if look is not None and seen is not None:
            look(i, seen)
    return {"rows": len(rows)}


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize("backend", ["cpp", "torch"])
def test_a_lead_that_follows_a_plan_comes_where_the_plan_does(name, backend):
    plan = Sampler(PLAIN, name, 5).plan()
    batch = open_batch(plans=[PLAN, plan], executor=Eager(backend))
    other = batch.admit(Job(PLAN, 8))
    batch.step()
    course = Course(walk(plan), [Job(plan, 5)])
    (seat,) = batch.lead(course)
    assert batch.row(seat) == 0
    batch.step()
    assert batch.row(seat) == 1
    finish(batch)
    assert batch.row(seat) is None
    assert torch.equal(batch.read([seat])[0], alone(Job(plan, 5)))
    assert torch.equal(batch.read([other])[0], alone(Job(PLAN, 8)))
    assert course.report == {"rows": len(plan.rows)}
    assert (course.rows, course.calls) == (len(plan.rows), plan.nfe)
    assert course.evaluations == plan.evaluations
    assert tuple(course.branches) == plan.branches


def test_what_is_seen_has_the_bits_of_the_step():
    """denoised, the slots after the step, and the normals of a row, guided and not."""
    plan = Sampler(CONDITIONAL, "dpmpp_2m_sde", 4, guidance=2.5, clip=(-0.8, 0.9)).plan()
    found = []

    def look(i, seen):
        row = plan.rows[i + 1]
        new = {}
        for k, update in row.new.items():
            symbols = {f"S{j}": seen.slots[j] for j in range(len(seen.slots))}
            symbols |= {"D": seen.denoised, "raw": seen.raw} | {
                f"z{m}": seen.normal(row.key, m) for m in range(2)
            }
            total = torch.zeros_like(seen.x)
            for symbol in ("S0", "S1", "S2", "S3", "S4", "D", "raw", "z0", "z1"):
                if update[symbol]:
                    total = (
                        total + torch.tensor(update[symbol], dtype=total.dtype) * symbols[symbol]
                    )
            new[k] = total
        found.append((seen.denoised.clone(), new))

    conditions = (torch.tensor(3), torch.tensor(10))
    batch = open_batch(CONDITIONAL, plans=[plan], conditions=conditions, denoised=True)
    (seat,) = batch.lead(Course(walk(plan, look), [Job(plan, 3, conditions)]))
    batch.step()
    for _ in plan.rows[1:]:
        batch.step()
        denoised, new = found[-1]
        assert torch.equal(batch.denoised(seat), denoised)
        for k, content in new.items():
            assert torch.equal(batch.buffers.step.slots[k, seat], content)
    assert len(found) == plan.nfe


def test_two_seats_are_led_together_and_one_may_idle():
    plan = Sampler(PLAIN, "ddim", 4).plan()

    def both():
        rows = plan.rows
        seen = yield [Move(rows[0], rows[1]), Move(rows[0], STAY)]
        for i in (1, 2, 3, 4):
            last = i == 4
            seen[1].slots[1].copy_(seen[0].x)  # what is put there the step may read
            seen = yield [
                Move(rows[i], None if last else rows[i + 1]),
                Move(STAY, None if last else STAY),
            ]
        return {}

    room = Plan(
        (plan.rows[0], replace(plan.rows[1], new={0: normal(0), 1: normal(0)})), exact=False
    )
    batch = open_batch(plans=[room, PLAN])
    seats = batch.lead(Course(both(), [Job(room, 5), Job(room, 6)]))
    assert len(seats) == 2
    finish(batch)
    assert torch.equal(batch.read([seats[0]])[0], alone(Job(plan, 5)))
    first = Plan((plan.rows[0], replace(plan.rows[1], new=STAY.new)), exact=False)
    assert torch.equal(batch.read([seats[1]])[0], alone(Job(first, 6)))


def test_a_lead_that_raises_ends_alone():
    def failing():
        yield Move(PLAN.rows[0], PLAN.rows[1])
        raise ArithmeticError("no acceptance")

    batch = open_batch()
    course = Course(failing(), [Job(PLAN, 1)])
    seats, other = batch.lead(course), batch.admit(Job(PLAN, 2))
    batch.step()
    assert course.error is None
    assert batch.step() == seats
    assert isinstance(course.error, ArithmeticError)
    batch.release(seats[0])
    finish(batch)
    assert torch.equal(batch.read([other])[0], alone(Job(PLAN, 2)))


def test_a_step_that_is_done_again_asks_no_lead_again():
    asked, failed = [], []

    def noise(row, m):
        if row == 3 and not failed:
            failed.append(row)
            raise RuntimeError("no noise yet")
        return torch.full(PLAIN.shape, 0.1)

    def counted():
        rows = PLAN.rows
        for i, row in enumerate(rows):
            asked.append((yield Move(row, rows[i + 1] if i + 1 < len(rows) else None)))

    batch = open_batch(given=True)
    (seat,) = batch.lead(Course(counted(), [Job(PLAN, 5)]))
    batch.admit(Job(PLAN, 8, noise=noise))
    step, broken = batch.stages.step, []

    def once(outs):
        if batch.row(seat) == 2 and not broken:
            broken.append(True)
            raise RuntimeError("no launch")
        return step(outs)

    batch.stages.step = once
    for words in ("no launch", "no noise yet"):
        with pytest.raises(RuntimeError, match=words):
            finish(batch)
    finish(batch)
    assert len(asked) == len(PLAN.rows)
    assert torch.equal(batch.read([seat])[0], alone(Job(PLAN, 5)))


def test_who_leaves_ends_the_course():
    closed = []

    def endless():
        try:
            yield Move(PLAN.rows[0], PLAN.rows[1])
            while True:
                yield Move(replace(PLAN.rows[1], key=9), PLAN.rows[1])
        finally:
            closed.append(True)

    batch = open_batch()
    (seat,) = batch.lead(Course(endless(), [Job(PLAN, 1)]))
    for _ in range(20):
        batch.step()
    assert batch.live == 1
    batch.release(seat)
    assert closed and batch.live == 0
    again = batch.admit(Job(PLAN, 4))
    finish(batch)
    assert torch.equal(batch.read([again])[0], alone(Job(PLAN, 4)))
    batch.lead(Course(endless(), [Job(PLAN, 1)]))
    batch.clear()
    assert len(closed) == 2


def test_courses_in_bad_hands():
    batch = open_batch(seats=2)
    jobs = [Job(PLAN, i) for i in range(3)]
    with pytest.raises(ValueError, match=r"takes 3 seats .* make one with more"):
        batch.lead(Course(walk(PLAN), jobs))
    with pytest.raises(ValueError, match="made 1 moves for 2 seats"):
        batch.lead(Course(walk(PLAN), jobs[:2]))
    batch.admit(jobs[0])
    with pytest.raises(BatchFull, match="1 seats are free and the course takes 2"):
        batch.lead(Course(walk(PLAN), jobs[:2]))
    with pytest.raises(ValueError, match="what leads it draws its own"):
        batch.lead(Course(walk(PLAN), [Job(PLAN, 1, noise=lambda row, m: None)]))

    def wide():
        yield Move(PLAN.rows[0], PLAN.rows[1])
        yield Move(replace(PLAN.rows[1], new={4: normal(0)}), None)

    def early():
        yield Move(PLAN.rows[0], PLAN.rows[1])

    def late():
        yield Move(PLAN.rows[0], PLAN.rows[1])
        yield Move(PLAN.rows[1], None)
        yield Move(PLAN.rows[1], None)

    def none():
        return {}
        yield

    with pytest.raises(ValueError, match="returned before"):
        batch.lead(Course(none(), [Job(PLAN, 1)]))
    for lead, words in ((wide, "takes more slots"), (early, "returned before"), (late, "goes on")):
        course = Course(lead(), [Job(PLAN, 1)])
        (seat,) = batch.lead(course)
        batch.step(), batch.step()
        assert words in str(course.error)
        batch.release(seat)
    with pytest.raises(ValueError, match="a captured step has no such moment"):
        open_batch(executor=taping()).lead(Course(walk(PLAN), jobs[:1]))


@pytest.mark.parametrize("seed", [3, 2**63 + 5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_normals_of_any_key(seed, dtype):
    keys = (1, 1 << 29 | 2, philox.IMAGE | 3, philox.STATE | philox.IMAGE | 4)
    seen = Seen(STAY, torch.zeros(2, 3, 5, 7, dtype=dtype), [], seed)
    seeds = torch.full((4,), seed - (seed >> 63 << 64))
    wanted = philox.normals(seeds, torch.tensor(keys), 1, 105).reshape(4, 3, 5, 7)
    assert torch.equal(seen.normals(keys, 1), wanted.to(dtype))
    assert torch.equal(seen.normal(keys[3], 1), wanted[3].to(dtype))
