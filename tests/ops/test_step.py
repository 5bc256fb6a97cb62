"""The step on every backend against its definition, bit for bit, on random rows and layouts."""

import math

import numpy as np
import pytest
import step_cases
import torch
from step_cases import args

from diffusion_engine.ops import layout as at
from diffusion_engine.ops import philox as noise
from diffusion_engine.ops.registry import explain, objection, resolve

SMALL = [shape for shape in step_cases.SHAPES if math.prod(shape) < 300]


def check(backend, seed, shapes=step_cases.SHAPES, device="cpu"):
    case = step_cases.make(seed, shapes)
    got, want = step_cases.run(backend, case, device), step_cases.run("torch", case)
    # Triton's interpreter does not round a store to bfloat16 to nearest.
    interpreted = backend == "triton" and device == "cpu"
    net_in = case.fields.get("net_in")
    rounded = interpreted and net_in is not None and net_in.dtype == torch.bfloat16
    found = step_cases.differences(got, want, ("net_in",) if rounded else ())
    assert not found, f"seed {seed}: " + "; ".join(found)


@pytest.mark.parametrize("first", range(0, 200, 25))
def test_cpp_equals_the_definition(isa, first):
    for seed in range(first, first + 25):
        check("cpp", seed)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(1000, 3000, 100))
def test_cpp_equals_the_definition_on_many_cases(first):
    for seed in range(first, first + 100):
        check("cpp", seed)


@pytest.mark.parametrize("first", range(0, 60, 10))
def test_triton_equals_the_definition(first):
    for seed in range(first, first + 10):
        check("triton", seed, SMALL)


@pytest.mark.gpu
@pytest.mark.parametrize("backend", ["cuda", "triton"])
@pytest.mark.parametrize("first", range(0, 200, 25))
def test_gpu_equals_the_definition(backend, first):
    for seed in range(first, first + 25):
        check(backend, seed, device="cuda")


def test_cpp_splits_large_samples_over_threads():
    check("cpp", 3, [(3, 256, 257)])
    check("cpp", 11, [(1, 1 << 17)])


@pytest.mark.parametrize("backend", ["torch", "cpp", "triton"])
def test_a_sample_draws_what_it_draws_without_noise(backend):
    """Also those whose neighbours read; test_cuda.py has the same."""
    step_cases.check_given(backend)


def plain(value, weight):
    """A product that is not read where the weight is zero."""
    return np.float32(0) if weight == 0 else np.float32(weight) * np.float32(value)


@pytest.mark.parametrize("seed", range(40))
def test_the_definition_element_by_element(seed):
    """The reference against a scalar loop that follows the formula of ops/step.py."""
    case = step_cases.make(seed, [(3,), (2, 1), (1, 3, 5), (5, 9)])
    fields, outs = case.fields, case.outs
    got = step_cases.run("torch", case)
    table, slots = fields["table"], fields["slots"]
    count, batch, channels = slots.shape[:3]
    pixels = slots.shape[3:].numel()
    state = slots.reshape(count, batch, channels, pixels).numpy()
    result = got["slots"].reshape(count, batch, channels, pixels).numpy()
    blocks = [out.reshape(len(out), -1, channels, pixels).float().numpy() for out in outs]
    for b in range(batch):
        r = int(fields["row"][b])
        if r < 0:
            np.testing.assert_array_equal(result[:, b], state[:, b])
            continue
        coef, index = table.coef[r].numpy(), table.index[r].numpy()
        assert int(got["row"][b]) == index[at.NEXT]
        draws = [
            noise.normals(fields["seed"][b : b + 1], torch.tensor([int(index[at.KEY])]), m,
                          channels * pixels).numpy().reshape(channels, pixels)
            for m in range(3)
        ]  # fmt: skip
        if "noise" in fields and ("given" not in fields or fields["given"][b]):
            draws = [n[b].reshape(channels, pixels).numpy() for n in fields["noise"]]
        for c, px in np.ndindex(channels, pixels):
            out = outputs_of(blocks, fields, index, b, c, px)
            want = element(
                coef, index, state[:, b, c, px], out, [z[c, px] for z in draws], fields, b, c, px
            )
            np.testing.assert_array_equal(result[:, b, c, px], want)


