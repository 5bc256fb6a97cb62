"""What is particular to the Triton kernels: their helpers, the ticket, the launch, the machine code.

test_step.py and test_noise.py compare them with the definitions on random cases.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import step_cases
import torch
from known_answers import KNOWN
from with_triton import tl, triton

import diffusion_engine
from diffusion_engine.kernels import launch, philox
from diffusion_engine.kernels.cover import Cover
from diffusion_engine.kernels.step import TRITON
from diffusion_engine.ops import philox as noise
from diffusion_engine.ops.noise import OP as NOISE
from diffusion_engine.ops.noise import NoiseArgs
from diffusion_engine.ops.registry import resolve
from diffusion_engine.ops.step import StepArgs, Table
from diffusion_engine.ops.step_reference import OP as STEP
from diffusion_engine.ops.table import IMPLEMENTATIONS

# Bytes stored and loaded again because registers ran out, of one kernel. Triton 3.6 to 3.9 have 0 to 40; a
# kernel that has outgrown the registers has hundreds.
SPILLED = 64
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"  # interpreted on the CPU, see conftest.py


@triton.jit
def _philox(words_ptr, made_ptr):
    w0, w1 = tl.load(words_ptr).to(tl.uint32), tl.load(words_ptr + 1).to(tl.uint32)
    w2, w3 = tl.load(words_ptr + 2).to(tl.uint32), tl.load(words_ptr + 3).to(tl.uint32)
    k0, k1 = tl.load(words_ptr + 4).to(tl.uint32), tl.load(words_ptr + 5).to(tl.uint32)
    w0, w1, w2, w3 = philox.philox(w0, w1, w2, w3, k0, k1)
    tl.store(made_ptr, w0.to(tl.int64))
    tl.store(made_ptr + 1, w1.to(tl.int64))
    tl.store(made_ptr + 2, w2.to(tl.int64))
    tl.store(made_ptr + 3, w3.to(tl.int64))


@triton.jit
def _box_muller(a_ptr, b_ptr, z_ptr, SIZE: tl.constexpr):
    lane = tl.arange(0, SIZE)
    a, b = tl.load(a_ptr + lane).to(tl.uint32), tl.load(b_ptr + lane).to(tl.uint32)
    z0, z1 = philox.box_muller(a, b)
    tl.store(z_ptr + lane, z0)
    tl.store(z_ptr + SIZE + lane, z1)


@triton.jit
def _exponential(x_ptr, y_ptr, SIZE: tl.constexpr):
    lane = tl.arange(0, SIZE)
    tl.store(y_ptr + lane, philox.exponential(tl.load(x_ptr + lane)))


def same_bits(a, b):
    """Equal, and NaN where the other is."""
    return torch.equal(a.isnan(), b.isnan()) and torch.equal(a.nan_to_num(), b.nan_to_num())


@pytest.mark.parametrize("counter, key, words", KNOWN)
def test_philox_known_answers(counter, key, words):
    given = torch.tensor([*counter, *key], device=DEVICE)
    made = torch.zeros(4, dtype=torch.int64, device=DEVICE)
    _philox[(1,)](given, made, enable_fp_fusion=False)
    assert tuple(made.tolist()) == words


def test_box_muller_at_the_seams():
    """Words around every branch of the logarithm, the sine and the rounding to float32."""
    seams = [0, 2**24, 2**29, 2**30, 3 * 2**29, 2**31, 3 * 2**30, 3037000500, 7 * 2**29, 2**32]
    words = [w for seam in seams for w in range(seam - 3, seam + 3) if 0 <= w < 2**32]
    words = torch.tensor([*words, *(k * 123456789 for k in range(1, 65 - len(words)))])
    a, b = torch.cartesian_prod(words, words).T.contiguous()
    made = torch.empty(2, len(a), device=DEVICE)
    _box_muller[(1,)](a.to(DEVICE), b.to(DEVICE), made, len(a), enable_fp_fusion=False)
    assert same_bits(made.cpu(), torch.stack(noise.box_muller(a, b)))


def test_exponential():
    values = [0.0, -0.0, 1.0, -87.0, -87.1, 88.0, 88.1, 1e30, -1e30, 1e-40, float("nan")]
    x = torch.cat(
        [torch.tensor([*values, float("inf"), -float("inf")]), torch.linspace(-90, 90, 499)]
    )
    made = torch.empty_like(x, device=DEVICE)
    _exponential[(1,)](x.to(DEVICE), made, len(x), enable_fp_fusion=False)
    assert same_bits(made.cpu(), noise.exp(x))


@pytest.mark.parametrize(
    "shape, last",
    [
        ((3, 40, 40), False),
        ((3, 36, 40), True),
        ((5, 31, 17), True),
        ((70, 4, 6), True),
        ((1, 2050), False),
    ],
    ids=["run", "tile", "tile of odd pixels", "tiles of channels", "one channel"],
)
def test_noise_in_several_programs(shape, last):
    want = torch.empty(2, *shape)
    if last:
        want = want.to(memory_format=torch.channels_last)
    made = torch.empty_like(want, device=DEVICE)
    seed = torch.tensor([-5, 2**40 + 3])
    make = resolve("noise", "triton", NoiseArgs(made, seed.to(DEVICE)))
    define = NOISE.bind(NoiseArgs(want, seed))
    for key, m in ((1, 0), (2**32 - 1, 2)):
        make(key, m)
        define(key, m)
        assert torch.equal(made.cpu(), want)


def bind_both(case):
    """The fields of the definition and of the kernel, and their launches."""
    want = {n: _copy(v, "cpu") for n, v in case.fields.items()}
    made = {n: _copy(v, DEVICE) for n, v in case.fields.items()}
    launches = STEP.bind(StepArgs(**want)), TRITON.bind(StepArgs(**made))
    return want, made, *launches


def _copy(value, device):
    if isinstance(value, Table):
        return Table(*(_copy(t, device) for t in value))
    return step_cases.copied(value, device)


def compare(made, want):
    # The interpreter does not round a store to bfloat16 to nearest.
    net_in = want.get("net_in")
    bfloat16 = net_in is not None and net_in.dtype == torch.bfloat16
    rounded = ("net_in",) if DEVICE == "cpu" and bfloat16 else ()
    buffers = {n: v for n, v in want.items() if isinstance(v, torch.Tensor)}
    made = {n: made[n].cpu() for n in buffers}
    assert not step_cases.differences(made, buffers, rounded)


LARGE = [(3, 40, 40), (5, 31, 17), (4, 24, 24)]


@pytest.mark.parametrize("seed", range(6))
def test_the_last_program_replaces_the_row(seed):
    """Several programs read one row, launch after launch; the ticket is zero after each."""
    case = step_cases.make(seed, LARGE)
    case.fields["ticket"] = torch.zeros(len(case.fields["row"]), dtype=torch.int32)
    case.outs = [out.nan_to_num(0.5) for out in case.outs]  # other rows read other outputs
    want, made, define, step = bind_both(case)
    for _ in range(3):
        define(case.outs)
        step([out.to(DEVICE) for out in case.outs])
        compare(made, want)


def test_outputs_may_change_from_launch_to_launch():
    """Other addresses, another alignment, dtypes and layouts."""
    case = next(c for s in range(100) if len((c := step_cases.make(s, [(4, 6, 10)])).outs) == 2)
    want, made, define, step = bind_both(case)
    shapes = [out.shape for out in case.outs]
    for dtype, last, shift in (
        (torch.float32, False, 0),
        (torch.float32, False, 0),
        (torch.float32, False, 1),
        (torch.float16, True, 0),
        (torch.float32, False, 0),
    ):
        outs = []
        for shape in shapes:
            flat = torch.randn(shape.numel() + shift)[shift:].to(dtype)
            out = flat.view(shape)
            outs.append(out.to(memory_format=torch.channels_last) if last else out)
        define(outs)
        step([out.to(DEVICE) for out in outs])
        compare(made, want)


@pytest.mark.gpu
@pytest.mark.parametrize("seed", range(4))
def test_thousands_of_programs_share_a_row(seed):
    case = step_cases.make(seed, [(4, 512, 512), (3, 701, 333)])
    case.outs = [out.nan_to_num(0.5) for out in case.outs]
    want, made, define, step = bind_both(case)
    for _ in range(3):
        define(case.outs)
        step([out.cuda() for out in case.outs])
        compare(made, want)


def test_channels_last_is_a_run_where_nothing_counts_elements():
    state, last = torch.Size((4, 16, 16)), [(1, 4)]
    assert Cover.choose(state, last, drawn=False).tile == 0
    assert Cover.choose(state, last, drawn=True).tile == 4
    assert Cover.choose(state, [*last, (1, 8)], drawn=False).tile == 4
    assert Cover.choose(state, [(256, 1)], drawn=True).tile == 0


def test_objections(monkeypatch):
    fields = step_cases.make(0, [(3, 4, 5)]).fields
    assert TRITON.objection(StepArgs(**fields)) is None or DEVICE == "cuda"
    coef = fields["table"].coef.double()
    double = fields | {
        "slots": fields["slots"].double(),
        "table": fields["table"]._replace(coef=coef),
    }
    double.pop("denoised", None)
    assert "float32 slots; got float64" in TRITON.objection(StepArgs(**double))
    monkeypatch.setattr(launch, "interpreted", lambda kernel: False)
    assert "TRITON_INTERPRET=1" in TRITON.objection(StepArgs(**fields))
    with pytest.raises(ValueError, match="Triton works on CUDA tensors"):
        resolve("step", "triton", StepArgs(**fields))


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("which", [[], pytest.param(["--all"], marks=pytest.mark.slow)], ids=str)
def test_machine_code(which, capsys):
    """Compiled for GPUs that need not be there: few spills, nothing that rounds differently."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    environment["PYTHONPATH"] = str(Path(diffusion_engine.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, Path(__file__).parents[1] / "helpers" / "triton_aot.py", *which],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    made = {f["kernel"].partition(" ")[0].rstrip(",") for f in figures}
    assert made == {op for op, backend in IMPLEMENTATIONS if backend == "triton"}
    with capsys.disabled():
        print()
        for f in figures:
            print("  {kernel:56} sm_{arch}  {registers:3} registers  {spilled} bytes spilled  "
                  "{shared} bytes shared".format(**f))  # fmt: skip
    for f in figures:
        assert f["spilled"] <= SPILLED, f
        # The most that a block may have on sm_80 and sm_90.
        assert f["registers"] <= 255 and f["shared"] <= (163 if f["arch"] == 80 else 227) * 1024, f
        if f["kernel"].startswith("attention bfloat16"):
            # 40 and 72, too, load more than an element at once.
            assert f["narrow"] == 0 and f["async"] > 0, f
        if f["kernel"].startswith(("step", "noise", "brownian", "norms", "quantile")):
            assert f["inexact"] == 0, f
            assert f["registers"] <= (40 if f["kernel"] == "step ddim" else 168), f
