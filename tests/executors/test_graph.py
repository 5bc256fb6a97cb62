"""The graph executor against the eager one, with a stand-in for CUDA graphs."""

import threading

import pytest
import tape
import torch
from analytic import suited
from batches import capacity, jobs_of, together
from dispatched import Operations
from executor_cases import CONDITIONAL, PLAIN, SHAPE, classes, elementwise, of_context, pair, same
from tape import TapeRecorder, taping

from diffusion_engine import Sampler, ScoreNetwork
from diffusion_engine.executors import Eager, Graph, GraphError
from diffusion_engine.executors.capture import Unrecordable
from diffusion_engine.executors.packing import bucket
from diffusion_engine.executors.waits import refuse_waits
from diffusion_engine.processes import VP, Discrete
from diffusion_engine.sampler.named import executor

launches_are_recorded = tape.launches_are_recorded


@pytest.mark.parametrize("whole_run", [False, True])
@pytest.mark.parametrize("solver", suited(VP()))
def test_a_graph_makes_the_same_samples(solver, whole_run):
    eager = Sampler(PLAIN, solver, 4)
    captured = Sampler(PLAIN, solver, 4, executor=taping(whole_run=whole_run))
    for seed in (3, 9):  # the second from the graph that the first made
        assert same(eager.sample(5, seed=seed), captured.sample(5, seed=seed))


def test_one_graph_serves_solvers_steps_and_seeds():
    recorder = TapeRecorder()
    shared = Graph(recorder=recorder)
    for solver in ("ddim", "euler", "lms"):
        for steps in (5, 9):
            network, options = PLAIN, {"max_order": 1} if solver == "lms" else {}
            own = Sampler(network, solver, steps, executor=shared, **options).sample(3, seed=steps)
            assert same(Sampler(network, solver, steps, **options).sample(3, seed=steps), own)
    assert recorder.recorded == 1


def test_solvers_steps_and_guidance_share_a_batch_and_its_graphs():
    """A batch of different plans, as the server makes them: each sample equals itself alone."""
    samplers = [
        Sampler(CONDITIONAL, "ddim", 3),
        Sampler(CONDITIONAL, "unipc", 6, guidance=3.0),
        Sampler(CONDITIONAL, "ddpm", 4),
        Sampler(CONDITIONAL, "dpmpp_2m", 5, guidance=2.0, interval=(0.1, 10.0)),
    ]
    which, null = [0, 1, 2, 3, 1], torch.tensor(10)
    jobs = jobs_of(samplers, which, conditions=[(torch.tensor(i + 1), null) for i in range(5)])
    recorder, executor = TapeRecorder(), Eager()
    made, finite = together(Graph(recorder=recorder), CONDITIONAL, jobs)
    assert all(finite)
    with executor.batch(CONDITIONAL, capacity(CONDITIONAL, jobs)) as batch:
        _ = [batch.admit(job) for job in jobs]
        counts = {call.count for call in batch.coming() if call.count}
    assert recorder.recorded == len({bucket(c) for c in counts}) < len(counts) + 1
    for i, p in enumerate(which):
        alone = samplers[p].sample(seeds=[i], condition=[i + 1])
        assert torch.equal(made[i], alone.samples[0])


def test_buckets_are_captured_largest_first_and_once():
    sizes = []

    def module(x, label, y):
        sizes.append(len(x))
        return classes(x, label, y)

    network = ScoreNetwork(module, VP(), SHAPE, null=10, classes=10)
    _, captured = pair(network, guidance=2.0, interval=(0.1, 10.0))
    captured.sample(9, condition=3)
    assert list(dict.fromkeys(sizes)) == [20, 10]  # of 18 and 9 entries
    calls = len(sizes)
    captured.sample(10, condition=4)  # the same buckets: nothing is called
    assert len(sizes) == calls


