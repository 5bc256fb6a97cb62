"""The graph executor against the eager one, with a stand-in for CUDA graphs; and the loop they share."""

import gc
import threading
import weakref
from dataclasses import replace

import pytest
import tape
import torch
from analytic import suited
from dispatched import Operations
from tape import TapeRecorder, taping
from torch import nn

from diffusion_engine import Sampler, ScoreNetwork, linearized, with_classifier
from diffusion_engine.adapters.diffusers import Model
from diffusion_engine.executors import Graph, GraphError, executor, graph
from diffusion_engine.executors.base import walk
from diffusion_engine.executors.capture import Unrecordable
from diffusion_engine.executors.eager import Eager, caller
from diffusion_engine.executors.lru import Lru
from diffusion_engine.executors.packing import bucket
from diffusion_engine.executors.run import Run
from diffusion_engine.executors.space import Space
from diffusion_engine.executors.waits import refuse_waits
from diffusion_engine.genie import exact_derivative
from diffusion_engine.networks.contents import within
from diffusion_engine.processes import VP, Discrete
from diffusion_engine.testing import cld_mixture, labelled_mixture

SHAPE = (3, 5, 7)
launches_are_recorded = tape.launches_are_recorded


def elementwise(x, label):
    """A network made of elementwise ops: every sample's bits are independent of its batch."""
    return x * 0.7 + 0.1 * x.abs() - 0.05 * label.view(-1, *[1] * (x.ndim - 1))


def classes(x, label, y):
    return elementwise(x, label) + 0.01 * y.to(x.dtype).view(-1, 1, 1, 1)


def of_context(x, label, *, context, bias):
    context, bias = context.mean(dim=(1, 2)).view(-1, 1, 1, 1), bias.view(-1, 1, 1, 1)
    return elementwise(x, label) + context + bias


PLAIN = ScoreNetwork(elementwise, VP(), SHAPE)
CONDITIONAL = ScoreNetwork(classes, VP(), SHAPE, null=10, classes=10)


def pair(network=PLAIN, solver="dpmpp_2m", steps=4, **options):
    """The same sampler under both executors."""
    return (
        Sampler(network, solver, steps, **options),
        Sampler(network, solver, steps, executor=taping(), **options),
    )


def same(a, b):
    return torch.equal(a.samples, b.samples) and a.evaluations == b.evaluations


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
    y = torch.tensor([1, 2, 3, 4, 5])
    run = Run(
        network=CONDITIONAL,
        plans=[s.plan() for s in samplers],
        plan_of=[0, 1, 2, 3, 1],
        seeds=torch.arange(5),
        device=torch.device("cpu"),
        conditions=[y, torch.full_like(y, 10)],
    )
    recorder = TapeRecorder()
    made, finite = Graph(recorder=recorder).execute(run)
    assert all(finite)
    counts = {call.count for call in run.calls[1:] if call.count}
    assert recorder.recorded == len({bucket(c) for c in counts}) < len(counts) + 1
    for i, p in enumerate(run.plan_of):
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


class Convolution(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x, label):
        return self.conv(x)


def test_weights_change_in_place_without_a_capture():
    network = ScoreNetwork(Convolution().eval(), VP(), SHAPE)
    eager, captured = pair(network)
    captured.sample(2)
    recorded = captured.executor._recorder.recorded
    with pytest.raises(ValueError, match=r"'conv\.bias'.*do not fit|do not fit.*'conv\.bias'"):
        captured.update_weights({"conv.weight": torch.zeros(3, 3, 3, 3)})
    captured.update_weights(Convolution().state_dict())
    assert same(eager.sample(2), captured.sample(2))
    assert captured.executor._recorder.recorded == recorded


