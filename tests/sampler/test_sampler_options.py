"""What a sampler does where nothing is said, and that what is said reaches the run."""

import math

import pytest
import torch
from torch import nn

from diffusion_engine import Sampler, ScoreNetwork
from diffusion_engine.executors import Eager
from diffusion_engine.ops.philox import normals
from diffusion_engine.processes import EDM, VE, VP, Discrete, FlowMatching

SHAPE = (2, 3, 4)


def module(x, label, y=None):
    out = x * 0.7 + 0.1 * x.abs() - 0.05 * label.view(-1, 1, 1, 1).to(x.dtype)
    return out if y is None else out + 0.05 * y.to(x.dtype).view(-1, 1, 1, 1)


def network(process=None, **options):
    return ScoreNetwork(module, process or VP(), SHAPE, **options)


def test_what_a_sampler_does_where_nothing_is_said():
    own = Sampler(network(clip=(-3.0, 3.0)))
    said = Sampler(
        network(clip=(-3.0, 3.0)), "dpmpp_2m", 20, grid=None, end="zero", guidance=1.0,
        interval=(0.0, math.inf), classifier_scale=1.0, clip="network", dtype=torch.float32, device="cpu",
        backend="auto", batch_size=64, accelerate=False, executor="eager", compile=False, decoder=None,
    )  # fmt: skip
    assert own.plan() == said.plan() and own.recipe() == said.recipe()
    assert (own.batch_size, own.clip, own.guidance) == (64, (-3.0, 3.0), 1.0)
    assert own.points[-1].sigma == 0.0 and own.plan().nfe == 20
    assert own.executor == Eager("auto") and own.device == torch.device("cpu")
    assert own.sample().seeds == [0] and own.sample(3).seeds == [0, 1, 2]
    assert own.sample(1, seed=5).seeds == [5] and own.sample(2, seed=5).seeds == [5, 6]
    assert torch.equal(own.sample(1, seed=5).samples, own.sample(seeds=[5]).samples)
    sizes = []
    many = ScoreNetwork(lambda x, t: (sizes.append(len(x)), 0.5 * x)[1], VP(), (1,))
    Sampler(many, "ddim", 1).sample(65)
    assert sizes == [64, 1]


LAWS = [VP(), EDM(), VE(), FlowMatching(), Discrete.linear()]


def test_all_bits_of_a_seed_count():
    seeds = [5, 5 + 2**31, 5 + 2**32, 5 + 2**63, 2**64 - 1, 2**63 - 1, 2**32 - 1]
    made = Sampler(network(), "ddim", 2).sample(seeds=seeds)
    assert made.seeds == made.recipe["seeds"] == seeds
    assert len({tuple(sample.flatten().tolist()) for sample in made.samples}) == len(seeds)
    z = normals(torch.tensor([5 - 2**63]), torch.tensor([0]), 0, 24).view(1, *SHAPE)
    given = Sampler(network(), "ddim", 2).sample(x=z, noised=True)
    assert torch.equal(given.samples[0], made.samples[3])


@pytest.mark.parametrize("process", LAWS, ids=lambda p: type(p).__name__)
def test_levels_of_a_run_without_times(process):
    """The process's own grid, to clean data or to its t_min."""
    own = Sampler(ScoreNetwork(module, process, SHAPE, prediction="v"), "ddim", 6)
    assert len(own.points) == 7 and own.points[-1].sigma == 0.0
    ends = Sampler(own.network, "ddim", 6, end="t_min").points
    assert ends[-1].sigma > 0.0 and (isinstance(process, Discrete) or ends[-1].t == process.t_min)


def test_whose_grid_it_is():
    """The user's, the solver's, the network's, the process's: the first of them that says."""
    plain, with_grid = network(), network(grid="karras")

    def times(net, solver, **options):
        return [p.t for p in Sampler(net, solver, 6, end="t_min", **options).points]

    karras, uniform = (times(plain, "ddim", grid=name) for name in ("karras", "uniform"))
    assert times(with_grid, "ddim") == karras != times(plain, "ddim")
    assert times(with_grid, "ddim", grid="uniform") == uniform
    assert times(with_grid, "euler_maruyama") == times(plain, "euler_maruyama") == uniform
    assert times(with_grid, "euler_maruyama", grid="karras") == karras


def test_whose_clip_it_is():
    plain, clipped = network(), network(clip=(-0.5, 0.5))
    assert Sampler(plain).clip is None and Sampler(clipped).clip == (-0.5, 0.5)
    assert Sampler(clipped, clip=None).clip is None and Sampler(plain, clip=(0, 1)).clip == (
        0.0,
        1.0,
    )
    rows = Sampler(clipped, "heun", 4).plan().rows[1:]
    assert all(row.clip == (-0.5, 0.5) for row in rows)


def test_the_scale_of_a_plan_is_the_samplers_first():
    own = Sampler(network(null=0, classes=3), "ddim", 4, guidance=[3.0, 1.0])
    assert own.plan() == own.plan(3.0) and own.plan().evaluations == 8
    assert own.plan(1.0).evaluations == 4
    made = own.sample(2, condition=[1, 2])
    assert made.recipe["guidance"] == [3.0, 1.0] and made.evaluations == 12
    other = own.sample(2, condition=[1, 2], guidance=2.0)
    assert other.recipe["guidance"] == [2.0, 2.0] and other.evaluations == 16