def outputs_of(blocks, fields, index, b, c, px):
    if fields["src"] is None or not blocks:
        return []
    found = []
    for j in range(fields["src"].shape[1]):
        entry, h, value = int(fields["src"][b, j]), int(index[at.H + j]), np.float32(0)
        for tensor in blocks:
            if 0 <= h < tensor.shape[1] and entry >= 0:
                value = tensor[entry, h, c, px]
            h -= tensor.shape[1]
        found.append(value)
    return found


@np.errstate(all="ignore")
def element(coef, index, s, out, z, fields, b, c, px):
    total = np.float32(0)
    for k, value in enumerate(s):
        total = total + plain(value, coef[at.P + k])
    for j, value in enumerate(out):
        total = total + plain(value, coef[at.Q + j])
    total = coef[at.LO] if total < coef[at.LO] else total
    denoised = (coef[at.HI] if total > coef[at.HI] else total) * coef[at.SCALE]
    raw = np.float32(0)
    for j, value in enumerate(out):
        raw = raw + plain(value, coef[at.RAW + j])
    scale = np.float32(1)
    if fields["learned"] and index[at.FLAGS] & at.LEARNED and out:
        exponent = coef[at.V0] + coef[at.V1] * out[index[at.JV]]
        scale = noise.exp(torch.tensor([exponent], dtype=torch.float32)).numpy()[0]
    new = np.array(s)
    for k in range(len(s)):
        if not index[at.WRITES] >> k & 1:
            continue
        total = np.float32(0)
        for source, value in enumerate(s):
            total = total + plain(value, coef[at.A + k * at.SLOTS + source])
        total = total + plain(denoised, coef[at.D + k]) + plain(raw, coef[at.E + k])
        for m in range(fields["normals"]):
            total = total + plain(z[m] * scale, coef[at.C + k * at.NORMALS + m])
        if k == 0 and "mask" in fields and index[at.FLAGS] & at.MASKED:
            mask = fields["mask"][b].reshape(-1, fields["mask"][b, 0].numel())[c, px].numpy()
            known = fields["known"][b].reshape(-1, fields["known"][b, 0].numel())[c, px].numpy()
            region = np.float32(0) + plain(known, coef[at.U0]) + plain(z[2], coef[at.U1])
            total = mask * total + (np.float32(1) - mask) * region
        new[k] = total
    return new


STATE, FILLED = torch.zeros(2, 3, 4, 4), torch.zeros(2, 1, dtype=torch.int32)


