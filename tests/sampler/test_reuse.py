"""What executors keep from run to run, buffers and graphs: nothing of one run shows in the next."""

from contextlib import contextmanager

import pytest
import tape
import torch
from batches import jobs_of, together
from tape import taping
from torch import nn

from diffusion_engine import Sampler, ScoreNetwork, trace
from diffusion_engine.executors import Eager, GraphError, batch
from diffusion_engine.executors.buffers import Buffers
from diffusion_engine.processes import VP

SHAPE = (3, 5, 7)
launches_are_recorded = tape.launches_are_recorded


KINDS = {"eager": Eager, "graph": taping, "whole run": lambda: taping(whole_run=True)}
kinds = pytest.mark.parametrize("kind", KINDS)


def shifted(x, label, shift=None):
    out = x * 0.7 + 0.1 * x.abs() - 0.05 * label.view(-1, 1, 1, 1)
    return out if shift is None else out + 0.1 * shift.view(-1, 1, 1, 1)


PLAIN = ScoreNetwork(shifted, VP(), SHAPE)


@kinds
def test_a_lost_sample_flags_no_later_one(kind):
    sampler = Sampler(PLAIN, "dpmpp_2m", 4, executor=KINDS[kind]())
    for n, lost in ((3, 1), (9, 8)):  # the buffers of nine have room for ten
        sound = 0.1 * torch.arange(1.0, n + 1)
        given = torch.where(torch.arange(n) == lost, torch.nan, sound)
        first = sampler.sample(condition=sound)
        with pytest.warns(RuntimeWarning, match=rf"seeds \[{lost}\] met"):
            assert sampler.sample(condition=given).finite == [i != lost for i in range(n)]
        again = sampler.sample(condition=sound)
        assert again.finite == [True] * n and torch.equal(again.samples, first.samples)


def asked():
    """Requests of one signature that share buffers, and differ in all else."""
    generator = torch.Generator().manual_seed(0)
    image, known = torch.randn(2, 4, *SHAPE, generator=generator)
    mask = (torch.rand(4, 1, 5, 7, generator=generator) > 0.5).float()
    for solver, steps in (("dpmpp_2m", 5), ("ddim", 3), ("dpmpp_2m", 5), ("unipc", 4)):
        yield solver, steps, {"n": 4, "seed": 3}
        yield solver, steps, {"n": 3, "seed": 9}
        yield solver, steps, {"x": image, "start": 0.4}
        yield solver, steps, {"x": image, "noised": True}
        yield solver, steps, {"n": 4, "mask": mask, "known": known}
        yield solver, steps, {"n": 4, "mask": 1.0 - mask, "known": image}
        yield solver, steps, {"condition": torch.rand(4, generator=generator)}


@kinds
def test_runs_of_many_kinds_one_after_another(kind):
    """Each equals that of a sampler which has run nothing before."""
    shared = KINDS[kind]()
    for solver, steps, how in asked():
        got = Sampler(PLAIN, solver, steps, executor=shared).sample(**how)
        want = Sampler(PLAIN, solver, steps).sample(**how)
        assert torch.equal(got.samples, want.samples), (solver, how.keys())


def test_one_sampler_is_asked_for_everything_in_turn():
    """What it keeps of a plan is that of the very same question."""
    network = ScoreNetwork(shifted, VP(), SHAPE, null=3, classes=3)
    images = torch.linspace(-1.0, 1.0, 2 * 105).reshape(2, *SHAPE)
    mask = (torch.arange(35).view(1, 5, 7) % 3 > 0).float()
    whole = {"x": images, "noised": True}
    asks = [
        {"n": 2}, {"n": 2, "condition": [0, 1]}, {"n": 2, "condition": [0, 1], "guidance": 2.0},
        {"n": 2, "condition": [0, 1], "guidance": [2.0, 3.0]}, {"compose": [([0, 1], 2.0), (2, 1.0)]},
        {"compose": [([0, 1], 1.0), (2, 2.0)]}, {"x": images, "start": 0.4}, {"x": images, "start": 0.6},
        whole, whole | {"start": 0.4}, {"n": 2, "mask": mask, "known": images},
        {"x": images, "start": 0.4, "mask": mask, "known": images}, whole | {"mask": mask, "known": images},
        {"x": images, "encoding": 0}, {"x": images, "encoding": 1}, {"x": images, "encoding": 2},
        {"x": images, "encoding": 0, "start": 0.1}, {"x": images, "encoding": 1, "start": 0.1},
    ]  # fmt: skip
    own, seen = Sampler(network, "ddim", 5), []
    for how in asks:
        got = own.sample(**how).samples
        assert torch.equal(got, Sampler(network, "ddim", 5).sample(**how).samples), how.keys()
        assert not any(torch.equal(got, other) for other in seen), how
        seen.append(got)
    for how, want in zip(reversed(asks), reversed(seen), strict=True):
        assert torch.equal(own.sample(**how).samples, want)


