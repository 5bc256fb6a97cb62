"""Outputs of the network that kernels cannot read where they lie: the samples are the reference's."""

import pytest
import torch
from step_cases import args

from diffusion_engine import Sampler, ScoreNetwork
from diffusion_engine.backends.outputs import Outputs
from diffusion_engine.ops import layout as at
from diffusion_engine.ops.registry import resolve
from diffusion_engine.ops.step import Table
from diffusion_engine.processes import VP

SHAPE = (3, 4, 5)


def cropped(x):
    """As a network that pads its input does."""
    return torch.nn.functional.pad(x, (0, 3, 0, 4))[..., : SHAPE[1], : SHAPE[2]]


def wanting(x):
    with torch.enable_grad():
        return x.clone().requires_grad_()


class Changing:
    """Another layout at every call."""

    def __init__(self):
        self.calls = 0

    def __call__(self, x):
        self.calls += 1
        kinds = (
            lambda y: y,
            lambda y: y.to(memory_format=torch.channels_last),
            cropped,
            lambda y: y,
        )
        return kinds[self.calls % 4](x)


OUTPUTS = {
    "cropped": cropped,
    "cropped channels last": lambda x: cropped(x.to(memory_format=torch.channels_last)),
    "transposed": lambda x: x.transpose(2, 3).contiguous().transpose(2, 3),
    "every second channel": lambda x: x.repeat_interleave(2, 1)[:, ::2],
    "some channels": lambda x: torch.cat([x, x, x], 1)[:, 3:6],
    "two tensors, one cropped": lambda x: (x.clone(), cropped(x)),
    "expanded samples": lambda x: x[:1].clone().expand(x.shape),
    "expanded channels": lambda x: x[:, :1].clone().expand(x.shape),
    "expanded pixels": lambda x: x[..., :1, :1].clone().expand(x.shape),
    "float64": lambda x: x.double() / 3.0,
    "float64 cropped": lambda x: cropped(x.double() / 3.0),
    "negated": lambda x: torch._neg_view(x * 0.5),
    "wanting a derivative": wanting,
    "its input": lambda x: x,
    "a view of its input": lambda x: x[:, :1].expand(x.shape),
    "changing": Changing,
}


def samples(kind, backend, form=torch.contiguous_format, steps=4):
    output = Changing() if kind == "changing" else OUTPUTS[kind]

    def module(x, label):
        out = output(x if kind == "its input" else torch.where(x > 0, x, x * 0.5))
        return out if isinstance(out, tuple) else (out,)

    network = ScoreNetwork(module, VP(), SHAPE, memory_format=form)
    return Sampler(network, "dpmpp_2m", steps, backend=backend).sample(3, seed=1).samples


@pytest.mark.parametrize("form", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("kind", OUTPUTS)
def test_samples_are_those_of_the_reference(kind, form):
    want = samples(kind, "torch", form)
    assert want.isfinite().all()
    for backend in ("auto", "cpp"):
        assert torch.equal(samples(kind, backend, form), want), backend


@pytest.mark.parametrize("kind", ["cropped", "float64", "negated"])
def test_samples_of_triton_too(kind):
    assert torch.equal(samples(kind, "triton", steps=1), samples(kind, "torch", steps=1))


@pytest.mark.parametrize("backend", ["cpp", "triton"])
@pytest.mark.parametrize("which", ["net_in", "label", "slots"])
def test_outputs_that_the_step_overwrites(backend, which):
    """Two samples that swap places: each reads what the other one writes."""

    def swapped(backend):
        coef, index = torch.zeros(1, at.COEF), torch.zeros(1, at.INDEX, dtype=torch.int32)
        coef[0, [at.A, at.D, at.Q, at.SCALE, at.C_IN]] = torch.tensor([0.5, 2.0, 1.0, 1.0, 3.0])
        coef[0, at.LO], coef[0, at.HI] = -torch.inf, torch.inf
        flags = {at.READS: 1, at.WRITES: 1, at.FLAGS: at.DENOISED}
        index[0, list(flags)] = torch.tensor(list(flags.values()), dtype=torch.int32)
        generator = torch.Generator().manual_seed(0)
        given = args(
            slots=torch.randn(1, 2, 3, 4, 4, generator=generator),
            net_in=torch.randn(2, 3, 4, 4, generator=generator),
            label=torch.tensor([5.0, 7.0]),
            table=Table(coef, index, torch.tensor([[11.0, 0.0]], dtype=torch.float64)),
            src=torch.tensor([[1], [0]], dtype=torch.int32),
            dst=torch.tensor([[0], [1]], dtype=torch.int32),
            normals=0,
        )
        image = given.net_in if which == "net_in" else given.slots[0]
        if which == "label":
            image = given.label.view(2, 1, 1, 1).expand(2, 3, 4, 4)
        resolve("step", backend, given)((image,))
        return given.slots, given.net_in, given.label

    for got, want in zip(swapped(backend), swapped("torch"), strict=True):
        assert torch.equal(got, want)


def test_what_kernels_can_read_is_not_copied(monkeypatch):
    def copied(*_):
        raise AssertionError("an output was copied")

    monkeypatch.setattr(Outputs, "copied", copied)
    for module in (lambda x, t: x * 0.5, lambda x, t: torch.cat([x, x], 1)[:, 3:]):
        network = ScoreNetwork(module, VP(), SHAPE)
        Sampler(network, steps=2, backend="cpp").sample(2)


@pytest.mark.parametrize("backend", ["torch", "cpp", "triton"])
def test_another_device_is_refused(backend):
    """Also after a launch with outputs that are like these in all else."""
    given = args(src=torch.zeros(2, 1, dtype=torch.int32), normals=0)
    launch, out = resolve("step", backend, given), torch.zeros(2, 3, 4, 4)
    launch((out,))
    with pytest.raises(ValueError, match="a network output is on meta, slots on cpu"):
        launch((out.to("meta"),))


@pytest.mark.parametrize("dtype", [torch.complex64, torch.int64, torch.bool])
def test_other_numbers_are_refused(dtype):
    network = ScoreNetwork(lambda x, t: x.to(dtype), VP(), SHAPE)
    for backend in ("torch", "cpp"):
        with pytest.raises(TypeError, match=r"network output is .*; it has to be float32"):
            Sampler(network, steps=2, backend=backend).sample(2)
