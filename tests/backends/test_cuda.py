"""The CUDA module: its kernels' code run on the CPU and, with `-m gpu`, on the GPU."""

import mmap
import subprocess
import sys

import pytest
import step_cases
import torch
from on_host import OnHost, emulated
from setup_file import ROOT

from diffusion_engine.backends import noise, step
from diffusion_engine.ops import layout as at
from diffusion_engine.ops import table
from diffusion_engine.ops.noise import OP as NOISE
from diffusion_engine.ops.noise import NoiseArgs
from diffusion_engine.ops.step import StepArgs, Table
from diffusion_engine.ops.step_reference import OP as STEP

# The module


def test_layout_is_that_of_python(cuda):
    assert cuda.abi() == at.ABI


def test_import_does_not_load_the_driver(cuda):
    program = "import diffusion_engine._cuda; print('libcuda.so' in open('/proc/self/maps').read())"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"


def test_a_refused_launch_says_what_to_do(cuda):
    p = cuda.StepParams()
    p.batch = p.channels = 1
    p.pixels = 4
    with pytest.raises(ValueError, match="1 to 5 slots, got 0"):
        cuda.step_on_host(p, [])
    if not torch.cuda.is_available():
        p.slot = [(0, 4, 4, 1, 0)]
        with pytest.raises(RuntimeError, match=r"step: CUDA refused the launch: .* nvidia-smi"):
            cuda.step(p, [], 0, 0)


def test_several_blocks_need_a_ticket(cuda):
    p = cuda.StepParams()
    p.batch, p.channels, p.pixels = 1, 3, 64 * 64
    p.slot = [(0, 3 * 64 * 64, 64 * 64, 1, 0)]
    with pytest.raises(ValueError, match="needs `ticket`"):
        cuda.step_on_host(p, [])


# The kernels' code on the CPU


@pytest.mark.parametrize(
    "counter, key, words",
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
    ids=["zeros", "ones", "pi"],
)
def test_philox_known_answers(cuda, counter, key, words):
    """The vectors that come with Random123."""
    assert tuple(cuda.philox(counter, *key)) == words


SMALL, LARGE_GPU = (emulated(step.Bound, multiprocessors=n) for n in (1, 132))


@pytest.fixture(params=["SMALL", "LARGE_GPU"])
def emulation(request, cuda, monkeypatch):
    """A backend that runs the kernels on the CPU, with the grid of a small or a large GPU."""
    where = f"{__name__}:{request.param}"
    monkeypatch.setitem(table.IMPLEMENTATIONS, ("step", "emulated"), where)
    return "emulated"


def compare(backend, case, device="cpu"):
    # Scratch of the GPU kernels; the comparison shows that it is zero again.
    case.fields.setdefault("ticket", torch.zeros_like(case.fields["row"]))
    want, got = step_cases.run("torch", case), step_cases.run(backend, case, device)
    assert not step_cases.differences(got, want)


@pytest.mark.parametrize("part", range(4))
def test_step_equals_the_reference(emulation, part):
    for seed in range(100 * part, 100 * (part + 1)):
        compare(emulation, step_cases.make(seed))


# Several blocks a sample, several groups a thread; the last two with a remainder.
LARGE = [(3, 64, 64), (4, 96, 40), (1, 97, 101), (6, 51, 33)]


def test_step_equals_the_reference_on_large_samples(emulation):
    for seed in range(1000, 1012):
        compare(emulation, step_cases.make(seed, LARGE))


def test_a_sample_draws_what_it_draws_without_noise(emulation):
    step_cases.check_given(emulation)


def on(device, case, change=torch.clone):
    """StepArgs and outputs of a case; images go through `change`."""
    images = ("slots", "net_in", "noise", "mask", "known", "denoised")

    def moved(name, value):
        if isinstance(value, Table):
            return Table(*(t.to(device, copy=True) for t in value))
        if not isinstance(value, torch.Tensor):
            return value
        return change(value).to(device) if name in images else value.to(device, copy=True)

    fields = {name: moved(name, value) for name, value in case.fields.items()}
    ticket = torch.zeros_like(fields["row"])
    return StepArgs(**fields | {"ticket": ticket}), [change(o).to(device) for o in case.outs]


def compare_args(got, want):
    values = {n: t.cpu() for n, t in vars(got).items() if isinstance(t, torch.Tensor)}
    assert not step_cases.differences(values, {name: getattr(want, name) for name in values})


@pytest.mark.parametrize("pad, offset", [(4, 0), (3, 0), (0, 1), (8, 4), (8, 3)])
def test_step_takes_gaps_and_any_alignment(cuda, pad, offset):
    def spread(tensor):
        wide = torch.Size((*tensor.shape[:-1], tensor.shape[-1] + pad))
        memory = torch.zeros(wide.numel() + offset, dtype=tensor.dtype)
        return memory[offset:].view(wide)[..., : tensor.shape[-1]].copy_(tensor)

    for seed in range(2000, 2040):
        case = step_cases.make(seed, [(3, 132), (5, 20), (2, 4)])
        want, outs = on("cpu", case)
        STEP.bind(want)(outs)
        got, outs = on("cpu", case, spread)
        SMALL.bind(got)(outs)
        compare_args(got, want)