def test_kinds_of_a_plan():
    own = Sampler(network(), "ddpm", 4)
    prior, image, state = (own.plan(start=0.5, kind=kind) for kind in ("prior", "image", "state"))
    at = VP().at(0.5)
    assert prior.rows[0].new[0]["z0"] == 1.0 and not prior.rows[0].new[0]["S0"]
    assert dict(image.rows[0].new[0]) == {"S0": at.alpha, "z0": at.sigma}
    assert dict(state.rows[0].new[0]) == {"S0": 1.0}
    # Each draws normals of its own: an x that was made of the same seed has used the others.
    keys = [{row.key for row in plan.rows} for plan in (prior, image, state)]
    assert not (keys[0] & keys[1] or keys[0] & keys[2] or keys[1] & keys[2])
    assert [row.key & 0xFFFF for row in image.rows] == [row.key for row in prior.rows]
    masked = own.plan(masked=True)
    assert [row.known for row in masked.rows] == [
        (row.state.alpha, row.state.sigma) for row in own.plan().rows
    ]
    assert not any(row.known for row in own.plan().rows)


def test_levels_behind_a_start():
    own = Sampler(network(), "ddim", times=[0.9, 0.5, 0.2])
    for start, times in (
        (0.6, [0.6, 0.5, 0.2]),
        (0.5, [0.5, 0.2]),
        (0.9, [0.9, 0.5, 0.2]),
        (1.0, [1.0, 0.9, 0.5, 0.2]),
    ):
        rows = own.plan(start=start, kind="image").rows
        assert [row.state.t for row in rows] == pytest.approx(times)
    with pytest.raises(ValueError, match=r"start=0.2 lies at or after the last time t=0.2"):
        own.plan(start=0.2, kind="image")


def test_an_image_is_noised_with_normals_of_its_own():
    """A prior sample of a seed, noised again with that seed, meets no normal twice."""
    own, zeros = Sampler(network(), "ddpm", 4), torch.zeros(1, *SHAPE)
    drawn = {}

    def noise_of(**how):
        seen = []
        Sampler(
            ScoreNetwork(lambda x, t: (seen.append(x.clone()), x)[1], VP(), SHAPE), "ddim", 4
        ).sample(1, **how)
        return seen[0]

    drawn["prior"] = noise_of()
    drawn["image"] = noise_of(x=zeros, start=1.0)
    scale = drawn["image"].std() / drawn["prior"].std()
    assert not torch.allclose(drawn["image"], scale * drawn["prior"], rtol=0.1)
    assert own.plan(kind="image").rows[0].key != own.plan().rows[0].key


def test_a_state_in_float64_keeps_its_digits():
    """x of a network that finds nothing, at a lower level: sigma_t / sigma_s of it."""
    nothing = ScoreNetwork(lambda x, t: torch.zeros_like(x), VP(), (1,), prediction="x0")
    x = torch.tensor([[1.0 + 2.0**-40], [1.0 / 3.0]], dtype=torch.float64)
    sampler = Sampler(nothing, "ddim", times=[0.9, 0.4], dtype=torch.float64)
    made = sampler.sample(x=x, noised=True).samples
    scale = sampler.points[1].sigma / sampler.points[0].sigma
    assert torch.allclose(made, scale * x, rtol=1e-15, atol=0)


class Counted(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale, self.seen = nn.Parameter(torch.full((2, 1, 1), 0.5)), []

    def forward(self, x, label):
        self.seen.append((x.dtype, x.stride(), label.dtype, len(x)))
        return self.scale * x


@pytest.mark.parametrize("form", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [None, torch.float64, torch.bfloat16])
def test_what_a_network_is_called_with(form, dtype):
    own = ScoreNetwork(Counted(), VP(), SHAPE, memory_format=form)
    sampler = Sampler(own, "ddim", 2, dtype=dtype, batch_size=3)
    for how in ({"n": 5}, {"x": torch.zeros(5, *SHAPE), "start": 0.5}):
        made = sampler.sample(**how)
        assert made.samples.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        assert made.samples[:1].is_contiguous(memory_format=form)
    strides = torch.empty(2, *SHAPE).to(memory_format=form).stride()
    seen = sampler.network.module.seen
    calls = len(seen) // 4
    assert (
        seen
        == [(dtype or torch.float32, strides, torch.float32, n) for n in [3] * calls + [2] * calls]
        * 2
    )


def test_callbacks_after_so_many_steps():
    """After the steps that were asked for, and the last one, in every batch."""
    rows = []

    def see(step):
        rows.append((step.row, step.rows, len(step.x), len(step.denoised)))

    own = Sampler(network(), "ddim", 5)
    for every, want in ((1, [1, 2, 3, 4, 5]), (2, [2, 4, 5]), (5, [5]), (9, [5])):
        rows.clear()
        own.sample(3, batch_size=2, every=every, on_step=see)
        assert rows == [(row, 6, n, n) for n in (2, 1) for row in want]


def test_a_bar_counts_calls(monkeypatch):
    """Not the first draw."""
    bars = []

    class Bar:
        def __init__(self, total, **_):
            self.total, self.count = total, 0
            bars.append(self)

        def update(self, n):
            self.count += n

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

    monkeypatch.setattr("diffusion_engine.sampler.progress.tqdm", Bar)
    own = Sampler(network(), "heun", 3)
    own.sample(3, batch_size=2, progress=True)
    assert [(made.total, made.count) for made in bars] == [(own.plan().nfe,) * 2] * 2
    own.sample(3, progress=False)
    assert len(bars) == 2