@pytest.mark.parametrize("whole_run", [False, True])
def test_a_changed_module_is_captured_again(whole_run):
    module = Convolution().eval()
    eager, captured = pair(ScoreNetwork(module, VP(), SHAPE))
    captured.executor.whole_run = whole_run
    recorder = captured.executor._recorder
    first = captured.sample(2).samples
    hook = module.conv.register_forward_hook(lambda conv, args, out: 0.5 * out)
    assert same(eager.sample(2), captured.sample(2))
    assert not torch.equal(first, captured.sample(2).samples)
    hook.remove()
    assert same(eager.sample(2), captured.sample(2))
    recorded = recorder.recorded
    module.conv.scale = float("0.5")
    captured.sample(2)
    assert recorder.recorded > recorded
    recorded = recorder.recorded
    module.conv.scale = float("0.5")
    captured.sample(2)
    assert recorder.recorded == recorded
    for scale in (1, 1.0, True):  # of other types, with which the module may compute something else
        module.conv.scale = scale
        captured.sample(2)
        assert recorder.recorded > recorded
        recorded = recorder.recorded


def test_outdated_graphs_are_freed_before_there_are_others(monkeypatch):
    module = Convolution().eval()
    _, captured = pair(ScoreNetwork(module, VP(), SHAPE))
    captured.sample(2)
    kept, make, alive = captured.executor._kept, graph.Captures, []
    (old,) = [weakref.ref(kept.get(key)) for key in kept]

    def watched(*given):
        gc.collect()
        alive.append(old() is not None)
        return make(*given)

    monkeypatch.setattr(graph, "Captures", watched)
    module.conv.scale = 2.0
    captured.sample(2)
    assert alive == [False]


def test_moved_weights_are_refused_until_recaptured():
    network = ScoreNetwork(Convolution().eval(), VP(), SHAPE)
    eager, captured = pair(network)
    captured.sample(2)
    network.module.conv.weight = nn.Parameter(torch.randn(3, 3, 3, 3))
    for _ in range(2):
        with pytest.raises(GraphError, match=r"moved or replaced.*recapture\(\).*update_weights"):
            captured.sample(2)
    captured.recapture()
    assert same(eager.sample(2), captured.sample(2))


def reads_back(x, label):
    return x * float(x.mean())


def branches_on_data(x, label):
    return x * 0.5 if bool((x.mean() > 0).any()) else x


def keeps_a_count(x, label):
    keeps_a_count.calls += 1  # Python does not run again
    return x * (1.0 + keeps_a_count.calls)


keeps_a_count.calls = 0
outside = []


def computes_on_the_host(x, label):
    outside.append(torch.from_numpy(0.5 * x.numpy()))  # no operation that is recorded
    return x + outside[-1]


@pytest.mark.parametrize(
    "module, reason",
    [
        (reads_back, "cannot be captured.*wait for the device"),
        (branches_on_data, "cannot be captured.*branch on values"),
        (keeps_a_count, "differs from an eager call.*keeps state"),
        (computes_on_the_host, "differs from an eager call"),
        (lambda x, label: nn.functional.dropout(x, 0.5), "differs from an eager call.*dropout"),
    ],
)
def test_networks_that_cannot_be_captured(module, reason):
    captured = Sampler(ScoreNetwork(module, VP(), SHAPE), steps=3, executor=taping())
    for _ in range(2):  # not the second time either
        with pytest.raises(GraphError, match=f"(?s){reason}.*executor='eager'"):
            captured.sample(2)


def test_a_graph_needs_a_gpu():
    with pytest.raises(GraphError, match=r"on cpu; use executor='eager'"):
        Sampler(PLAIN, executor="graph")
    with pytest.raises(ValueError, match="choose eager or graph"):
        Sampler(PLAIN, executor="fast")
    assert executor("eager", "cpp") == Eager("cpp")


def test_whole_run_has_no_moment_between_rows():
    made = Sampler(PLAIN, steps=3, executor=taping(whole_run=True))
    with pytest.raises(GraphError, match="no moment between rows"):
        made.sample(2, on_step=print)
    assert same(Sampler(PLAIN, steps=3).sample(2), made.sample(2))


def of_budget(budget, bytes=1000):
    return Graph(recorder=TapeRecorder(bytes), budget=budget)