def test_rows_follow_each_other(cuda):
    for seed in range(8):
        case = step_cases.make(seed, [(3, 64, 64)])
        (want, outs), (got, _) = on("cpu", case), on("cpu", case)
        reference, emulated = STEP.bind(want), SMALL.bind(got)
        for _ in range(4):
            reference(outs)
            emulated(outs)
        compare_args(got, want)


@pytest.mark.parametrize("shape", [(3, 5), (4, 8, 8), (3, 16, 12), (2, 64, 64), (2, 33, 31)])
@pytest.mark.parametrize("last", [False, True], ids=["contiguous", "channels-last"])
def test_noise_equals_the_reference(cuda, shape, last):
    seed = torch.tensor([0, -1, 2**62 + 12345])
    size = (3, *shape[1:], shape[0]) if last else (3, *shape)
    got, want = (torch.empty(size) for _ in range(2))
    got, want = (t.movedim(-1, 1) if last else t for t in (got, want))
    NOISE.bind(NoiseArgs(want, seed))(0xFFFFFFF0, 1)
    noise.bind(OnHost(multiprocessors=1), NoiseArgs(got, seed))(0xFFFFFFF0, 1)
    assert torch.equal(got, want)


def test_many_draws_equal_the_reference(cuda):
    got, want = torch.empty(1, 1, 2**16), torch.empty(1, 1, 2**16)
    seed = torch.tensor([20])
    NOISE.bind(NoiseArgs(want, seed))(7, 0)
    noise.bind(OnHost(), NoiseArgs(got, seed))(7, 0)
    assert torch.equal(got, want)


@pytest.fixture
def vast():
    """32 GiB of addresses; only touched pages take memory. Python 3.11 lacks the name of the flag."""
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0x4000)
    try:
        memory = mmap.mmap(-1, 2**35, flags=flags)
    except OSError as error:
        pytest.skip(f"32 GiB of addresses are not to be had: {error}")
    return torch.frombuffer(memory, dtype=torch.float32)


def test_offsets_take_more_than_32_bits(cuda, vast):
    far = vast.as_strided((2, 2, 2, 8), (2**32, 2**31, 2**30 + 1, 1))
    coef = torch.zeros(1, at.COEF)
    coef[0, [at.A + 1, at.A + at.SLOTS, at.C]] = torch.tensor([0.5, -2.0, 1.5])
    index = torch.zeros(1, at.INDEX, dtype=torch.int32)
    index[0, [at.READS, at.WRITES, at.FLAGS]] = torch.tensor([3, 3, at.NORMAL], dtype=torch.int32)
    fields = {
        "seed": torch.tensor([5, 6]),
        "table": Table(coef, index, torch.zeros(1, at.LABELS, dtype=torch.float64)),
        "normals": 1,
        "inputs": 0,
    }
    near = torch.randn(2, 2, 2, 8)
    far.copy_(near)
    for slots, bind in ((near, STEP.bind), (far, SMALL.bind)):
        bind(StepArgs(slots=slots, row=torch.zeros(2, dtype=torch.int32), **fields))(())
    assert torch.equal(near, far)


# On a GPU


@pytest.mark.gpu
def test_step_on_the_gpu_equals_the_reference():
    for seed in range(300):
        compare("cuda", step_cases.make(seed), "cuda")
    for seed in range(1000, 1012):
        compare("cuda", step_cases.make(seed, LARGE), "cuda")


@pytest.mark.gpu
def test_noise_on_the_gpu_equals_the_reference():
    seed = torch.tensor([3, -4])
    want, got = torch.empty(2, 8, 2**17), torch.empty(2, 8, 2**17, device="cuda")
    NOISE.bind(NoiseArgs(want, seed))(-5, 1)
    noise.CUDA.bind(NoiseArgs(got, seed.cuda()))(-5, 1)
    assert torch.equal(got.cpu(), want)


@pytest.mark.gpu
@pytest.mark.parametrize("seed", range(5))
def test_a_graph_replays_the_rows(seed):
    """One captured launch, replayed, walks each sample through its own rows."""
    case = step_cases.make(seed, [(3, 64, 64)])
    warm, outs = on("cuda", case)
    step.CUDA.bind(warm)(outs)  # loads the kernel, which a capture may not

    want, outs = on("cpu", case)
    launch = STEP.bind(want)
    for _ in range(6):
        launch(outs)

    got, outs = on("cuda", case)
    launch = step.CUDA.bind(got)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        launch(outs)
    for _ in range(6):
        graph.replay()
    compare_args(got, want)