@pytest.mark.parametrize(
    "fields, error, message",
    [
        ({"slots": torch.zeros(6, 2, 3, 4)}, ValueError, "slots are \\[1..5, batch"),
        ({"slots": torch.zeros(1, 2, 3).long()}, TypeError, "slots is int64"),
        ({"row": torch.zeros(3, dtype=torch.int32)}, ValueError, "row has shape \\[3\\]; \\[2\\]"),
        ({"seed": torch.zeros(2)}, TypeError, "seed is float32; it has to be int64"),
        ({"src": torch.zeros(2, 17, dtype=torch.int32)}, ValueError, "src has 17 outputs"),
        ({"normals": 3}, ValueError, "0, 1 or 2"),
        ({"mask": torch.zeros(2, 3, 4, 4)}, ValueError, "mask and known come together"),
        ({"noise": torch.zeros(1, 2, 3, 4, 4)}, ValueError, "noise holds 1 draws, 2 are needed"),
        ({"noise": torch.zeros(2, 2, 3, 4, 4), "mask": STATE, "known": STATE}, ValueError, "2 draws, 3"),
        ({"noise": torch.zeros(1, 2, 3, 4, 4), "normals": 2}, ValueError, "noise holds 1 draws, 2 are"),
        ({"noise": torch.zeros(2, 1, 3, 4, 4)}, ValueError, r"noise has shape \[2, 1, 3, 4, 4\]"),
        ({"given": FILLED[:, 0]}, ValueError, "given says which samples read noise"),
        ({"noise": torch.zeros(2, 2, 3, 4, 4), "given": FILLED[:1, 0]}, ValueError, "given has shape"),
        ({"noise": torch.zeros(2, 2, 3, 4, 4), "given": FILLED[:, 0].bool()}, TypeError, "given is bool"),
        ({"known": STATE}, ValueError, "mask and known come together"),
        ({"mask": STATE[..., :3], "known": STATE}, ValueError, r"mask has shape \[2, 3, 4, 3\]"),
        ({"net_in": torch.zeros(2, 3, 4, 4)}, ValueError, "net_in is written through dst"),
        ({"net_in": torch.zeros(2, 3, 4, 4), "dst": FILLED, "inputs": 0}, ValueError, "inputs >= 1"),
        ({"net_in": torch.zeros(2, 5, 4, 4), "dst": FILLED, "inputs": 2}, ValueError, "5 channels; 2 x 3"),
        ({"net_in": torch.zeros(2, 3, 4, 5), "dst": FILLED}, ValueError, "net_in has shape"),
        ({"net_in": torch.zeros(2, 3, 4, 4).long(), "dst": FILLED}, TypeError, "net_in is int64"),
        ({"dst": FILLED[:1]}, ValueError, r"dst has shape \[1, 1\]; \[2, any\]"),
        ({"src": FILLED.long()}, TypeError, "src is int64; it has to be int32"),
        ({"label": torch.zeros(2).half()}, TypeError, "label is float16; it has to be"),
        ({"status": torch.zeros(3, dtype=torch.int32)}, ValueError, r"status has shape \[3\]"),
        ({"ticket": torch.zeros(1, dtype=torch.int32)}, ValueError, r"ticket has shape \[1\]"),
        ({"normals": -1}, ValueError, "normals=-1"),
        ({"inputs": 3}, ValueError, "inputs=3: both are 0, 1 or 2"),
        ({"denoised": STATE.double()}, TypeError, "denoised is float64; it has to be float32"),
        ({"denoised": STATE[..., :1].expand(2, 3, 4, 4)}, ValueError, "writes denoised, whose"),
        ({"label": torch.zeros(1).expand(2)}, ValueError, "writes label, whose elements share memory"),
        ({"row": torch.zeros(1, dtype=torch.int32).expand(2)}, ValueError, "writes row, whose elements"),
        ({"mask": STATE.to("meta"), "known": STATE}, ValueError, "lie on one device, got"),
        ({"denoised": torch.zeros(2, 3, 4, 5)}, ValueError, "denoised has shape"),
    ],
)  # fmt: skip
def test_wrong_arguments(fields, error, message):
    with pytest.raises(error, match=message):
        args(**fields)


def test_objections_are_sentences():
    double = args(slots=torch.zeros(1, 2, 3, 4, 4).double(), table=args().table._replace(
        coef=torch.zeros(1, at.COEF).double()))  # fmt: skip
    with pytest.raises(
        ValueError, match=r"backend='cpp' cannot run step. cpp: .*float32 slots; got float64"
    ):
        resolve("step", "cpp", double)
    assert resolve("step", "auto", double) is not None  # the reference takes it
    scattered = torch.zeros(1, 2, 3, 4, 8)[..., ::2].transpose(3, 4)
    assert "no single stride" in objection("step", "cpp", args(slots=scattered))
    assert "there is no such implementation" in objection("step", "metal", args())
    assert dict(explain("step", "cpu")) == {"cpp": None, "torch": None}
