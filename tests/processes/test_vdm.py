"""VDM: the learned schedule, the sampler, and the decoding of its last latent."""

import numpy as np
import pytest
import torch
from analytic import network, propagated
from oracles.problems import TG, TM
from safetensors.torch import load_file, save_file

from diffusion_engine import Sampler, ScoreNetwork
from diffusion_engine.adapters.vdm import MonotoneGamma, decode
from diffusion_engine.drivers.likelihood_bound import log_likelihood
from diffusion_engine.processes import VDM, VP, grids


def learned():
    torch.manual_seed(0)
    return VDM.from_module(MonotoneGamma(hidden=64))


@pytest.mark.parametrize("process", [VDM(), VDM.linear(-10.0, 6.0), learned()])
def test_process(process):
    t = np.linspace(0.0, 1.0, 200)
    lam = process.lam(t)
    assert np.all(np.diff(lam) < 0)
    assert process.alpha(t) ** 2 + process.sigma(t) ** 2 == pytest.approx(1.0, rel=1e-14)
    assert process.t_of_lam(lam) == pytest.approx(t, abs=1e-12)
    assert np.log(process.alpha(t) / process.sigma(t)) == pytest.approx(lam, abs=1e-9)


def test_the_network_of_gamma_is_evaluated_in_float64_as_it_was():
    module = MonotoneGamma(hidden=64)
    process = VDM.from_module(module)
    before = float(process.lam(0.3))
    t = torch.tensor([0.3], dtype=torch.float64)
    exact = MonotoneGamma(hidden=64).double()
    exact.load_state_dict({k: v.double() for k, v in module.state_dict().items()})
    assert before == pytest.approx(-0.5 * exact(t).item(), rel=1e-14)
    with torch.no_grad():
        module.l1.bias.add_(1.0)
    assert process.lam(0.3) == before
    assert module.l1.weight.dtype == torch.float32


def test_a_network_of_gamma_takes_columns_of_times():
    module = torch.nn.Sequential(torch.nn.Linear(1, 8), torch.nn.Linear(8, 1))
    with torch.no_grad():
        for p in module.parameters():
            p.abs_()
    t = np.linspace(0.0, 1.0, 5)
    want = module.double()(torch.from_numpy(t)[:, None])[:, 0].detach().numpy()
    assert -2.0 * VDM.from_module(module).lam(t) == pytest.approx(want, rel=1e-13)
    with pytest.raises(
        ValueError, match=r"Linear made \[33, 2\] of 33 times \[33, 1\]; gamma is one value"
    ):
        VDM.from_module(torch.nn.Linear(1, 2))


def test_the_monotone_network():
    """l1(t) + l3(2 sigmoid(l2(2 (t - 0.5))) - 1) / 1024, with the weights' absolute values."""
    torch.manual_seed(3)
    module = MonotoneGamma().double()
    torch.nn.init.normal_(module.l1.weight)
    w1, b1, w2, b2, w3 = (p.detach().numpy() for p in (
        module.l1.weight, module.l1.bias, module.l2.weight, module.l2.bias, module.l3.weight))  # fmt: skip
    t = np.linspace(0.0, 1.0, 7)
    hidden = np.abs(w2[:, 0]) * (2.0 * (t[:, None] - 0.5)) + b2
    bent = (2.0 / (1.0 + np.exp(-hidden)) - 1.0) @ np.abs(w3[0]) / 1024.0
    want = np.abs(w1[0, 0]) * t + b1[0] + bent
    assert -2.0 * VDM.from_module(module).lam(t) == pytest.approx(want, rel=1e-12)


def test_a_learned_gamma_in_a_file(tmp_path):
    """Saved and loaded without pickle; the sign of a weight does not matter."""
    torch.manual_seed(0)
    module, again = MonotoneGamma(hidden=64), MonotoneGamma(hidden=64)
    save_file(module.state_dict(), tmp_path / "gamma.safetensors")
    again.load_state_dict(load_file(tmp_path / "gamma.safetensors"))
    t = np.linspace(0.0, 1.0, 50)
    want = VDM.from_module(module).lam(t)
    assert np.array_equal(VDM.from_module(again).lam(t), want)
    with torch.no_grad():
        for layer in (again.l1, again.l2, again.l3):
            layer.weight.neg_()
    assert np.array_equal(VDM.from_module(again).lam(t), want)


@pytest.mark.parametrize("process", [VDM(), learned()], ids=["linear", "learned"])
def test_float32_on_cpp(process):
    normals = torch.randn(31, 1, 16, 1, generator=torch.Generator().manual_seed(1))
    exact, ours = (
        Sampler(network(TM, process), "vdm", 30, dtype=dtype, backend=backend)
        .sample(16, noise=normals)
        .samples.double()
        for dtype, backend in ((torch.float64, "torch"), (torch.float32, "cpp"))
    )
    assert torch.allclose(exact, ours, rtol=0, atol=2e-3)


@pytest.mark.parametrize("process", [VDM(), learned(), VP()], ids=["linear", "learned", "VP"])
@pytest.mark.parametrize("end", ["zero", "t_min"])
def test_is_ddim_with_eta_1(process, end):
    options = {"dtype": torch.float64, "end": end, "grid": "uniform"}
    net = network(TM, process)
    ours = Sampler(net, "vdm", 12, **options).sample(6).samples
    ddim = Sampler(net, "ddim", 12, eta=1.0, **options).sample(6).samples
    assert torch.allclose(ours, ddim, rtol=1e-10, atol=1e-10)


def test_published_run_on_gaussian_data():
    sampler = Sampler(network(TG, VDM()), "vdm", 1000, end="t_min")
    plan = sampler.plan()
    assert [row.call.at.t for row in plan.rows[1:]] == pytest.approx(1.0 - np.arange(1000) / 1000)
    # The small variance is a little too small.
    assert propagated(sampler) == pytest.approx((0.3, 0.25), abs=3e-3)


def test_label_is_gamma():
    net = ScoreNetwork(lambda z, gamma: 0.5 * z, VDM(), (1,), label="gamma")
    assert net.parameterisation.label_of(VDM().at(0.25)) == pytest.approx(
        -13.3 + 18.3 * 0.25, rel=1e-12
    )
    made = Sampler(net, "vdm", 5, end="t_min", backend="cpp").sample(4)
    assert torch.isfinite(made.samples).all()
    assert made.recipe["points"][0][0] == 1.0


def test_decode():
    process = VDM()
    at = process.at(0.0)
    k = torch.arange(256)
    values = (2.0 * (k + 0.5)) / 256.0 - 1.0
    assert torch.equal(decode(at.alpha * values.double(), process), k.to(torch.uint8))
    x = torch.tensor([-3.0, -0.3001, 0.7777, 3.0], dtype=torch.float64)
    log = log_likelihood(x, process)
    assert torch.equal(log.argmax(-1).to(torch.uint8), decode(x, process))
    assert torch.allclose(log.exp().sum(-1), torch.ones(4, dtype=torch.float64))


@pytest.mark.parametrize(
    "gamma", [lambda t: -t, lambda t: 0.0 * t, lambda t: np.where(t < 0.5, t, np.nan)]
)
def test_a_gamma_that_does_not_rise(gamma):
    with pytest.raises(ValueError, match="it has to rise strictly"):
        VDM(gamma=gamma)


def test_bad_input():
    with pytest.raises(ValueError, match="levels=300"):
        decode(torch.zeros(1), VDM(), 300)
    assert grids.points(VDM(), 3)[-1].sigma == 0.0
