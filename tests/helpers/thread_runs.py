"""Public objects, each used by several threads at once: prints what came of it, one line of JSON each.

A program of its own, so that a crash is a failed test:

    python tests/helpers/thread_runs.py [--at-length] [--cuda] [name ...]

Threads change places every 10 microseconds. At length each object is called 2,000 times. Norms and
attention also run on a GPU.
"""

import copy
import json
import sys
import threading
from functools import partial

import step_cases
import torch
from accelerate_cases import Net
from brownian_cases import arguments as brownian_arguments
from hammer import THREADS, Refused, hammer, report, said, same, together
from torch import nn

from diffusion_engine import Sampler, ScoreNetwork
from diffusion_engine.accelerate import accelerate, choose, conv3x3, network
from diffusion_engine.ops import functional as ops
from diffusion_engine.ops.conv3x3 import pack
from diffusion_engine.ops.library import register
from diffusion_engine.processes import VP
from diffusion_engine.testing import exact_network

SHAPE = (3, 8, 8)
DEVICE = "cuda" if "--cuda" in sys.argv else "cpu"


def images(seed, *shape, last=False, dtype=torch.float32):
    made = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE, dtype)
    return made.contiguous(memory_format=torch.channels_last) if last else made


def group_norm(add=False):
    jobs = []
    for seed in range(4):
        for dtype, last in ((torch.float32, False), (torch.float32, True), (torch.bfloat16, True)):
            x, residual = (images(seed + k, 2, 16, 9, 7, last=last, dtype=dtype) for k in (0, 9))
            weight, scale = images(seed + 4, 16), images(seed + 5, 2, 16)
            options = {"weight": weight, "silu": True, "scale": scale}
            if add:
                jobs.append(partial(ops.add_group_norm, x, residual, 4, **options))
            else:
                jobs.append(partial(ops.group_norm, x, 4, **options, residual=residual))
    return hammer(jobs)


def triton():
    """On a CPU its interpreter, where TRITON_INTERPRET is set."""
    given = [images(seed, 1, 2, 3) for seed in range(3)]
    jobs = [partial(ops.group_norm, x, 1, backend="triton") for x in given]
    return hammer(jobs, 24)


def attention():
    jobs = []
    for seed in range(4):
        for dtype in (torch.float32, torch.bfloat16):
            q, k, v = (images(seed + n, 1, 2, 40, 16, dtype=dtype) for n in (0, 4, 8))
            jobs.append(partial(ops.attention, q, k, v))
    return hammer(jobs)


def convolution():
    jobs = []
    for seed in range(4):
        weight, bias = images(seed, 16, 16, 3, 3), images(seed + 4, 16)
        for last in (False, True):
            x, residual = (images(seed + n, 2, 16, 9, 7, last=last) for n in (8, 16))
            jobs += [
                partial(ops.conv3x3, x, weight, pack(weight, tile), bias, residual)
                for tile in (2, 4)
            ]
    return hammer(jobs)


def after(op, written, *given, **options):
    """An operator's writing as a result: on copies, of which the first `written` are returned."""
    made = [t.clone() if isinstance(t, torch.Tensor) else t for t in given]
    op(*made, **options)
    return [t.nan_to_num() for t in made[:written]]


def step():
    jobs = []
    for seed in (1, 2, 5, 8):
        case = step_cases.make(seed, [(3, 5, 7), (2, 4)])

        def job(case=case):
            buffers = step_cases.run("cpp", case)
            return [t.nan_to_num() for t in buffers.values()]

        jobs.append(job)
    return hammer(jobs)


def noise():
    register()
    jobs = []
    for key in range(4):
        for shape in ((2, 3, 5, 7), (3, 16, 8, 8)):
            seeds = torch.arange(shape[0]) + key
            out = torch.zeros(shape)
            jobs.append(partial(after, torch.ops.diffusion_engine.noise, 1, out, seeds, key, 1))
    return hammer(jobs)


