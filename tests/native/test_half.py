"""Recorded networks in bf16: what is rounded, what is not, and what is too coarse."""

import copy
import pickle
import re
from dataclasses import replace
from functools import cache

import pytest
import torch
from native_cases import gradient, small
from torch import nn

from diffusion_engine import Sampler, ScoreNetwork, _cpu
from diffusion_engine.choices import files
from diffusion_engine.executors import GraphError
from diffusion_engine.native import Native, NativeError, record, reference
from diffusion_engine.native.called import Called
from diffusion_engine.native.emit import Emitter
from diffusion_engine.native.export import exported
from diffusion_engine.native.operations import Attention, Conv
from diffusion_engine.native.program import Program
from diffusion_engine.native.record import Graph, Recorded
from diffusion_engine.native.values import Value
from diffusion_engine.native.weights import Weights
from diffusion_engine.processes import VP
from diffusion_engine.zoo import load_network

GIVEN = {"seeds": [1, 2, 3]}
HALF = torch.bfloat16


@pytest.fixture(params=[*_cpu.bf16s(), "emulated"])
def kind(request):
    _cpu.set_bf16(request.param)
    return request.param


@pytest.fixture
def any_kind():
    """What this processor has, or the emulation."""
    if not _cpu.bf16():
        _cpu.set_bf16("emulated")
    return _cpu.bf16()


@pytest.fixture(autouse=True)
def traced_once(monkeypatch):
    """torch.export takes longer than all that is tested here: once for each kind of network, whose graph then
    has the weights of each."""
    monkeypatch.setattr(record, "exported", exported_once)


EXPORTS = {}


def exported_once(called, inputs, dynamic):
    named = {name: t for name, t in (*called.named_parameters(), *called.named_buffers())}
    key = (type(called.network.module), len(inputs), tuple(inputs[0].shape), dynamic)
    if key not in EXPORTS:
        made = exported(called, inputs, dynamic)
        places = {id(t): name for name, t in named.items()}
        EXPORTS[key] = made, {n: places.get(id(t)) for n, t in made.constants.items()}
    made, names = EXPORTS[key]
    again = copy.copy(made)
    again.constants = {n: named.get(names[n], t) for n, t in made.constants.items()}
    return again


class Wide(nn.Module):
    """Convolutions, linear layers of the time and of pixels, attention, and few channels in and out."""

    def __init__(self, width=32):
        super().__init__()
        self.first = nn.Conv2d(3, width, 3, padding=1)
        self.norm = nn.GroupNorm(4, width)
        self.time = nn.Linear(width, width)
        self.middle = nn.Conv2d(width, width, 3, padding=1)
        self.parts = nn.Linear(width, 3 * width)
        self.last = nn.Conv2d(width, 3, 1)
        self.register_buffer("rates", torch.arange(width) / 8)

    def forward(self, x, label):
        h = self.first(x)
        shift = self.time(torch.cos(label[:, None] / 100 + self.rates))[:, :, None, None]
        h = self.middle(nn.functional.silu(self.norm(h)) + shift) + h
        q, k, v = (
            self.parts(h.flatten(2).transpose(1, 2)).unflatten(2, (3, 2, -1)).permute(2, 0, 3, 1, 4)
        )
        met = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return self.last(h + met.transpose(1, 2).unflatten(2, h.shape[2:]))


def wide(module=None, **how):
    torch.manual_seed(0)
    return ScoreNetwork((module or Wide)(), VP(), (3, 6, 5), name="wide", **how)


def sampler(network, **how):
    return Sampler(network, "ddim", 3, executor=Native(dtype=HALF, **how))


def parts(recorded, half):
    """Each operation in bf16 as one of its own, whose inputs are the buffers it reads."""
    for i in sorted(half):
        op = recorded.operations[i]
        buffers = {value.buffer: None for value in op.values()}
        inputs = [Value.new((b.size,), (1,), b.dtype) for b in buffers]
        for place, buffer in zip(inputs, buffers, strict=True):
            object.__setattr__(place, "buffer", buffer)
        yield Recorded(inputs, [op], [op.out])


@cache
def graph_of(name):
    """Traced once: it takes longer than what is made of it."""
    network = load_network("digits") if name == "digits" else wide()
    given = torch.randn(2, *network.shape), torch.rand(2)
    told = torch.zeros(2, dtype=torch.int64) if network.classes else None
    tensors = [*given, *([] if told is None else [told])]
    return Graph(Called(network, (*given, told, None, None)), tensors)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("name", ["wide", "digits"])
