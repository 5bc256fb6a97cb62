"""`Batch`: who may sit, what a seat's sample depends on, and that who fails keeps nobody back."""

from dataclasses import replace

import pytest
import torch
from batches import capacity, jobs_of, together
from executor_cases import CONDITIONAL, PLAIN, SHAPE, classes, elementwise
from tape import launches_are_recorded, taping

from diffusion_engine import Sampler, ScoreNetwork
from diffusion_engine.executors import BatchFull, Capacity, Eager, Job
from diffusion_engine.processes import CLD, VP

__all__ = ["launches_are_recorded"]
CPU = torch.device("cpu")
PLAN = Sampler(PLAIN, "dpmpp_2m_sde", 5).plan()


def open_batch(network=PLAIN, seats=3, plans=(PLAN,), executor=None, **widths):
    room = Capacity.of(network, plans, seats, device=CPU, **widths)
    return (executor or Eager("cpp")).open(network, room)


def alone(job, network=PLAIN):
    return together(Eager("torch"), network, [replace(job, on_row=None)])[0][0]


def finish(batch):
    while batch.live:
        batch.step()


def test_a_unipc_sample_joins_a_running_sde_sample():
    """Its row 0, which calls nothing, rides in the step of the other; both equal themselves alone."""
    first = Job(PLAN, 3)
    second = Job(Sampler(PLAIN, "unipc", 4).plan(), 4)
    for executor in (Eager("cpp"), Eager("torch"), taping()):
        batch = open_batch(seats=2, plans=[PLAN, second.plan], executor=executor)
        a = batch.admit(first)
        for _ in range(3):
            batch.step()
        b = batch.admit(second)
        ended = []
        while batch.live:
            ended += batch.step()
        assert ended == [a, b]
        assert torch.equal(batch.read([a])[0], alone(first))
        assert torch.equal(batch.read([b])[0], alone(second))
        assert batch.finite([b, a]) == [True, True]


def test_a_full_batch_says_so_and_goes_on():
    batch = open_batch(seats=2)
    seats = [batch.admit(Job(PLAN, i)) for i in range(2)]
    batch.step()
    with pytest.raises(BatchFull, match="all 2 seats are taken; release one first"):
        batch.admit(Job(PLAN, 2))
    finish(batch)
    for i, seat in enumerate(seats):
        assert torch.equal(batch.read([seat])[0], alone(Job(PLAN, i)))
    batch.release(seats[0])
    assert batch.admit(Job(PLAN, 5)) == seats[0]


def test_rows_are_allocated_and_freed():
    plans = [Sampler(PLAIN, "ddim", n).plan() for n in (5, 6, 7, 8)]
    batch = open_batch(seats=4, plans=plans[:2])  # room for 13 rows
    one, two = batch.admit(Job(plans[0], 0)), batch.admit(Job(plans[1], 1))
    with pytest.raises(
        BatchFull, match="room for 13 rows and none for 8 more now: release a sample"
    ):
        batch.admit(Job(plans[2], 2))
    again = batch.admit(Job(plans[0], 3))  # shares the rows of the first
    batch.release(one)
    with pytest.raises(BatchFull, match="rows"):
        batch.admit(Job(plans[3], 2))  # another still runs them
    batch.release(again)
    with pytest.raises(BatchFull, match="rows"):
        batch.admit(Job(plans[2], 2))  # 6 are free, side by side
    batch.release(two)
    three = batch.admit(Job(plans[3], 2))
    finish(batch)
    assert torch.equal(batch.read([three])[0], alone(Job(plans[3], 2)))


def test_entries_are_shared():
    guided = Sampler(CONDITIONAL, "ddim", 3, guidance=2.0).plan()
    given = (torch.tensor(1), torch.tensor(10))
    room = Capacity.of(CONDITIONAL, [guided], 3, device=CPU, conditions=given)
    batch = Eager("cpp").open(CONDITIONAL, replace(room, room=4))
    for seed in range(2):
        batch.admit(Job(guided, seed, given))
    with pytest.raises(
        BatchFull, match="take 4 entries of the network's batch and this one 2, of 4"
    ):
        batch.admit(Job(guided, 2, given))


