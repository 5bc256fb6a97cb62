"""Recipes that name what computed a network: replayed by it, or refused with what is missing."""

import pytest
import torch

from diffusion_engine import Sampler, ScoreNetwork, _cpu
from diffusion_engine.backends import machine
from diffusion_engine.processes import VP
from diffusion_engine.sampler import computed, recipe


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Conv2d(16, 16, 3, padding=1), torch.nn.SiLU(), torch.nn.Conv2d(16, 16, 1)
        )

    def forward(self, x, label):
        return self.layers(x)


@pytest.fixture
def network():
    torch.manual_seed(0)
    return ScoreNetwork(Net(), VP(), (16, 4, 4))


@pytest.fixture
def with_amx(monkeypatch):
    """A processor that has AMX, as far as anybody can tell."""
    monkeypatch.setattr(machine, "bf16", lambda: machine.Bf16("amx", 1.0, "it has AMX"))
    _cpu.set_bf16("emulated")


@pytest.mark.parametrize("own", [torch.float32, torch.bfloat16])
def test_bfloat16_that_is_recorded_is_replayed(network, with_amx, own, monkeypatch):
    network.module.to(own)
    how = {"executor": "native", "threads": 1, "dtype": "auto" if own == torch.float32 else None}
    sampler = Sampler(network, "ddim", 2, **how)
    assert (sampler.dtype, sampler.input_dtype) == (torch.bfloat16, torch.float32)
    made = sampler.sample(2, progress=False)
    assert made.recipe["dtype"] == "bfloat16"
    assert made.recipe["network_form"] == f"native/{_cpu.isa()}/emulated"
    again = Sampler.replay(network, made.recipe)
    assert torch.equal(again.samples, made.samples) and again.recipe == made.recipe
    plain = Sampler(network, "ddim", 2, dtype=torch.float32).sample(2, progress=False).samples
    assert 0 < (made.samples - plain).abs().max() < 0.1 * plain.abs().max()

    monkeypatch.setattr(machine, "bf16", lambda: machine.Bf16("", 5.0, "it has neither"))
    with pytest.raises(
        ValueError, match=r"computed by native/\w+/emulated, and it has neither; for"
    ):
        Sampler.replay(network, made.recipe)


def recipe_of(network, form, **more):
    made = Sampler(network, "ddim", 2).sample(1, progress=False).recipe
    return recipe.read(made | {"network_form": form} | more)


@pytest.mark.parametrize("name, extra", [("onnxruntime", "onnx"), ("openvino", "openvino")])
def test_a_runtime_that_is_not_installed_is_named_with_its_extra(network, monkeypatch, name, extra):
    monkeypatch.setattr("diffusion_engine.providers.provider.find_spec", lambda package: None)
    said = rf"computed by {name}/1.32.0/float32, and .*\[{extra}\]'; for samples that are nearly"
    with pytest.raises(ValueError, match=said):
        Sampler.replay(network, recipe_of(network, f"{name}/1.32.0/float32"))


def test_other_versions_and_threads_are_refused(network):
    form = "openvino/2026.4.1/float32"
    given = recipe_of(network, form, threads=2)
    computed.check_form(given, form)
    with pytest.raises(
        ValueError, match=r"by openvino/2025.0.0/float32 here, .* openvino==2026.4.1,"
    ):
        computed.check_form(given, "openvino/2025.0.0/float32")
    computed.check_threads(given, 2)
    with pytest.raises(ValueError, match="ran on 2 threads and runs on 1 thread"):
        computed.check_threads(given, 1)
    computed.check_threads(recipe_of(network, "native/avx512/amx", threads=2), 1)


@pytest.mark.parametrize("form", ["tensorrt/1/float32", "openvino/2026.4.1", "native/avx512/amx/2"])
def test_forms_that_no_recipe_has(network, form):
    with pytest.raises(ValueError, match="network_form"):
        recipe_of(network, form)