def brownian():
    register()
    jobs = []
    for shape in ((1, 2, 3, 5, 7), (2, 3, 2, 4)):
        args = brownian_arguments(shape)
        given = (args.out, args.seed, args.row, args.terms, args.weight)
        jobs.append(partial(after, torch.ops.diffusion_engine.brownian, 1, *given))
    return hammer(jobs)


def norms():
    jobs = []
    for seed in range(4):
        for last in (False, True):
            x, y = (images(seed + k, 2, 3, 97, 101, last=last) for k in (0, 9))
            jobs += [partial(ops.norms, x, y), partial(ops.norms, x)]
    return hammer(jobs)


def quantile():
    given = [images(seed, 2, 3, 97, 101, last=seed % 2 == 1) for seed in range(4)]
    return hammer([partial(ops.quantile, x, q) for x in given for q in (0.5, 0.995)])


def operators():
    """The operators are defined by whichever thread comes first, and layers run through them."""
    errors = []

    def define(_):
        try:
            register()
        except Exception as error:
            errors.append(said(error))

    together(define)
    x, weight = images(0, 2, 16, 9, 7), images(1, 16, 16, 3, 3)
    q = images(2, 1, 2, 40, 16)
    found = torch.ops.diffusion_engine
    done = hammer([
        partial(found.group_norm, x, 4), partial(found.add_group_norm, x, -0.5 * x, 4),
        partial(found.attention, q, q, q), partial(found.conv3x3, x, weight, pack(weight, 2)),
    ])  # fmt: skip
    return done | {"errors": done["errors"] + errors}


class Refuses(nn.Module):
    def forward(self, x):
        if x.abs().max() > 1e3:
            raise Refused
        return x


class Between(nn.Module):
    """Net, with something between its last norm and SiLU that may raise, and another norm and SiLU."""

    def __init__(self):
        super().__init__()
        self.body = Net()
        self.norm, self.silu = nn.GroupNorm(1, 3), nn.SiLU()
        self.refuses, self.out = Refuses(), nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x, t):
        h = self.norm(self.body(x, t) + x)
        self.refuses(x)
        return self.out(self.silu(h))


def net(seed=0):
    torch.manual_seed(seed)
    made = Between().eval()
    for p in made.parameters():
        p.data = torch.randn_like(p) * 0.3
    return made


def accelerated_network():
    made = net()
    done = accelerate(made, torch.randn(2, 3, 9, 7), torch.rand(2))
    kinds = {replacement.kind for replacement in done.replacements}
    wanted = {"group_norm", "group_norm + SiLU", "winograd conv2d", "packed conv2d", "attention"}
    assert kinds == wanted, kinds
    jobs = []
    for seed in range(4):
        for size in ((2, 3, 9, 7), (1, 3, 4, 4)):
            x = images(seed, *size)
            jobs += [partial(made, x, torch.full(size[:1], 0.1 * seed))] * 2
        jobs.append(partial(made, 1e4 * x, torch.zeros(1)))  # raises between a norm and its SiLU
    stop = threading.Event()

    def refresh():
        while not stop.wait(1e-3):
            done.refresh()

    refreshing = threading.Thread(target=refresh)
    refreshing.start()
    try:
        return hammer(jobs, 240)
    finally:
        stop.set()
        refreshing.join()


def first_calls():
    """Networks that are copied, whose weights are packed by whichever threads come first, in formats that
    the example had not."""
    first = net()
    accelerate(first, torch.randn(2, 3, 9, 7), torch.rand(2))
    x, t = images(1, 2, 3, 9, 7, last=True), torch.rand(2)
    with torch.no_grad():
        want = first(x, t)
    wrong, errors = [], []
    for _ in range(20):
        made = copy.deepcopy(first)

        def work(_, made=made):
            try:
                wrong.extend([] if same(made(x, t), want) else [1])
            except Exception as error:
                errors.append(said(error))

        together(work)
    return report(20 * THREADS, wrong, errors)


def samples(sampler, **request):
    return [sampler.sample(progress=False, **request).samples]


def score_network(seed=0, **options):
    return ScoreNetwork(net(seed), VP(), SHAPE, **options)