WIDE = [
    (Job(Sampler(PLAIN, "unipc", 5).plan(), 0), "'unipc' takes 5 slots and this batch has 2"),
    (Job(Sampler(PLAIN, "ddim", 40).plan(), 0), "takes 41 rows and this batch has 6"),
    (Job(PLAN, 0, x=torch.zeros(1, 5, 7)), r"x has shape \[1, 5, 7\]; \[3, 5, 7\] is needed"),
    (
        Job(PLAN, 0, noise=lambda i, m: torch.zeros(SHAPE)),
        "noise of its own and this batch draws all",
    ),
    (Job(PLAN, 0, brownian=True), "a Brownian path's and this batch follows none"),
    (Job(PLAN, 0, (torch.tensor(3),)), "its condition is .* and this batch's are"),
    (
        Job(PLAN, 0, mask=torch.ones(SHAPE), known=torch.ones(SHAPE)),
        "mask= and known= come together",
    ),
    (Job(PLAN, 2**64), "its seed is 18446744073709551616; a seed lies in 0"),
    (Job(PLAN, -1), "its seed is -1"),
    (
        Job(Sampler(PLAIN, "ddim", 3).plan(masked=True), 0),
        "keeps a known region, for which this batch has no mask",
    ),
]


def test_who_joins_beside_a_last_row_takes_its_place_in_the_next_call():
    """A seat more than there are entries: nobody waits a row for who ends."""
    sizes, jobs = [], [Job(PLAN, i) for i in range(3)]
    called = PLAIN.with_module(lambda x, t: sizes.append(len(x)) or PLAIN.module(x, t))
    room = replace(Capacity.of(called, [PLAN], 3, device=CPU), room=2)
    batch = Eager("cpp").open(called, room)
    a, b = map(batch.admit, jobs[:2])
    for _ in range(len(PLAN.rows) - 1):
        assert batch.ending == []
        with pytest.raises(
            BatchFull, match="take 2 entries of the network's batch and this one 1, of 2"
        ):
            batch.admit(jobs[2])
        batch.step()
    assert batch.ending == [a, b]
    c = batch.admit(jobs[2])
    assert batch.step() == [a, b] and batch.ending == []
    finish(batch)
    assert sizes == [2] * 5 + [1] * 5
    assert all(
        torch.equal(batch.read([seat])[0], alone(job))
        for seat, job in zip((a, b, c), jobs, strict=True)
    )


@pytest.mark.parametrize("job, message", WIDE, ids=[message[:30] for _, message in WIDE])
def test_a_job_that_does_not_fit_is_refused_and_the_others_go_on(job, message):
    batch = open_batch()
    seat = batch.admit(Job(PLAN, 7))
    batch.step()
    with pytest.raises(ValueError, match=f"the job does not fit: .*{message}"):
        batch.admit(job)
    finish(batch)
    assert torch.equal(batch.read([seat])[0], alone(Job(PLAN, 7)))


def test_a_network_of_two_slots_has_a_batch_of_its_own():
    cld = ScoreNetwork(elementwise, CLD(), SHAPE, prediction="mixed_velocity")
    with pytest.raises(ValueError, match="reads 2 slots and this batch's 1"):
        open_batch().admit(Job(Sampler(cld, "sscs", 3).plan(), 0))


def test_conditions_have_to_fit():
    given = (torch.tensor(1), torch.tensor(10))
    guided = Sampler(CONDITIONAL, "ddim", 3, guidance=2.0).plan()
    batch = open_batch(CONDITIONAL, plans=[guided], conditions=given)
    for conditions, message in (
        ((), "conditions of 0 branches, its plan calls 2"),
        (given[:1], "conditions of 1 branches, its plan calls 2"),
        ((*given, given[0]), "conditions of 3 branches, its plan calls 2 and this batch has 2"),
        ((torch.zeros(2), torch.zeros(2)), r"its condition is .*\(2,\).* and this batch's are"),
        ((torch.tensor(0.5),) * 2, r"float32.* and this batch's are .*int64"),
        ((dict(y=given[0]),) * 2, "'y'.* and this batch's are"),
    ):
        with pytest.raises(ValueError, match=message):
            batch.admit(Job(guided, 0, conditions))