def test_buffers_are_made_once_for_runs_of_a_kind(monkeypatch):
    made = []
    monkeypatch.setattr(
        batch, "Buffers", lambda capacity: (made.append(capacity), Buffers(capacity))[1]
    )
    sampler = Sampler(PLAIN, "ddpm", 4)
    for seed in range(3):
        sampler.sample(2, seed=seed)
    assert len(made) == 1
    sampler.sample(3)
    sampler.sample(3, seed=9)
    sampler.sample(2)
    assert [capacity.seats for capacity in made] == [2, 3]


@kinds
def test_results_have_memory_of_their_own(kind):
    sampler = Sampler(PLAIN, "ddim", 3, executor=KINDS[kind]())
    first = sampler.sample(2)
    kept = first.samples.clone()
    sampler.sample(2, seed=50)
    assert torch.equal(first.samples, kept)
    first.samples.fill_(torch.nan)
    assert torch.equal(sampler.sample(2).samples, kept)


def test_a_terminal_is_no_reason_to_stop_a_whole_run(monkeypatch):
    """A bar that nobody asked for is left out where there is no moment between rows to move it."""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    made = Sampler(PLAIN, "ddim", 3, executor=taping(whole_run=True))
    assert torch.equal(made.sample(2).samples, Sampler(PLAIN, "ddim", 3).sample(2).samples)
    with pytest.raises(GraphError, match="no moment between rows"):
        made.sample(2, progress=True)


@kinds
def test_given_tensors_are_left_as_they_are(kind):
    """Images, masks, normals and conditions are the user's: read, and not written."""
    given = {
        "x": torch.randn(2, *SHAPE),
        "mask": torch.tensor([1.0, 0.0]).view(2, 1, 1, 1).expand(2, *SHAPE).contiguous(),
        "known": torch.randn(2, *SHAPE),
        "condition": torch.rand(2),
    }
    if kind != "whole run":
        given["noise"] = torch.randn(4, 3, 2, *SHAPE)
    before = {name: tensor.clone() for name, tensor in given.items()}
    Sampler(PLAIN, "ddpm", 3, executor=KINDS[kind]()).sample(**given, noised=True)
    assert all(torch.equal(given[name], tensor) for name, tensor in before.items())