def test_conditions_reach_their_entries():
    eager, captured = pair(CONDITIONAL, guidance=2.0, interval=(0.1, 10.0))
    for condition in ([1, 2, 3], [7, 5, 9]):
        assert same(eager.sample(condition=condition), captured.sample(condition=condition))
    null = {"context": torch.zeros(2, 4), "bias": torch.zeros(())}
    eager, captured = pair(ScoreNetwork(of_context, VP(), SHAPE, null=null), guidance=2.0)
    for _ in range(2):
        condition = {"context": torch.randn(3, 2, 4), "bias": torch.randn(3)}
        assert same(eager.sample(condition=condition), captured.sample(condition=condition))


def test_padded_entries_are_harmless():
    def module(x, label):
        return elementwise(x, label) / (x != 0).any(dim=3, keepdim=True)  # NaN where x is zero

    eager, captured = pair(ScoreNetwork(module, VP(), SHAPE), "ddpm")
    made = captured.sample(9)  # of a bucket of 10
    assert same(eager.sample(9), made)
    assert made.finite == [True] * 9


def test_inpainting_images_and_given_noise():
    eager, captured = pair(solver="ddpm")
    known, mask = torch.randn(1, *SHAPE), torch.zeros(1, 1, 5, 7)
    mask[..., :3] = 1.0
    image = torch.randn(3, *SHAPE)
    noise = torch.randn(len(eager.plan().rows), 1, 3, *SHAPE)
    for how in ({"mask": mask, "known": known}, {"x": image, "start": 0.3}, {"noise": noise}):
        assert same(eager.sample(3, **how), captured.sample(3, **how))


def test_callbacks_every_so_many_steps():
    seen = {}
    for made in pair(PLAIN, "heun", 5):
        name = type(made.executor).__name__
        steps = seen[name] = []
        made.sample(
            3,
            every=2,
            on_step=lambda s, steps=steps: steps.append((s.t, s.x.clone(), s.denoised.clone())),
        )
    assert [t for t, _, _ in seen["Eager"]] == [t for t, _, _ in seen["Graph"]]
    assert len(seen["Graph"]) == 3  # steps 2, 4 and the last
    for a, b in zip(seen["Eager"], seen["Graph"], strict=True):
        assert torch.equal(a[1], b[1]) and torch.equal(a[2], b[2])
        assert len(a[1]) == 3
    with pytest.raises(ValueError, match="every=0"):
        made.sample(every=0, on_step=print)


def test_a_graph_needs_a_gpu():
    with pytest.raises(GraphError, match=r"on cpu; use executor='eager'"):
        Sampler(PLAIN, executor="graph")
    with pytest.raises(ValueError, match="choose eager, graph, native"):
        Sampler(PLAIN, executor="fast")
    assert executor("eager", "cpp") == Eager("cpp")


def test_whole_run_has_no_moment_between_rows():
    made = Sampler(PLAIN, steps=3, executor=taping(whole_run=True))
    with pytest.raises(GraphError, match="no moment between rows"):
        made.sample(2, on_step=print)
    assert same(Sampler(PLAIN, steps=3).sample(2), made.sample(2))