def test_a_seat_is_released_once():
    batch = open_batch()
    seat = batch.admit(Job(PLAN, 0))
    batch.release(seat)
    for wrong in (seat, 7, -1, None):
        with pytest.raises(ValueError, match=f"nobody has seat {wrong!r}: it was released already"):
            batch.release(wrong)
    with pytest.raises(ValueError, match="nobody has seat"):
        batch.row(seat)


@pytest.mark.parametrize("rows", [0, 1, 3])
def test_who_is_released_on_the_way_leaves_the_others_alone(rows):
    batch = open_batch()
    gone, stays = batch.admit(Job(PLAN, 0)), batch.admit(Job(PLAN, 1))
    for _ in range(rows):
        batch.step()
    batch.release(gone)
    new = batch.admit(Job(PLAN, 2))
    assert new == gone and batch.live == 2
    assert (batch.row(new), batch.row(stays)) == (0, rows)
    finish(batch)
    assert batch.row(stays) is None
    for seat, seed in ((stays, 1), (new, 2)):
        assert torch.equal(batch.read([seat])[0], alone(Job(PLAN, seed)))


def test_who_takes_the_seat_of_another_between_two_steps_has_conditions_of_its_own():
    """The calls are packed as before, so that nothing but the newcomer says that they changed."""
    jobs = [Job(PLAN, i, (torch.tensor(y), torch.tensor(10))) for i, y in enumerate((3, 4, 5))]
    batch = open_batch(CONDITIONAL, 2, conditions=jobs[0].conditions)
    gone, _ = batch.admit(jobs[0]), batch.admit(jobs[1])
    batch.step(), batch.step()
    batch.release(gone)
    assert batch.admit(jobs[2]) == gone
    finish(batch)
    assert torch.equal(batch.read([gone])[0], alone(jobs[2], CONDITIONAL))


def test_a_call_that_still_has_entries_of_who_left_is_captured_at_its_own_size():
    """A guided sample leaves before the first call, and one of one entry takes its seat."""
    guided = Sampler(CONDITIONAL, "ddim", 3, guidance=2.0).plan()
    own = (torch.tensor(3), torch.tensor(10))
    jobs = [Job(plan, i, own) for i, plan in enumerate((guided, guided, PLAN))]
    executor = taping()
    batch = open_batch(CONDITIONAL, 2, [guided, PLAN], executor, conditions=own)
    gone, stays = batch.admit(jobs[0]), batch.admit(jobs[1])
    batch.step()
    batch.release(gone)
    assert batch.admit(jobs[2]) == gone
    batch.step()
    assert batch.called.count == 4 > batch.entries == 3
    finish(batch)
    for seat, job in ((stays, jobs[1]), (gone, jobs[2])):
        assert torch.equal(batch.read([seat])[0], alone(job, CONDITIONAL))


def test_what_was_not_finite_does_not_follow_the_next_in_its_seat():
    def module(x, label, y):
        return classes(x, label, y) / (y != 3).view(-1, 1, 1, 1)

    network = ScoreNetwork(module, VP(), SHAPE, null=10, classes=10)
    jobs = [Job(PLAN, i, (torch.tensor(y), torch.tensor(10))) for i, y in enumerate((3, 4))]
    batch = open_batch(network, 2, conditions=jobs[0].conditions)
    seats = [batch.admit(job) for job in jobs]
    finish(batch)
    assert batch.finite(seats) == [False, True]
    batch.release(seats[0])
    again = batch.admit(jobs[1])
    batch.step()
    assert batch.finite([again, seats[1]]) == [True, True]
    finish(batch)
    assert torch.equal(*batch.read([again, seats[1]]))


def test_outputs_that_the_caller_makes():
    batch = open_batch()
    seats, network = [batch.admit(Job(PLAN, i)) for i in range(2)], 0
    while batch.live:
        given = batch.inputs()
        assert (given is None) == (network == 0)
        batch.step(outs=() if given is None else PLAIN(*given))
        network += 1
    for i, seat in enumerate(seats):
        assert torch.equal(batch.read([seat])[0], alone(Job(PLAN, i)))