def sampler():
    made = Sampler(score_network(), "dpmpp_2m_sde", 3, accelerate=True)
    x = images(1, 2, *SHAPE)
    jobs = [partial(samples, made, n=n, seed=seed) for n in (1, 2) for seed in range(3)]
    jobs += [partial(samples, made, n=2, seed=5, noise="brownian")]
    jobs += [partial(samples, made, x=x, start=start, seed=3) for start in (0.3, 0.6, 0.9)]
    jobs += [lambda: [part.samples for part in made.chunks(3, batch_size=1, progress=False)]]
    return hammer(jobs, 80)


def encoding():
    made = Sampler(score_network(), "ddim", 3, accelerate=True)

    def encoded(x, refine):
        return [made.encode(x, refine=refine).samples]

    given = [images(seed, 2, *SHAPE) for seed in range(2)]
    return hammer([partial(encoded, x, refine) for x in given for refine in (0, 2)], 32)


def plans():
    """Runs whose plans no thread has made yet."""
    wrong, fine = [], ScoreNetwork(lambda x, label: 0.5 * x, VP(), SHAPE)
    starts = [0.1 + 0.01 * i for i in range(30)]
    x = images(1, 1, *SHAPE)
    alone = Sampler(fine, "dpmpp_2m_sde", 4)
    wants = [samples(alone, x=x, start=start) for start in starts]
    made = Sampler(fine, "dpmpp_2m_sde", 4)

    def work(_):
        for start, want in zip(starts, wants, strict=True):
            if not same(samples(made, x=x, start=start), want):
                wrong.append(start)

    together(work)
    return report(len(starts) * THREADS, wrong)


def three_samplers():
    made = [Sampler(score_network(seed), "ddim", 3, accelerate=True) for seed in range(3)]
    jobs = [partial(samples, one, n=2, seed=seed) for one in made for seed in range(2)]
    return hammer(jobs, 80)


def creation():
    """Samplers of one module and of several, made at once."""
    shared, own = score_network(), [score_network(i) for i in range(THREADS)]
    want = samples(Sampler(shared, "ddim", 3, accelerate=True), n=2)
    wants = [samples(Sampler(one, "ddim", 3, accelerate=True), n=2) for one in own]
    wrong, errors = [], []

    def work(i):
        try:
            for given, expected in ((shared, want), (own[i], wants[i])):
                made = Sampler(given, "ddim", 3, accelerate=True)
                alike = same(samples(made, n=2), expected)
                if len(made.accelerated.replacements) < 10 or not alike:
                    wrong.append(i)
        except Exception as error:
            errors.append(said(error))

    together(work)
    return report(2 * THREADS, wrong, errors)


def derivatives():
    """Networks that torch differentiates forwards, whose level is one for the process."""
    made = [Sampler(exact_network(name, (3,)), name, 2) for name in ("genie", "sscs_exact")]
    jobs = [partial(samples, one, n=2, seed=seed) for one in made for seed in range(2)]
    return hammer(jobs, 8)


RUNS = {
    "group_norm": group_norm,
    "add_group_norm": partial(group_norm, add=True),
    "attention": attention,
    "conv3x3": convolution,
    "triton": triton,
    "operators": operators,
    "step": step,
    "noise": noise,
    "brownian": brownian,
    "norms": norms,
    "quantile": quantile,
    "network": accelerated_network,
    "first_calls": first_calls,
    "sampler": sampler,
    "encoding": encoding,
    "plans": plans,
    "three_samplers": three_samplers,
    "creation": creation,
    "derivatives": derivatives,
}


def fuse():
    """Times decide what an accelerated network is made of, and these runs need it to be fused."""
    choose.BUDGET = 0.0
    network.min = lambda times, key: "fused" if "fused" in times else "original"
    conv3x3.fastest = lambda forms, x: max(forms)


if __name__ == "__main__":
    fuse()
    sys.setswitchinterval(1e-5)
    with torch.no_grad():
        for name in [name for name in sys.argv[1:] if name in RUNS] or RUNS:
            print(json.dumps({"name": name} | RUNS[name]()), flush=True)
