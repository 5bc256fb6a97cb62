"""Checkpoints of google-research/vdm, against its own code (golden/make_vdm.py) and its sampler."""

import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from vdm_cases import given, weights

from diffusion_engine import Sampler
from diffusion_engine.adapters.checkpoint import open_checkpoint
from diffusion_engine.adapters.vdm import from_vdm

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "vdm.json").read_text())


def folder(path, shapes=GOLDEN["shapes"], prefix="", **config):
    """A checkpoint with the names and layouts of flax's tree."""
    path.mkdir()
    tensors = {prefix + name: torch.from_numpy(array) for name, array in weights(shapes).items()}
    save_file(tensors, path / "model.safetensors")
    (path / "config.json").write_text(json.dumps(GOLDEN["config"] | {"format": "vdm"} | config))
    return path


def test_outputs_are_those_of_its_own_code(tmp_path):
    network = open_checkpoint(folder(tmp_path / "net"))
    assert (network.shape, network.name) == ((3, 4, 4), "net")
    z, t, conditioning = given()
    gamma = -2.0 * network.process.lam(t.astype("float64"))
    assert gamma == pytest.approx(GOLDEN["gamma"], rel=1e-6)
    x, label = torch.from_numpy(z).permute(0, 3, 1, 2), torch.tensor(GOLDEN["gamma"])
    with torch.no_grad():
        (eps,) = network(x, label, torch.from_numpy(conditioning))
        (other,) = network(x, label, None)
    want = torch.tensor(GOLDEN["eps"]).view(2, 4, 4, 3).permute(0, 3, 1, 2)
    assert torch.allclose(eps, want, rtol=0, atol=1e-5 * float(want.abs().max()))
    # Without a number the network is told 0, as the first entry is.
    assert torch.allclose(other[0], want[0], rtol=0, atol=1e-5 * float(want.abs().max()))
    assert not torch.allclose(other[1], want[1], atol=1e-2)


def gamma_in_float64(t):
    """l1(t) + l3(2 sigmoid(l2(2 (t - 0.5))) - 1) / 1024 of the weights' absolute values."""
    made = {name: torch.from_numpy(w).double() for name, w in weights(GOLDEN["shapes"]).items()}
    kernel = {name: made[f"gamma/{name}/kernel"].abs() for name in ("l1", "l2", "l3")}
    line = t * kernel["l1"] + made["gamma/l1/bias"]
    hidden = 2.0 * (t - 0.5) * kernel["l2"] + made["gamma/l2/bias"]
    return float(line + (2.0 * hidden.sigmoid() - 1.0) @ kernel["l3"] / 1024)


@pytest.mark.parametrize("gamma_type", ["learnable_nnet", "fixed", "learnable_scalar"])
def test_samples_are_those_of_its_sampler(tmp_path, gamma_type):
    """A loop in float64: z_s = sqrt(a_s / a_t) (z - sigma_t c eps) + sqrt((1 - a_s) c) z', and no clip."""
    shapes = {n: s for n, s in GOLDEN["shapes"].items() if not n.startswith("gamma")}
    if gamma_type == "learnable_nnet":
        shapes, gamma = dict(GOLDEN["shapes"]), gamma_in_float64
    elif gamma_type == "fixed":
        gamma = lambda t: -13.3 + 18.3 * t  # noqa: E731
    else:
        shapes = shapes | {"gamma/w": [1], "gamma/b": [1]}
        w, b = (float(weights(shapes)[f"gamma/{name}"][0]) for name in "wb")
        gamma = lambda t: b + abs(w) * t  # noqa: E731
    # Without Fourier features, whose frequencies of 128 x 2 pi blow rounding up from step to step.
    shapes["score_model/conv_in/kernel"] = [3, 3, 3, 64]
    path = folder(tmp_path / "net", shapes, gamma_type=gamma_type, with_fourier_features=False)
    network, steps = from_vdm(path), 5
    numbers = torch.Generator().manual_seed(3)
    start = torch.randn(2, 3, 4, 4, generator=numbers)
    noise = torch.randn(steps, 2, 3, 4, 4, generator=numbers)
    got = Sampler(network, "vdm", steps, end="t_min").sample(
        2, x=start, noised=True, noise=lambda row, m, seeds: noise[row - 1]
    )
    module, z = from_vdm(path).module.double(), start.double()
    for i in range(steps):
        g_t, g_s = gamma(1.0 - i / steps), gamma(1.0 - (i + 1) / steps)
        with torch.no_grad():
            eps = module(z, torch.full((2,), g_t, dtype=torch.float64))
        a_t, a_s, c = 1 / (1 + math.exp(g_t)), 1 / (1 + math.exp(g_s)), -math.expm1(g_s - g_t)
        z = math.sqrt(a_s / a_t) * (z - math.sqrt(1 - a_t) * c * eps)
        z = z + math.sqrt((1 - a_s) * c) * noise[i]
    assert torch.allclose(got.samples.double(), z, rtol=0, atol=1e-4 * float(z.abs().max()))


def test_a_tree_under_params_is_read(tmp_path):
    """As model.init returns it."""
    made = from_vdm(folder(tmp_path / "net", prefix="params/")).module.state_dict()
    want = from_vdm(folder(tmp_path / "other")).module.state_dict()
    assert all(torch.equal(made[name], want[name]) for name in want)


CHANGES = {
    "another width": ({"sm_n_embd": 96}, "tensors of another shape: dense0.weight"),
    "a width of no groups": ({"sm_n_embd": 48}, "sm_n_embd=48: its norms have 32 groups"),
    "more layers": ({"sm_n_layer": 2}, "lacks .* of the tensors of the network's .*: down.block_1"),
    "no attention": ({"with_attention": False}, "has .* besides: down.attn_0"),
    "no features": ({"with_fourier_features": False}, r"conv_in.weight \[64, 15, 3, 3\]"),
    "another schedule": ({"gamma_type": "learnable_scalar"}, r"'learnable_scalar' needs \['b', 'w'\]"),
    "a fixed one": ({"gamma_type": "fixed"}, "gamma_type 'fixed' needs"),
    "an unknown one": ({"gamma_type": "cosine"}, "gamma_type='cosine': choose fixed"),
    "a range that falls": ({"gamma_max": -20.0}, "gamma_max=-20.0: give a number from -13.3"),
    "another field": ({"sm_kernel_init": "jax.nn"}, "has the unknown 'sm_kernel_init'"),
    "no size": ({"image_size": None}, "image_size=None: give a whole number"),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_what_does_not_go_together_is_refused(tmp_path, name):
    change, said = CHANGES[name]
    with pytest.raises(ValueError, match=said):
        from_vdm(folder(tmp_path / "net", **change))


def test_tensors_of_neither_part_are_refused(tmp_path):
    shapes = GOLDEN["shapes"] | {"encdec/w": [1]}
    with pytest.raises(ValueError, match=r"of neither score_model nor gamma: encdec\.w"):
        from_vdm(folder(tmp_path / "net", shapes))


@pytest.mark.parametrize(
    ("name", "said"),
    [("kernel", "1 tensors besides, of one place twice"), ("a/kernel", "besides: a.weight")],
)
def test_a_tensor_more_is_refused(tmp_path, name, said):
    """Of a second name for the weight of a norm, or of a kernel without axes."""
    norm = next(n for n in GOLDEN["shapes"] if n.endswith("/scale")).removesuffix("scale")
    name = norm + name if name == "kernel" else f"score_model/{name}"
    with pytest.raises(ValueError, match=said):
        from_vdm(folder(tmp_path / "net", GOLDEN["shapes"] | {name: [4]}))