def test_a_batch_without_a_network():
    for executor in (Eager("cpp"), taping()):
        batch = executor.open(None, Capacity.of(PLAIN, [PLAN], 2, device=CPU))
        seat = batch.admit(Job(PLAN, 4))
        batch.step()
        with pytest.raises(
            ValueError, match=r"a call of 1 entries is due and this batch has no network"
        ):
            batch.step()
        for outs, message in (
            ((), "0 outputs were given and 1 entries are called"),
            ((torch.zeros(0, *SHAPE),), "an output has 0 entries and the call 1"),
            ((torch.zeros(1, 2, 5, 7),), "2 channels; a multiple of 3"),
        ):
            with pytest.raises(ValueError, match=message):
                batch.step(outs=outs)
        while batch.live:
            batch.step(outs=PLAIN(*batch.inputs()))
        assert torch.equal(batch.read([seat])[0], alone(Job(PLAN, 4)))
    batch.admit(Job(PLAN, 5))
    with pytest.raises(ValueError, match="1 outputs were given and 0 entries are called"):
        batch.step(outs=[torch.zeros(1, *SHAPE)])


def test_callbacks_of_seats_see_their_rows_and_keep_nobody_from_going_on():
    seen, told = {0: [], 1: []}, []

    def watch(seed):
        return lambda i, x, denoised: seen[seed].append((i, x.clone(), denoised.clone()))

    def fails(i, x, denoised):
        told.append(i)
        raise RuntimeError("no room on the disk")

    batch = open_batch(denoised=True)
    batch.admit(Job(PLAN, 0, on_row=watch(0)))
    bad = batch.admit(Job(PLAN, 2, on_row=fails))
    for _ in range(2):
        with pytest.raises(RuntimeError, match="no room"):
            batch.step()
    batch.release(bad)
    batch.admit(Job(PLAN, 1, on_row=watch(1)))
    finish(batch)
    assert told == [0, 1]
    for seed, rows in seen.items():
        assert [i for i, _, _ in rows] == list(range(6))
        assert torch.equal(rows[-1][1], alone(Job(PLAN, seed)))
        assert torch.equal(rows[-1][1], rows[-1][2])  # the last row leaves the estimate of x0


def test_a_network_that_fails_once_moved_nobody():
    calls = []

    def module(x, label):
        calls.append(len(x))
        if len(calls) == 3:
            raise RuntimeError("busy")
        return elementwise(x, label)

    batch = open_batch(ScoreNetwork(module, VP(), SHAPE), 2)
    seats = [batch.admit(Job(PLAN, i)) for i in range(2)]
    failed = 0
    while batch.live:
        try:
            batch.step()
        except RuntimeError:
            failed += 1
    assert failed == 1
    for i, seat in enumerate(seats):
        assert torch.equal(batch.read([seat])[0], alone(Job(PLAN, i)))


def test_noise_that_cannot_be_had_is_one_seats_own():
    def broken(row, m):
        return torch.zeros(SHAPE) if row < 2 else torch.zeros(1)

    batch = open_batch(given=True)
    stays, bad = batch.admit(Job(PLAN, 0)), batch.admit(Job(PLAN, 1, noise=broken))
    batch.step(), batch.step()
    with pytest.raises(
        ValueError, match=r"noise of row 2, draw 0 is \[1\]; give a tensor \[3, 5, 7\]"
    ):
        batch.step()
    assert batch.row(stays) == 2
    batch.release(bad)
    finish(batch)
    assert torch.equal(batch.read([stays])[0], alone(Job(PLAN, 0)))


def test_a_step_may_run_under_any_mode():
    job = Job(PLAN, 6)
    for mode in (torch.enable_grad, torch.inference_mode, torch.no_grad):
        with mode():
            batch = open_batch()
            seat = batch.admit(job)
            finish(batch)
            made = batch.read([seat])[0]
        assert torch.equal(made, alone(job)) and not made.requires_grad


def test_capacity_of_many_jobs():
    jobs = jobs_of([Sampler(CONDITIONAL, "ddim", 3), Sampler(CONDITIONAL, "unipc", 4)], [0, 1, 1])
    room = capacity(CONDITIONAL, jobs)
    assert (room.seats, room.rows, room.slots, room.room) == (3, 9, 5, 3)
    assert room.objection(jobs[0]) is None
