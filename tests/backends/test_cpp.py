"""What the C++ kernels decide for themselves: instruction set, threads, stores, element numbers."""

import pytest
import step_cases
import torch

from diffusion_engine.backends import native
from diffusion_engine.ops import layout as at
from diffusion_engine.ops import philox as noise
from diffusion_engine.ops.registry import resolve
from diffusion_engine.ops.step import StepArgs, Table

CPU = native.module("_cpu")


def test_an_unknown_instruction_set_is_named():
    with pytest.raises(ValueError, match=r"cannot run 'mmx' kernels; it has: .*scalar"):
        CPU.set_isa("mmx")


def test_an_op_that_the_module_was_built_without_is_named():
    with pytest.raises(ImportError, match=r"_cpu has no lerp\. .*: python setup\.py build_ext"):
        native.CPU.kernel("lerp", torch.device("cpu"))


@pytest.mark.parametrize("first", [0, 1, 6, 4 * (2**32 - 3) + 1, 2**40 + 3])
def test_normals_of_any_element(isa, first):
    """Also where element / 4 passes 2^32."""
    count, seed, key, m = 300, 0x0123456789ABCDEF, 0xFEDCBA98, 1
    group = torch.arange(first // 4, (first + count) // 4 + 1)
    zero = torch.zeros_like(group)
    words = noise.philox(
        group & noise.MASK, group >> 32, zero + key, zero + m,
        zero + (seed & noise.MASK), zero + (seed >> 32),
    )  # fmt: skip
    pairs = (*noise.box_muller(*words[:2]), *noise.box_muller(*words[2:]))
    want = torch.stack(pairs, dim=-1).flatten()[first % 4 :][:count]
    assert torch.equal(torch.tensor(CPU.normals(seed, key, m, first, count)), want)


@pytest.mark.parametrize("seed", range(6))
def test_parts_of_large_samples(isa, seed):
    """Work items, threads, and ends of a sample that are no whole vector."""
    case = step_cases.make(seed, [(3, 181, 190), (70001,), (1, 1, 130003)])
    want = step_cases.run("torch", case)
    assert not step_cases.differences(step_cases.run("cpp", case), want)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("pixels", [1024, 1023])
def test_network_inputs_written_past_the_caches(isa, dtype, pixels):
    """From 8 MiB on; odd sizes also leave entries unaligned."""
    shape = (5, 9 * 2**21 // 2 // 5 // 1024, pixels)
    args = assignment(torch.empty(shape), torch.empty(shape, dtype=dtype))
    out = torch.randn(shape)
    resolve("step", "cpp", args)([out])
    assert torch.equal(args.net_in, (out * 0.7).to(dtype))


@pytest.mark.parametrize("backend", ["torch", "cpp"])
def test_outputs_may_move_and_change(backend):
    """A launch sees the outputs of its own call, also in another layout than the last ones."""
    args = assignment(torch.empty(2, 3, 4, 4))
    launch = resolve("step", backend, args)
    for dtype in (torch.float32, torch.bfloat16, torch.float32, torch.float16):
        for memory in (torch.contiguous_format, torch.channels_last):
            out = torch.randn(3, 3, 4, 4).to(dtype).contiguous(memory_format=memory)
            launch([out])
            assert torch.equal(args.slots[0], out[:2].float())
    launch()
    assert not args.slots.any()


def assignment(state, net_in=None):
    """A row that sets slot 0 to the output and the network's input to 0.7 of it, for ever."""
    batch = state.shape[0]
    coef, index = torch.zeros(1, at.COEF), torch.zeros(1, at.INDEX, dtype=torch.int32)
    coef[0, at.RAW] = coef[0, at.E] = 1.0
    coef[0, at.C_IN] = 0.7
    index[0, at.WRITES], index[0, at.FLAGS] = 1, at.RAW_USED
    entries = torch.arange(batch, dtype=torch.int32).view(batch, 1)
    return StepArgs(
        slots=state[None],
        row=torch.zeros(batch, dtype=torch.int32),
        seed=torch.zeros(batch, dtype=torch.int64),
        table=Table(coef, index, torch.zeros(1, at.LABELS, dtype=torch.float64)),
        src=entries,
        dst=None if net_in is None else entries,
        net_in=net_in,
        normals=0,
    )
