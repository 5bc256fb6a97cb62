"""Networks of the NCSN++ family against what their repositories' own code made of the same weights."""

import ncsnpp_cases as cases
import pytest
import test_cld_sgm
import test_ddgan_checkpoint as test_ddgan
import test_genie_checkpoint as test_genie
import test_score_sde
import torch
from safetensors import safe_open

from diffusion_engine.adapters.cld_sgm import from_cld_sgm
from diffusion_engine.adapters.ddgan import from_ddgan
from diffusion_engine.adapters.genie import from_genie
from diffusion_engine.adapters.score_sde import from_score_sde
from diffusion_engine.networks.wrapper import unwrapped


def check(name, module, out):
    """Names as theirs; outputs equal but for the rounding of a few hundred sums in float32."""
    with safe_open(cases.GOLDEN, "pt") as file:
        want, keys = file.get_tensor(name), file.metadata()[name]
    assert cases.digest(module) == keys
    assert out.detach().numpy() == pytest.approx(want.numpy(), abs=1e-5 * float(want.abs().max()))


@pytest.mark.parametrize("name", test_score_sde.CONFIGS)
def test_score_sde_networks(name, tmp_path):
    module = unwrapped(from_score_sde(test_score_sde.saved(tmp_path, name)).module)
    labels = cases.labels(test_score_sde.config_of(name))
    check(f"score_sde {name}", module, module(cases.image(), labels))


def test_cld_sgm_network(tmp_path):
    module = from_cld_sgm(test_cld_sgm.saved(tmp_path)).module
    check("cld_sgm", module, module(cases.image(2), cases.labels(test_cld_sgm.CONFIG)))


@pytest.mark.parametrize("name, changed", [("ddgan", {}), ("ddgan one", test_ddgan.ONE)])
def test_ddgan_generators(name, changed, tmp_path):
    module = from_ddgan(test_ddgan.saved(tmp_path, **changed)).module
    labels = cases.labels(test_ddgan.CONFIG)
    check(name, module, module(cases.image(), labels, cases.latent()))


@pytest.mark.parametrize(
    "model, normalise",
    [*test_genie.CASES, (test_genie.UPSAMPLER, False)],
    ids=["cifar", "church", "cats", "upsampler"],
)
def test_genie_networks_and_heads(model, normalise, tmp_path):
    network = from_genie(test_genie.saved(tmp_path, model, normalise))
    told = cases.times().double() if model["name"] == "openai" else model["M"] * cases.times()
    shown = {"low": cases.small(), "level": cases.times()} if "cond_res" in model else {}
    out, heads = network.module(cases.image(), told, **shown)
    check(f"genie {model['name']}", network.module.unet, out)
    points = map(network.process.at, cases.times().tolist())
    weights = [network.parameterisation.slope_weights(at)[1:] for at in points]
    blocks = heads.unflatten(1, (3, 3))
    slope = (torch.tensor(weights)[:, :, None, None, None] * blocks).sum(dim=1)
    check(f"genie {model['name']} slope", network.module.head, slope)
