"""`profile`: its parts add up, and operators and kernels are in the right class."""

import json
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.autograd import DeviceType

from diffusion_engine import Sampler, ScoreNetwork, profile, trace
from diffusion_engine.executors import Eager, Graph
from diffusion_engine.ops import functional
from diffusion_engine.processes import VP
from diffusion_engine.profiling import measure
from diffusion_engine.profiling.classes import CLASSES, kernel_class, op_class
from diffusion_engine.profiling.events import device_ops

RECIPE = {"network": "loop", "solver": {"name": "none", "options": {}}}


class Network(nn.Module):
    """One convolution, norm, product, attention, sum and copy a call, two of them fused ops."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 3, padding=1)
        self.linear = nn.Linear(8, 8)

    def forward(self, x):
        x = functional.group_norm(self.conv(x), 4, silu=True)
        tokens = self.linear(x.flatten(2).transpose(1, 2).contiguous())[:, None]
        tokens = functional.attention(tokens, tokens, tokens)[:, 0]
        return x + tokens.transpose(1, 2).unflatten(2, x.shape[2:])


class Loop:
    """What `profile` needs of a sampler, with the ranges an executor makes."""

    device, batch_size = torch.device("cpu"), 2
    executor, accelerated, recording = Eager(), None, None
    network = SimpleNamespace(module=None)

    def __init__(self):
        self.module = Network()

    @torch.no_grad()
    def sample(self, n, condition=None, progress=None):
        state = torch.zeros(n, 8, 16, 16)
        network = trace.traced("network", self.module)
        step = trace.traced("step", state.add_)

        def row(i):
            step(network(state))

        row = trace.traced("row", row, indexed=True)
        for i in range(5):
            row(i)
        return SimpleNamespace(seeds=list(range(n)), recipe=RECIPE)


@pytest.fixture(scope="module")
def found():
    return profile(Loop(), 2, runs=3)


def test_parts_add_up(found):
    top = [part for part in found.parts if part.within is None]
    assert [part.name for part in top] == ["network", "step", "host gaps"]
    assert sum(part.seconds for part in top) == pytest.approx(found.seconds, rel=1e-9)
    classes = [part for part in found.parts if part.within == "network"]
    network = found.part("network").seconds
    assert sum(part.seconds for part in classes) == pytest.approx(network, rel=1e-9)
    assert {part.name for part in classes} <= set(CLASSES)
    between = found.part("between ops").seconds
    assert sum(op.seconds for op in found.ops) == pytest.approx(network - between, rel=1e-9)
    assert all(part.seconds >= 0 for part in found.parts)
    assert found.spread[0] <= found.seconds <= found.spread[1]


def test_rows_and_calls_are_counted(found):
    assert found.rows == 5 and found.samples == 2 and found.runs == 3
    for name in ("network", "step", "convolution", "linear", "normalisation", "attention"):
        assert found.part(name).calls == 5, name
    assert found.part("elementwise").calls == 5  # the sum; silu is in the fused norm
    fused = {op.name: op.kind for op in found.ops if op.name.startswith("diffusion_engine::")}
    assert fused == {
        "diffusion_engine::group_norm": "normalisation",
        "diffusion_engine::attention": "attention",
    }


def test_the_table_and_the_json_say_the_same(found):
    lines = str(found).splitlines()
    assert lines[-1].startswith("total") and lines[-1].endswith("100.0%")
    saved = json.loads(found.to_json())
    assert saved["seconds"] == found.seconds and saved["recipe"] == RECIPE
    assert {"name", "device", "threads"} <= set(saved["machine"])
    assert {"torch", "diffusion-engine"} <= set(saved["versions"])
    assert [op["name"] for op in saved["ops"]] == [op.name for op in found.ops]
    for part, line in zip(saved["parts"], lines[-len(saved["parts"]) - 1 :], strict=False):
        assert line.split("  ")[0 if part["within"] is None else 1] == part["name"]
        assert line.split()[-1] == f"{part['share']:.1%}"
        assert part["us_per_row"] == pytest.approx(part["seconds"] / 5 * 1e6)


def test_nothing_listens_afterwards(found):
    assert trace.active() == ()


def test_a_sampler_is_profiled():
    network = ScoreNetwork(lambda x, label: torch.tanh(x), VP(), (3, 8, 8), name="tanh")
    sampler = Sampler(network, "heun", 3, batch_size=2)
    made = profile(sampler, 3, runs=1)
    assert made.rows == 2 * len(sampler.plan().rows)  # two batches
    assert made.part("network").calls == 2 * sampler.plan().nfe
    assert made.part("elementwise").calls == 2 * sampler.plan().nfe
    assert made.part("step").calls == made.rows
    assert made.recipe["solver"]["name"] == "heun"
    assert made.how == {"executor": "eager", "accelerated": False, "compiled": False}


@pytest.mark.parametrize("runs", [0, -1])
def test_no_runs(runs):
    with pytest.raises(ValueError, match=f"runs={runs}: time at least 1 run"):
        profile(Loop(), 2, runs=runs)


@pytest.mark.parametrize(
    "name, caller, kind",
    [
        ("aten::conv2d", None, "convolution"),
        ("aten::mkldnn_convolution", "convolution", "convolution"),
        ("mkldnn::_convolution_pointwise.binary", None, "convolution"),
        ("aten::addmm", "linear", "linear"),
        ("aten::bmm", "attention", "attention"),
        ("aten::_safe_softmax", None, "attention"),
        ("aten::native_group_norm", None, "normalisation"),
        ("diffusion_engine::group_norm", None, "normalisation"),
        ("diffusion_engine::add_group_norm", None, "normalisation"),
        ("aten::silu_", None, "elementwise"),
        ("aten::add", "normalisation", "normalisation"),
        ("aten::copy_", "convolution", "copies, layout"),
        ("aten::cat", None, "copies, layout"),
        ("aten::view", None, "copies, layout"),
        ("aten::view", "linear", "linear"),
        ("aten::copy_", "step", "step"),
        ("diffusion_engine::brownian", None, "noise"),
        ("diffusion_engine::noise", None, "noise"),
        ("aten::mul", "noise", "noise"),
        ("aten::copy_", "decode", "decode"),
        ("aten::embedding", None, "other"),
        ("## Call CompiledFxGraph fabc ##", None, "compiled loops"),
        ("aten::convolution", "compiled loops", "convolution"),
    ],
)
def test_classes_of_operators(name, caller, kind):
    assert op_class(name, caller) == kind


@pytest.mark.parametrize(
    "name, launcher, kind",
    [
        ("_step", None, "step"),
        ("void step_kernel<2, 1, 0>(StepParams, Grid)", None, "step"),
        ("_brownian", None, "noise"),
        ("void brownian_kernel<1>(BrownianParams, Grid)", None, "noise"),
        ("void noise_kernel<1>(NoiseParams, Grid)", None, "noise"),
        ("_merge_norms", None, "guidance"),
        ("void norms_kernel<1>(NormsParams)", None, "guidance"),
        ("void quantile_kernel<1024>(QuantileParams)", None, "guidance"),
        ("Memcpy DtoD (Device -> Device)", "noise", "noise"),
        ("sm90_xmma_fprop_implicit_gemm_f16f16", None, "convolution"),
        ("void cudnn::engines_precompiled::nchwToNhwcKernel<float>", "convolution", "copies, layout"),
        ("nvjet_hsh_128x64_NNT", None, "linear"),
        ("triton_tem_fused_addmm_2", None, "linear"),
        ("nvjet_hsh_128x64_NNT", "convolution", "convolution"),  # 1x1, as a matrix product
        ("void norm_apply_kernel<4>(GroupNormParams, NormGrid)", None, "normalisation"),
        ("_apply", None, "normalisation"),
        ("void at::native::vectorized_elementwise_kernel<4, silu>", None, "elementwise"),
        ("void at::native::vectorized_elementwise_kernel<4, add>", "step", "step"),
        ("triton_poi_fused_add_convolution_3", None, "elementwise"),
        ("fmha_cutlassF_f16_aligned_64x64_rf_sm80", None, "attention"),
        ("Memcpy HtoD (Pageable -> Device)", None, "copies, layout"),
        ("void at::native::indexSelectSmallIndex", "other", "other"),
    ],
)  # fmt: skip
def test_classes_of_kernels(name, launcher, kind):
    assert kernel_class(name, launcher) == kind


def test_noise_beside_the_step_is_a_part():
    network = ScoreNetwork(lambda x, label: 0.5 * x, VP(), (3, 16, 16))
    own = Sampler(network, "ddpm", 4)
    plain, found = (profile(own, 2, runs=2, noise=how) for how in (None, "brownian"))
    assert [part.name for part in plain.parts if part.within is None] == [
        "network",
        "step",
        "host gaps",
    ]
    top = [part for part in found.parts if part.within is None]
    assert [part.name for part in top] == ["network", "step", "noise", "host gaps"]
    assert sum(part.seconds for part in top) == pytest.approx(found.seconds)
    assert found.part("noise").calls == found.rows and found.recipe["noise"] == "brownian"


def event(name, start, end, device=DeviceType.CUDA, linked=0, annotation=False, **more):
    span = SimpleNamespace(start=start, end=end)
    return SimpleNamespace(
        name=name, time_range=span, device_type=device, is_user_annotation=annotation,
        linked_correlation_id=linked, cpu_parent=None, cpu_children=[], id=0, **more,
    )  # fmt: skip


def gpu_events():
    """A convolution that multiplies matrices, a norm of a replay, a step and a copy."""
    conv = event("aten::conv2d", 0, 5, DeviceType.CPU)
    gemm = event("aten::mm", 1, 4, DeviceType.CPU)
    launch = event("cudaLaunchKernel", 2, 3, DeviceType.CPU, linked=7)
    conv.cpu_children, gemm.cpu_parent, gemm.id = [gemm], conv, 7
    gemm.cpu_children, launch.cpu_parent, launch.id = [launch], gemm, 9
    return [
        conv, gemm, launch,
        event("diffusion_engine::network", 10, 80, annotation=True),
        event("ampere_sgemm_128x64_nn", 10, 40, linked=7),
        event("norm_apply_kernel", 40, 60),
        event("void step_kernel<1>()", 55, 75),
        event("Memcpy HtoD (Pinned -> Device)", 90, 100),
    ]  # fmt: skip


def test_kernels_take_their_operators_class():
    ops, busy = device_ops(gpu_events())
    assert busy == pytest.approx(75e-6)  # two kernels overlap for 5 us
    assert {op.name.split("(")[0].strip(): op.kind for op in ops} == {
        "ampere_sgemm_128x64_nn": "convolution",
        "norm_apply_kernel": "normalisation",
        "void step_kernel<1>": "step",
        "Memcpy HtoD": "copies, layout",
    }


@pytest.mark.parametrize("total", [100e-6, 60e-6])
def test_parts_of_a_gpu_add_up(total):
    """Also where the kernels were slower under the profiler than the whole run without it."""
    parts, _ = measure._device_parts(gpu_events(), total)
    top = {part.name: part.seconds for part in parts if part.within is None}
    assert sum(top.values()) == pytest.approx(total)
    assert top["host gaps"] == pytest.approx(max(0.0, total - 75e-6), abs=1e-12)
    classes = sum(part.seconds for part in parts if part.within)
    assert classes == pytest.approx(top["network"])


def test_a_blind_profiler_is_an_error():
    with pytest.raises(OSError, match="saw no kernel of the GPU"):
        measure._device_parts([], 1.0)


class Replays:
    """An executor's ranges where a graph holds a whole run."""

    def __init__(self, network):
        self.sampler = Sampler(network, "ddim", 4)

    def __getattr__(self, name):
        return getattr(self.sampler, name)

    def sample(self, n, condition=None, progress=None):
        with trace.span("replay"):
            return self.sampler.sample(n, progress=False)


def test_rows_of_whole_runs_are_the_plans(monkeypatch):
    monkeypatch.setattr(trace, "traced", lambda name, call, indexed=False: call)
    network = ScoreNetwork(lambda x, label: torch.tanh(x), VP(), (3, 8, 8))
    assert profile(Replays(network), 2, runs=2).rows == 5


@pytest.mark.gpu
@pytest.mark.parametrize("executor", ["eager", "graph", Graph(whole_run=True)])
def test_on_a_gpu(executor):
    network = ScoreNetwork(lambda x, label: torch.tanh(x), VP(), (3, 64, 64))
    made = profile(Sampler(network, steps=4, device="cuda", executor=executor), 8, runs=2)
    assert made.rows == 5
    top = [part.seconds for part in made.parts if part.within is None]
    assert sum(top) == pytest.approx(made.seconds)
    assert made.part("step").calls == made.rows
    assert made.part("elementwise").calls >= 4
    assert made.kernels_per_row >= 1 and made.part("step").seconds > 0