def test_every_product_is_one_of_rounded_inputs(kind, name, batch):
    draw = torch.Generator().manual_seed(0)
    recorded, weights = graph_of(name).at(batch, {}, {}), Weights(kind)
    half = Program(recorded, _cpu.Pool(1), weights).half
    assert {type(recorded.operations[i]).__name__ for i in half} == {"Conv", "Linear", "Attention"}
    for one in parts(recorded, half):
        (op,) = one.operations
        x = [torch.randn(value.shape, generator=draw) for value in one.inputs]
        (want,), (exact,) = reference.run(one, x, half={0}), reference.run(one, x)
        (got,) = Program(one, _cpu.Pool(1), weights)(x)
        # Sums in another order; which powers an attention's maxima are taken from is its own affair.
        allowed = 2**-8 if isinstance(op, Attention) else 2e-6
        assert reference.off(want, got) <= allowed < 8 * reference.off(exact, want), op.name


def test_what_stays_in_float32(any_kind):
    """Few channels in or out, and groups; a network of such alone has the bits of float32."""
    recorded = graph_of("wide").at(2, {}, {})
    half = Program(recorded, _cpu.Pool(1), Weights(any_kind)).half
    assert not Program(recorded, _cpu.Pool(1), Weights()).half
    plain = [
        op for i, op in enumerate(recorded.operations) if i not in half and isinstance(op, Conv)
    ]
    assert [tuple(op.weight.shape[:2]) for op in plain] == [(32, 3), (3, 32)]
    given = GIVEN | {"condition": [0, 1, 0]}
    made = sampler(small()).sample(**given).samples
    assert torch.equal(made, Sampler(small(), "ddim", 3, executor="native").sample(**given).samples)


@pytest.mark.parametrize(
    ("pixels", "kinds"),
    [((8, 8), {"amx", "avx512_bf16", "emulated"}), ((16, 16), {"amx", "emulated"})],
)
def test_large_pictures_are_left_to_winograd_without_tiles(pixels, kinds):
    x = Value.new((1, pixels[0] * pixels[1], 64), (1, 64, 1))
    layer = Conv(x, x, torch.randn(64, 64, 3, 3), pixels, pixels, padding=(1, 1))
    strided = replace(layer, stride=(2, 2))
    found = {
        kind: Emitter(lambda _: 0, Weights(kind)) for kind in ("", "amx", "avx512_bf16", "emulated")
    }
    assert {kind for kind, emit in found.items() if emit.half(layer)} == kinds
    assert {kind for kind, emit in found.items() if emit.half(strided)} == found.keys() - {""}


def test_samples_are_near_those_of_float32(kind):
    made = sampler(wide())
    samples, want = made.sample(**GIVEN), Sampler(wide(), "ddim", 3).sample(**GIVEN).samples
    assert 1e-5 < reference.off(want, samples.samples) < 2e-2
    assert samples.recipe["network_form"] == f"native/{_cpu.isa()}/{kind}"
    said = str(made.recording).splitlines()
    assert (
        said[0] == "wide, 3x6x5 in bf16 on the CPU"
        and f"on {_cpu.isa()}/{kind}, 0 of them" in said[1]
    )
    assert {"conv bf16", "conv", "linear bf16", "attention bf16"} <= {
        re.split(r"\s{2,}", line.strip())[0] for line in said
    }


def test_a_sample_is_the_same_in_any_batch(kind):
    network = wide()
    own = sampler(network, threads=2)
    together = own.sample(seeds=range(5)).samples
    for size in (1, 2, 3):
        assert torch.equal(own.sample(seeds=range(5), batch_size=size).samples, together)
    alone = sampler(network, threads=1)
    assert torch.equal(alone.sample(seeds=[4]).samples, together[4:])
    assert alone.executor.exact(network, (torch.randn(1, 3, 6, 5), torch.rand(1), None, None, None))


def test_weights_that_change_are_packed_anew(any_kind):
    network = wide()
    own = sampler(network)
    before, bytes_before = own.sample(**GIVEN).samples, own.executor.packed(network)
    kept = {name: tensor.clone() for name, tensor in network.module.state_dict().items()}
    with torch.no_grad():
        network.module.middle.weight.mul_(1.5)
    changed = own.sample(**GIVEN).samples
    assert torch.equal(changed, sampler(network).sample(**GIVEN).samples)
    assert not torch.equal(changed, before)
    own.update_weights(kept)
    assert torch.equal(own.sample(**GIVEN).samples, before)
    assert own.executor.packed(network) > bytes_before > 2 * 9 * 32 * 32