@pytest.mark.parametrize(
    "network, request_",
    [
        (PLAIN, {"noise": "brownian", "mask": torch.ones(SHAPE), "known": torch.zeros(SHAPE)}),
        (CONDITIONAL, {"condition": [1, 2], "guidance": 2.0, "on_step": print}),
        (ScoreNetwork(lambda x, label, z: x * z.mean(), VP(), SHAPE, latent=6), {}),
    ],
)
def test_a_budget_counts_every_buffer(network, request_, capsys):
    used = Eager()
    Sampler(network, "dpmpp_sde", 3, executor=used).sample(2, **request_)
    ((_, signature, _),) = used._idle
    space = Space(signature, static=True)
    assert (space.args.denoised is None) == ("on_step" not in request_)  # kept for a callback alone
    values = (v for d in within(space) for v in (d.values() if isinstance(d, dict) else d))
    storages = [v.untyped_storage() for v in values if isinstance(v, torch.Tensor)]
    assert space.bytes == sum({s.data_ptr(): s.nbytes() for s in storages}.values())


def test_the_least_recently_used_graphs_go_first():
    one = Space(_run(2).signature.padded(), static=True).bytes + 5000
    shared = of_budget(2 * one + one // 2, bytes=1000)
    made = Sampler(PLAIN, "ddim", 3, executor=shared)
    for n in (2, 3, 2, 1):  # 3 was used before 2
        made.sample(n)
    kept = [key[1].samples for key in shared._kept]
    assert kept == [2, 1]
    assert shared._kept.bytes <= shared._kept.budget


def _run(n, sampler=None):
    plan = (sampler or Sampler(PLAIN, "ddim", 3)).plan()
    return Run(PLAIN, [plan], [0] * n, torch.arange(n), torch.device("cpu"))


def test_a_bucket_larger_than_the_budget():
    need = Space(_run(4).signature.padded(), static=True).bytes
    made = Sampler(PLAIN, "ddim", 3, executor=of_budget(need + 2000))
    with pytest.raises(GraphError, match=r"buffers of 32 samples.*lower batch_size"):
        made.sample(32)
    assert same(Sampler(PLAIN, "ddim", 3).sample(4), made.sample(4))
    made = Sampler(PLAIN, "ddim", 3, executor=of_budget(need + 2000, bytes=5000))
    with pytest.raises(GraphError, match=r"graphs of 4 samples.*give Graph\(budget="):
        made.sample(4)


def test_out_of_memory_drops_other_graphs_and_tries_once_more():
    full = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
    recorder = TapeRecorder()
    shared = Graph(recorder=recorder)
    made = Sampler(PLAIN, "ddim", 3, executor=shared)
    made.sample(1)
    for n, where in ((4, "record"), (5, "warm_up")):
        recorder.failures[where] = [full]
        assert same(Sampler(PLAIN, "ddim", 3).sample(n), made.sample(n))
        assert [key[1].samples for key in shared._kept] == [n]
    recorder.failures["record"] = [full, full]
    with pytest.raises(GraphError, match=r"ran out of memory while 2 samples.*lower batch_size"):
        made.sample(2)
    assert same(Sampler(PLAIN, "ddim", 3).sample(2), made.sample(2))


def test_out_of_memory_in_the_comparison():
    calls = []

    def module(x, label):
        calls.append(len(x))
        if len(calls) == 3:  # after a warm-up and the capture: the eager step to compare with
            raise torch.OutOfMemoryError("CUDA out of memory")
        return elementwise(x, label)

    made = Sampler(ScoreNetwork(module, VP(), SHAPE), "ddim", 3, executor=taping())
    assert same(Sampler(PLAIN, "ddim", 3).sample(2), made.sample(2))


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
    run = _run(2, Sampler(PLAIN, "dpmpp_2m_sde", 8))
    run = replace(run, network=ScoreNetwork(lambda x, label: ready, VP(), SHAPE))
    space = Space(run.signature)
    space.load(run)
    advance = caller(run.network, space, "cpp")
    with Operations() as seen:
        walk(run, space, advance)
    assert run.length == 9
    assert seen.names.count("copy_") <= 3  # src at the first call, dst there and at the end
    assert set(seen.names) <= {"copy_", "select", "slice", "detach"}  # the others are views


def test_lru():
    kept = Lru(100)
    assert kept.put("a", 1, 40) and kept.put("b", 2, 40)
    assert kept.get("a") == 1
    assert kept.put("c", 3, 40)
    assert list(kept) == ["a", "c"] and kept.get("b") is None
    assert kept.put("a", 1, 90)  # grown
    assert list(kept) == ["a"]
    assert not kept.put("d", 4, 101)  # the others stay
    assert list(kept) == ["a"] and kept.bytes == 90
    assert kept.put("a", 1, 100)
    assert not kept.put("a", 1, 101)
    assert len(kept) == 0 and kept.take("a") is None


def test_buckets_pad_by_a_fifth_at_most():
    for n in range(1, 3000):
        size = bucket(n)
        assert n <= size <= max(n, 1.25 * n) and bucket(size) == size
    assert [bucket(n) for n in (1, 8, 9, 17, 33, 64, 65)] == [1, 8, 10, 20, 40, 64, 80]


def test_runs_of_about_as_many_rows_share_their_buffers():
    signature = _run(2).signature
    padded = [replace(signature, rows=n).padded().rows for n in (2, 256, 257, 512, 513)]
    assert padded == [256, 256, 512, 512, 1024]


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


@pytest.mark.parametrize("kind", [lambda: Eager(), taping])
def test_inference_mode_leaves_buffers_usable(kind):
    made = Sampler(PLAIN, steps=3, executor=kind())
    with torch.inference_mode():
        inside = made.sample(2, x=torch.randn(2, *SHAPE), start=0.5)
    assert inside.samples.shape == (2, *SHAPE) and not inside.samples.is_inference()
    assert same(Sampler(PLAIN, steps=3).sample(2), made.sample(2))


@pytest.mark.parametrize("kind", [lambda: Eager(), taping, lambda: taping(whole_run=True)])
def test_more_packings_than_are_kept(kind, monkeypatch):
    """Tables of former runs go, and with them the graphs that read them."""
    monkeypatch.setattr("diffusion_engine.executors.space.PACKINGS", 3)
    made = Sampler(CONDITIONAL, "ddim", 3, executor=kind())
    eager = Sampler(CONDITIONAL, "ddim", 3)
    scales = [[1.0, 2.0], [2.0, 1.0], [1.0, 1.0], [2.0, 2.0], [1.0, 2.0], [2.0, 1.0]]
    for scale in scales + scales:
        how = {"condition": [1, 2], "guidance": scale}
        assert same(eager.sample(2, **how), made.sample(2, **how))


def test_autocast_and_float64_are_refused():
    made = Sampler(PLAIN, steps=3, executor=taping())
    with torch.autocast("cpu"), pytest.raises(GraphError, match=r"autocast is on.*dtype="):
        made.sample(2)
    with pytest.raises(GraphError, match="float64, reads values back"):
        Sampler(PLAIN, steps=3, executor=taping(), dtype=torch.float64).sample(2)
    assert same(Sampler(PLAIN, steps=3).sample(2), made.sample(2))


def test_training_mode_after_the_capture():
    network = ScoreNetwork(Convolution().eval(), VP(), SHAPE)
    captured = Sampler(network, steps=3, executor=taping())
    first = captured.sample(2)
    network.module.train()
    assert same(first, captured.sample(2))  # it runs in eval mode all the same
    network.module.training = False
    with pytest.raises(GraphError, match="training mode changed"):
        captured.sample(2)


class Returning(Convolution):
    """Called as diffusers' networks are."""

    def forward(self, x, label, return_dict=True):
        return (self.conv(x),)


def test_training_mode_of_a_module_within_another():
    module = Model(Returning(), "class_labels", {}).eval()
    captured = Sampler(ScoreNetwork(module, VP(), SHAPE), steps=3, executor=taping())
    first = captured.sample(2)
    module.train()
    assert same(first, captured.sample(2))
    assert module.training and module.module.training


def test_a_callback_that_samples():
    shared = taping()
    made = Sampler(PLAIN, steps=3, executor=shared)
    with pytest.raises(GraphError, match="an executor of its own"):
        made.sample(2, on_step=lambda step: made.sample(1))
    other = Sampler(PLAIN, steps=3)
    seen = []
    again = made.sample(2, on_step=lambda step: seen.append(other.sample(1)))
    assert len(seen) == 3 and same(Sampler(PLAIN, steps=3).sample(2), again)


def test_whole_runs_of_one_signature_make_room_for_each_other():
    need = Space(_run(4).signature.padded(), static=True).bytes
    shared = Graph(recorder=TapeRecorder(6000), budget=need + 17000, whole_run=True)
    for steps in (3, 4, 5, 6, 7, 3):
        made = Sampler(PLAIN, "ddim", steps, executor=shared).sample(4)
        assert same(Sampler(PLAIN, "ddim", steps).sample(4), made)
        assert shared._kept.bytes <= shared._kept.budget


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
    with pytest.raises(ValueError, match=r"give it to the executor: Eager\('cpp'\)"):
        Sampler(PLAIN, executor=Eager(), backend="cpp")


def test_compiled_networks(monkeypatch):
    """The same samples, flags of torch as they were, and a sentence at the limit of batch sizes."""
    from torch._dynamo import config

    before = config.recompile_limit, config.fail_on_recompile_limit_hit
    real, given = torch.compile, []
    torch.compiler.reset()

    def by_eager(module, dynamic, options):
        given.append((dynamic, options))
        return real(module, dynamic=dynamic, backend="eager")

    monkeypatch.setattr(torch, "compile", by_eager)
    monkeypatch.setattr("diffusion_engine.networks.compiled.KINDS", 3)
    network = ScoreNetwork(Convolution().eval(), VP(), SHAPE)
    made = Sampler(network, steps=3, compile=True)
    assert given == [(False, None)]
    for n in (1, 2, 2, 3):
        assert same(Sampler(network, steps=3).sample(n), made.sample(n))
    with pytest.raises(ValueError, match=r"kernels for 3 kinds of calls.*compile=False"):
        made.sample(5)
    assert same(Sampler(network, steps=3).sample(2), made.sample(2))
    assert (config.recompile_limit, config.fail_on_recompile_limit_hit) == before
    made.update_weights(Convolution().state_dict())  # its names are the module's own
    assert same(Sampler(network, steps=3).sample(2), made.sample(2))
    assert Sampler(made.network, steps=3, compile=True).network is made.network


@pytest.mark.parametrize("backend", ["cpp", "torch"])
def test_a_network_may_run_in_inference_mode(backend):
    seen = []

    class Module(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.full((1, 2, 1), 0.3))

        def forward(self, x, t):
            seen.append(torch.is_inference_mode_enabled())
            return self.weight * x

    made, shown = [], []
    for inference in (False, True):
        network = ScoreNetwork(Module(), VP(), (2, 3), inference=inference)
        sampler = Sampler(network, "dpmpp_2m", 4, backend=backend)
        result = sampler.sample(3, on_step=lambda p: shown.append(p.denoised.is_inference()))
        assert seen == [inference] * 4 and not any(shown)
        assert not result.samples.is_inference()
        result.samples.requires_grad_().sum().backward()
        made.append(result.samples.detach())
        seen.clear()
    assert torch.equal(*made)


def test_what_differentiates_stays_out_of_inference_mode():
    plain = labelled_mixture(shape=(2,), inference=True)
    assert not exact_derivative(plain).inference
    guided = with_classifier(plain, plain.module.classifier)
    assert not guided.inference
    assert Sampler(guided, "ddim", 3).sample(2, condition=[0, 1]).finite == [True, True]
    assert not linearized(cld_mixture(shape=(2,), inference=True)).inference
