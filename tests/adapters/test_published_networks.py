"""Networks written here against what their repositories' own code made of the same files."""

import pytest
import torch
from checkpoint_cases import CASES, folder, golden, images, shown, tensors, told
from safetensors.torch import save_file

from diffusion_engine.adapters.checkpoint import open_checkpoint
from diffusion_engine.adapters.guided_diffusion import classifier_of


def denoised(network, x, sigmas, classes):
    """D(sigma x, sigma), by what the network's parameterisation says of its module."""
    about = network.parameterisation
    at = [network.process.at_ratio(float(sigma)) for sigma in sigmas]
    noisy = torch.stack([p.sigma * image for p, image in zip(at, x.double(), strict=True)])

    def column(values):
        return torch.tensor(values, dtype=torch.float64)[:, None, None, None]

    labels = torch.tensor([about.label_of(p) for p in at], dtype=network.label_dtype)
    out = network.module((column([about.c_in(p) for p in at]) * noisy).float(), labels, classes)
    weights = [about.weights(p) for p in at]
    p, q = column([p[0] for p, _ in weights]), column([q for _, q in weights])
    return p * noisy + q * out[:, : x.shape[1]].double()


@pytest.mark.parametrize("name", CASES)
def test_outputs_are_the_repository_s(name, tmp_path):
    kind, config = CASES[name]
    x = images(config.get("img_channels", 3))
    labels, classes = told(kind, config)
    where = folder(tmp_path / "it", name)
    with torch.no_grad():
        if kind == "guided_diffusion_classifier":
            out = classifier_of(where)(x, labels)
        else:
            network = open_checkpoint(where)
            assert network.shape == x.shape[1:]
            if kind in ("edm", "edm2"):
                out = denoised(network, x, labels, classes)
            else:
                out = network.module(x, labels, classes)
    got, want = torch.tensor(shown(out)), torch.tensor(golden(name)["outputs"])
    assert float((got - want).abs().max()) < 2e-5 * float(want.abs().max())


@pytest.mark.parametrize("name", ["edm adm", "edm2", "guided", "consistency"])
def test_a_tensor_less_or_more_is_refused(name, tmp_path):
    where = folder(tmp_path / "it", name)
    own = tensors(name)
    first = next(key for key in own if key.endswith("weight"))
    for changed in (
        {k: v for k, v in own.items() if k != first},
        own | {"more": torch.zeros(1)},
        own | {first: own[first][..., :1]},
        own | {first: torch.full_like(own[first], torch.nan)},
    ):
        save_file({k: v.contiguous() for k, v in changed.items()}, where / "model.safetensors")
        with pytest.raises(ValueError, match=r"more|" + first.replace(".", r"\.")):
            open_checkpoint(where)


@pytest.mark.parametrize("name", ["edm ve", "edm2 latents", "guided plain"])
def test_classes_that_a_network_has_not_are_refused(name, tmp_path):
    network = open_checkpoint(folder(tmp_path / "it", name))
    x = images(network.shape[0])
    with pytest.raises(ValueError, match="without classes"):
        network.module(x, torch.ones(2), torch.tensor([0, 1]))