def test_instructions_are_those_of_the_recording(any_kind):
    own = sampler(wide())
    before = own.sample(**GIVEN)
    _cpu.set_bf16("emulated")
    after = own.sample(**GIVEN)
    assert before.recipe["network_form"].endswith(any_kind)
    assert after.recipe["network_form"].endswith("emulated")
    assert len(own.recording.recordings) == 1 + (any_kind != "emulated")


def test_numbers_of_threads_are_chosen_for_each_dtype(any_kind):
    network = wide()
    for executor in (Native(), Native(dtype=HALF)):
        torch.set_num_threads(2)
        Sampler(network, "ddim", 2, executor=executor).sample(2)
    assert len(list(files("threads"))) == 2


def test_copies_run_in_bf16():
    again = pickle.loads(pickle.dumps(Native(threads=2, dtype=HALF, fallback=True)))
    assert (again.precision, again.fallback, again.threads) == (HALF, True, 2)
    assert Native().precision is None and not Native(dtype=HALF).fallback
    with pytest.raises(ValueError, match=r"float32 or torch\.bfloat16"):
        Native(dtype=torch.float16)


def test_a_processor_that_would_emulate_it(monkeypatch):
    monkeypatch.setattr("diffusion_engine.native.executor.halves", lambda: "")
    with pytest.raises(GraphError, match=r"times as long.*dtype='auto'.*float32"):
        sampler(wide())
    Sampler(wide(), "ddim", 3, executor=Native())


class Cancelling(Wide):
    """A layer that tells large numbers apart which are nearly the same."""

    def __init__(self):
        super().__init__()
        self.apart = nn.Linear(64, 24)
        with torch.no_grad():
            self.apart.weight.zero_()[:, :2] = torch.tensor([1.0, -1.0])

    def forward(self, x, label):
        seen = x.mean(1, keepdim=True).flatten(2).transpose(1, 2)
        close = torch.cat([seen + 300, 300 - seen, seen.expand(-1, -1, 62)], 2)
        return super().forward(x, label) + self.apart(close)[:, :, :3].transpose(1, 2).reshape(
            x.shape
        )


def test_a_network_that_bf16_is_too_coarse_for(any_kind):
    with pytest.raises(NativeError) as refused:
        sampler(wide(Cancelling)).sample(**GIVEN)
    said = str(refused.value)
    assert re.match(
        r"the network 'wide' cannot be done in bf16: its outputs differ by \d\.\de-0[12] of", said
    )
    worst, second, third = said.partition("come alone to: ")[2].partition(". Use")[0].split("; ")
    assert re.fullmatch(r"linear 64 to 24 \(30 rows, apart\.weight\) \d\.\de-0[12]", worst)
    assert all(float(one.split()[-1]) < 2e-2 for one in (second, third))
    assert said.endswith(
        "Use dtype=torch.float32, or dtype='auto', which takes float32 where it has to"
    )


def test_it_is_done_in_float32_where_that_may_be(any_kind):
    network = wide(Cancelling)
    own = sampler(network, fallback=True)
    assert own.executor.dtype_of(network) == HALF
    made = own.sample(**GIVEN)
    want = Sampler(network, "ddim", 3, executor="native").sample(**GIVEN)
    assert torch.equal(made.samples, want.samples)
    assert made.recipe["network_form"] == want.recipe["network_form"]
    assert own.executor.dtype_of(network) == torch.float32
    said = str(own.recording).splitlines()
    assert said[0].endswith("in float32 on the CPU") and "bf16" not in "".join(said[2:])
    assert said[1].startswith("  bf16 is too coarse: its outputs differ by") and "apart" in said[1]
    with torch.no_grad():  # whatever becomes of the weights
        network.module.apart.weight.zero_()
    assert own.sample(**GIVEN).recipe["network_form"] == want.recipe["network_form"]


def test_a_network_that_differentiates(any_kind):
    given = {"seeds": [1, 2], "condition": [0, 1]}
    with pytest.raises(NativeError, match=r"differentiates in its forward.*dtype=torch.float32"):
        sampler(gradient()).sample(**given)
    network = gradient()
    made = sampler(network, fallback=True)
    assert torch.equal(
        made.sample(**given).samples, Sampler(network, "ddim", 3).sample(**given).samples
    )
    assert made.executor.dtype_of(network) == torch.float32 and made.executor.form(network) is None


def test_what_bf16_would_hide_is_seen(any_kind):
    """A network that keeps something from call to call, of less than bf16 may be off by."""
    inner, calls = Wide().eval(), []

    def module(x, label):
        calls.append(None)
        return inner(x, label) * (1 + 1e-3 * len(calls))

    with pytest.raises(NativeError, match="from call to call"):
        sampler(ScoreNetwork(module, VP(), (3, 6, 5))).sample(**GIVEN)