def test_threads_take_turns():
    eager, captured = pair(solver="dpmpp_2m_sde")
    made = [None] * 4

    def work(i):
        made[i] = captured.sample(4, seed=i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(same(eager.sample(4, seed=i), result) for i, result in enumerate(made))


def test_samplers_share_an_executor():
    shared = taping()
    other = ScoreNetwork(lambda x, label: 0.5 * x, VP(), SHAPE)
    for network in (PLAIN, other, PLAIN):
        made = Sampler(network, steps=3, executor=shared).sample(2)
        assert same(Sampler(network, steps=3).sample(2), made)


def test_the_loop_allocates_nothing():
    """Outside the network, torch does nothing but copy tables where the packing changes."""
    ready = torch.zeros(2, *SHAPE)
    network = ScoreNetwork(lambda x, label: ready, VP(), SHAPE)
    jobs = jobs_of([Sampler(PLAIN, "dpmpp_2m_sde", 8)], [0, 0])
    executor = Eager("cpp")
    with executor.batch(network, capacity(network, jobs)) as batch:
        _ = [batch.admit(job) for job in jobs]
        _ = batch.step(), batch.step()  # what is bound at the first call is bound
        with Operations() as seen:
            executor.finish(batch)
    assert seen.names.count("copy_") <= 2  # dst at the end, and what joined
    assert set(seen.names) <= {"copy_", "select", "slice", "detach"}  # the others are views


@pytest.mark.parametrize("whole_run", [False, True])
def test_more_samples_than_a_batch_and_channels_last(whole_run):
    network = ScoreNetwork(elementwise, VP(), SHAPE, memory_format=torch.channels_last)
    eager = Sampler(network, "dpmpp_2m_sde", 4, batch_size=3)
    captured = Sampler(
        network, "dpmpp_2m_sde", 4, batch_size=3, executor=taping(whole_run=whole_run)
    )
    made = captured.sample(7)
    assert same(eager.sample(7), made)
    assert made.samples.is_contiguous(memory_format=torch.channels_last)


def test_integer_labels():
    def module(x, label):
        assert label.dtype == torch.int64
        return elementwise(x, label)

    network = ScoreNetwork(module, Discrete.linear(), SHAPE, label_dtype=torch.int64)
    eager, captured = pair(network)
    assert same(eager.sample(3), captured.sample(3))


def test_autocast_and_float64_are_refused():
    made = Sampler(PLAIN, steps=3, executor=taping())
    with torch.autocast("cpu"), pytest.raises(GraphError, match=r"autocast is on.*dtype="):
        made.sample(2)
    with pytest.raises(GraphError, match="float64, reads values back"):
        Sampler(PLAIN, steps=3, executor=taping(), dtype=torch.float64).sample(2)
    assert same(Sampler(PLAIN, steps=3).sample(2), made.sample(2))


def test_a_callback_that_samples():
    shared = taping()
    made = Sampler(PLAIN, steps=3, executor=shared)
    with pytest.raises(GraphError, match="an executor of its own"):
        made.sample(2, on_step=lambda step: made.sample(1))
    other = Sampler(PLAIN, steps=3)
    seen = []
    again = made.sample(2, on_step=lambda step: seen.append(other.sample(1)))
    assert len(seen) == 3 and same(Sampler(PLAIN, steps=3).sample(2), again)


def test_a_recording_holds_nothing_alive():
    """The stand-in shows a replay that reads memory which was freed."""
    kept = {"bias": torch.ones(1)}
    recorder = TapeRecorder()
    x = torch.zeros(3)
    recording = recorder.record(lambda: x.add_(kept["bias"] * 2.0))
    recording.replay()
    assert x.tolist() == [4.0] * 3
    kept.clear()
    with pytest.raises(AssertionError, match="memory that was freed"):
        recording.replay()


@pytest.mark.parametrize(
    "work",
    [
        lambda x: x[x > 0], lambda x: x.nonzero(), lambda x: x.sum().item(), lambda x: torch.unique(x),
        lambda x: x.masked_select(x > 0), lambda x: x.index_put_((x > 0,), torch.zeros(())),
        lambda x: x.to("meta"), lambda x: x[(x > 0).byte()], lambda x: x.long().abs().bincount(),
    ],
)  # fmt: skip
def test_operations_that_wait(work):
    with pytest.raises(Unrecordable, match="waits for the device"):
        refuse_waits(lambda: work(torch.randn(4)))


def test_operations_that_do_not_wait():
    index, x, done = torch.tensor([0, 2]), torch.tensor([-1.0, 7.0, 3.0, 7.0]), []
    refuse_waits(
        lambda: done.append(x[index].clamp(0).masked_fill(index == 0, 2.0).sum().add_(1.0))
    )
    assert done[0] == 6.0


def test_names_of_conditions_have_to_agree():
    null = {"context": torch.zeros(2, 4), "bias": torch.zeros(())}
    network = ScoreNetwork(of_context, VP(), SHAPE, null=null)
    wrong = {"context": torch.randn(3, 2, 4), "basis": torch.randn(3)}
    with pytest.raises(ValueError, match=r"names \['basis', 'context'\].*\['bias', 'context'\]"):
        Sampler(network, steps=3, guidance=2.0).sample(condition=wrong)


def test_backend_of_an_executor_object():
    with pytest.raises(ValueError, match=r"give it to the executor: Eager\(backend='cpp'\)"):
        Sampler(PLAIN, executor=Eager(), backend="cpp")
