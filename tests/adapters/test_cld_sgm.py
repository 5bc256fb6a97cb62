"""CLD-SGM: its network from a folder, against its published samplers; what its conventions trip over."""

import json
import re

import numpy as np
import pytest
import torch
from ncsnpp_cases import REFERENCE, called, save_network
from oracles import cld_sgm as published

from diffusion_engine import Sampler
from diffusion_engine.adapters import cld_sgm as reader
from diffusion_engine.adapters.cld_sgm import cld_sgm_network, from_cld_sgm

CONFIG = {
    "format": "cld_sgm", "name": "ncsnpp", "sde": "cld", "image_size": 4, "image_channels": 1,
    "n_channels": 8, "ch_mult": "1,2", "n_resblocks": 1, "attn_resolutions": "2", "use_fir": True,
    "fir_kernel": "1,3,3,1", "progressive_input": "residual", "embedding_type": "fourier",
    "m_inv": 4.0, "gamma": 0.04, "beta0": 4.0, "beta1": 0.0, "numerical_eps": 1e-9, "mixed_score": True,
    "cld_objective": "hsm", "beta_type": "linear", "ema_rate": 0.9999, "center_image": True,
}  # fmt: skip
POST_PAPER = {"beta0": 0.1, "beta1": 6.9, "numerical_eps": 1e-6, "embedding_type": "positional"}


def saved(folder, **changed):
    config = CONFIG | changed
    return save_network(folder, config, reader._read(config, "it")[0])


def drawn(h, shape=(2, 1, 4, 4)):
    """Normals of x and of v in row h, of which runs take float32."""
    return np.random.default_rng(h).normal(size=(2, *shape)).astype(np.float32).astype(float)


SSCS = {"published": True, "merged": False}


@pytest.mark.parametrize(
    "name, options, striding, changed",
    [
        ("em", {}, "quadratic", {}),
        ("em", {}, "linear", POST_PAPER | {"mixed_score": False}),
        ("splitting", SSCS, "quadratic", POST_PAPER | {"mixed_score": False}),
        ("splitting", SSCS, "linear", {}),
    ],
)
def test_the_published_sampler(name, options, striding, changed, tmp_path):
    network = from_cld_sgm(saved(tmp_path / "net", **changed), label_dtype=torch.float64)
    sde = published.CLDSDE(
        **{k: CONFIG[k] for k in ("m_inv", "gamma", "beta0", "beta1", "numerical_eps")}
        | {k: v for k, v in changed.items() if k.startswith(("beta", "numerical"))},
        mixed=changed.get("mixed_score", True),
    )
    start, n = drawn(99).transpose(1, 0, 2, 3, 4).reshape(2, 2, 4, 4), 5  # [x, v] on the channels
    grid = {"grid": "quadratic_striding"} if striding == "quadratic" else {"grid": "uniform"}
    if striding == "linear":
        grid = {"times": [*(1.0 - published.taus(n - 1, 1e-3, "linear")), 0.0]}
    sampler = Sampler(
        network, "cld_em" if name == "em" else "sscs", None if "times" in grid else n,
        **REFERENCE, **options, **grid,
    )  # fmt: skip
    ours = sampler.sample(
        x=torch.from_numpy(start), noised=True,
        noise=lambda row, m, seeds: torch.from_numpy(drawn(row)[m]),
    )  # fmt: skip
    noise = (lambda i: drawn(i + 1)[0]) if name == "em" else drawn
    model = called(network.module)
    theirs = getattr(published, name)(sde, model, start, n, noise, striding=striding)
    assert ours.samples.numpy() == pytest.approx(theirs, rel=1e-8, abs=1e-8)
    assert ours.nfe == n - 1  # whose last call, of the denoising, moves v alone


def test_what_the_score_is_made_of():
    """-v / Svv + ell o in magnitude, with numerical_eps and gamma M = 0.01 in them: its smallest times."""
    network = cld_sgm_network(lambda u, t: u, (1, 2, 2))
    process, rule = network.process, network.parameterisation.rule
    assert (process.mass, process.friction, process.t_min) == (0.25, 1.0, 1e-3)
    for t, ell in ((1e-5, 11.1634), (1e-4, 39.2127), (1e-3, 19.9185)):  # 193.7 at 1e-5 without it
        base, weight = rule.score(process, t)
        assert -weight == pytest.approx(ell, rel=1e-5)
        assert base == pytest.approx(-1.0 / published.CLDSDE().variances(t)[2], rel=1e-7)
    plain = cld_sgm_network(lambda u, t: u, (1, 2, 2), mixed_score=False).parameterisation.rule
    assert plain.score(process, 0.5)[0] == 0.0


def test_x_comes_before_v_and_the_time_is_the_time_itself():
    seen = []

    def module(u, t):
        seen.append((u.clone(), t.clone()))
        return 0.0 * u[:, :1]

    state = torch.cat((torch.ones(1, 1, 2, 2), 2.0 * torch.ones(1, 1, 2, 2)), dim=1)
    sampler = Sampler(cld_sgm_network(module, (1, 2, 2)), "cld_em", 4)
    sampler.sample(x=state, noised=True)
    assert torch.equal(seen[0][0], state)
    assert [float(t) for _, t in seen] == pytest.approx([1.0, 0.445, 0.112], abs=1e-3)


def test_vp_networks_of_the_repository():
    """score = -x - o / sigma: with o = 0 that is N(0, I), whose run stays N(0, I)."""
    network = cld_sgm_network(lambda x, t: 0.0 * x, (1, 2, 2), "vpsde", beta0=0.1, beta1=19.9)
    at = network.process.at(0.5)
    (p,), q = network.parameterisation.weights(at)
    assert (p, q) == pytest.approx((at.alpha, -at.sigma / at.alpha))
    x = torch.randn(2, 1, 2, 2)
    made = Sampler(network, "heun", 30, end="t_min").sample(x=x, noised=True).samples
    assert made.numpy() == pytest.approx(x.numpy(), rel=0.03)
    with pytest.raises(ValueError, match="sde='vesde': choose cld, vpsde"):
        cld_sgm_network(lambda x, t: x, (1, 2, 2), "vesde")


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"cld_objective": "dsm"}, "cld_objective='dsm': choose hsm"),
        ({"center_image": False}, "center_image=False: choose True"),
        ({"ch_mult": "1,b"}, "ch_mult='1,b': give a list"),
        ({"image_channels": 2}, "tensors of another shape: all_modules.3.weight [8, 2, 3, 3]"),
        ({"mixed_scores": True}, "unknown 'mixed_scores'; did you mean mixed_score?"),
    ],
)
def test_refusals(changed, message, tmp_path):
    path = saved(tmp_path / "net") / "config.json"
    path.write_text(json.dumps(CONFIG | changed))
    with pytest.raises(ValueError, match=re.escape(message)):
        from_cld_sgm(path.parent)


def test_averages_have_no_frequencies():
    names = reader.parameter_names(CONFIG)
    assert names[0] == "all_modules.1.weight" and "all_modules.0.W" not in names