class Told(nn.Module):
    """Looks its class up, and adds the size it is told beside."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(4, 3)

    def forward(self, x, label, *, y, size):
        assert (y.dtype, size.dtype) == (torch.int64, torch.float32)
        return 0.5 * x + (self.table(y) + size)[..., None, None]


@kinds
def test_conditions_keep_their_dtypes(kind):
    torch.manual_seed(0)
    null = {"y": torch.tensor(3), "size": torch.zeros(3)}
    network = ScoreNetwork(Told(), VP(), SHAPE, null=null)
    told = {"y": torch.tensor([0, 2]), "size": torch.rand(2, 3)}
    captured, plain = (
        Sampler(network, "ddim", 3, executor=how) for how in (KINDS[kind](), Eager())
    )
    for scale in (1.0, 2.0):
        a, b = (s.sample(condition=told, guidance=scale).samples for s in (captured, plain))
        assert torch.equal(a, b)


def test_plans_of_one_batch_that_ask_for_different_buffers():
    """Slots, outputs, normals, a learned variance: the batch has room for whichever plan needs most."""

    def both(x, label):
        return torch.cat([0.7 * x, torch.sin(x)], dim=1)

    learned = ScoreNetwork(both, VP(), SHAPE, variance="learned_range")
    made = {
        "ddim": ({}, learned), "ddpm": ({"variance": "learned_range"}, learned), "unipc": ({}, learned),
        "heun": ({"s_churn": 2.0}, learned),
    }  # fmt: skip
    samplers = [Sampler(net, name, 4, **options) for name, (options, net) in made.items()]
    for turn in range(len(samplers)):  # whichever comes first
        order = [*range(turn, len(samplers)), *range(turn)]
        got, finite = together(samplers[0].executor, learned, jobs_of(samplers, order))
        assert all(finite)
        for b, i in enumerate(order):
            assert torch.equal(got[b], samplers[i].sample(seeds=[b]).samples[0])


class Heard:
    """A listener that writes down the names of ranges."""

    def __init__(self):
        self.names = []

    @contextmanager
    def __call__(self, name, payload):
        self.names.append(name)
        yield


@pytest.mark.parametrize("kind", ["eager", "graph"])
def test_a_run_that_is_listened_to_has_its_ranges_even_if_it_ran_before(kind):
    sampler = Sampler(PLAIN, "ddpm", 3, executor=KINDS[kind]())
    quiet = sampler.sample(2)
    for _ in range(2):
        heard = Heard()
        with trace.listening("heard", heard):
            made = sampler.sample(2)
        assert torch.equal(made.samples, quiet.samples)
        inner = ["network", "step"] if kind == "eager" else ["replay"]
        first = ["step"] if kind == "eager" else ["replay"]
        assert heard.names == ["row", *first, *["row", *inner] * 3]
    assert torch.equal(sampler.sample(2).samples, quiet.samples)
    assert heard.names[-1] == inner[-1] and len(heard.names) == len(first) + 1 + 3 + 3 * len(inner)


class Shifted(nn.Module):
    """By a buffer, which is no parameter."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.full((3, 1, 1), 0.7))
        self.register_buffer("shift", torch.full((3, 1, 1), 0.1))

    def forward(self, x, label):
        return x * self.weight + self.shift


@pytest.mark.parametrize("name", ["weight", "shift"])
def test_weights_and_buffers_that_were_moved_are_missed(name):
    """By torch's `.data`, as tools do that load or offload weights: the tensors are the same objects."""
    module = Shifted()
    network = ScoreNetwork(module, VP(), SHAPE)
    captured, plain = (Sampler(network, "ddim", 3, executor=how) for how in (taping(), Eager()))
    captured.sample(2)
    tensor = getattr(module, name)
    tensor.data = 2.0 * tensor.data
    with pytest.raises(GraphError, match=r"moved or replaced.*recapture\(\)"):
        captured.sample(2)
    captured.recapture()
    assert torch.equal(captured.sample(2).samples, plain.sample(2).samples)
    tensor.data.mul_(0.5)  # where it is: a replay reads it
    assert torch.equal(captured.sample(2).samples, plain.sample(2).samples)


def drops(early):
    """Random numbers on one side of the middle of time alone."""

    def module(x, label):
        there = label.view(-1, 1, 1, 1) > 0.5
        return torch.where(there == early, nn.functional.dropout(x, 0.5), 0.5 * x)

    return module


@pytest.mark.parametrize("early", [True, False], ids=["early", "late"])
def test_a_graph_that_differs_at_some_times_alone_is_not_trusted(early):
    captured = Sampler(ScoreNetwork(drops(early), VP(), SHAPE), "ddim", 3, executor=taping())
    with pytest.raises(GraphError, match=r"differs from an eager call.*executor='eager'"):
        captured.sample(2)


@pytest.mark.parametrize("whole_run", [False, True])
def test_a_branch_that_was_taken_unseen_is_found_on_other_inputs(whole_run):
    """On values that Python reads past torch: the inputs of the capture alone would not show it."""

    def module(x, label):
        return x * (0.5 if x.numpy()[0, 0, 0, 0] > 0.0 else 0.7)

    captured = Sampler(
        ScoreNetwork(module, VP(), SHAPE), "ddim", 1, executor=taping(whole_run=whole_run)
    )
    with pytest.raises(GraphError, match=r"differs from an eager call.*branches on values"):
        captured.sample(1, x=torch.full((1, *SHAPE), 0.3), noised=True)
