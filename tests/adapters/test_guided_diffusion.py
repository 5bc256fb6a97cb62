"""guided-diffusion's networks: its timesteps and tables, its samplers, and a classifier of its own."""

import pickle

import numpy as np
import pytest
import torch
from checkpoint_cases import folder, images, normals
from oracles.published_samplers import ddim_sample_loop, p_sample_loop, respaced_betas

from diffusion_engine import Sampler
from diffusion_engine.adapters.checkpoint import formats
from diffusion_engine.adapters.guided_diffusion import (
    from_guided_diffusion,
    guided_diffusion_network,
)
from diffusion_engine.adapters.guided_diffusion.noising import process_of, respaced

LINEAR = np.linspace(1e-4, 0.02, 1000)


def draws():
    """A noise function for the sampler, and its normals again, in float64."""
    made = []

    def draw(row, m, seeds):
        made.append(torch.from_numpy(normals(f"z{len(made)}", len(seeds), 3, 8, 8)).float())
        return made[-1]

    kept = iter(made)
    return draw, lambda: next(kept).double()


def model_of(network, factor=1.0, classes=None):
    """(eps, nu) at a timestep of the whole table."""

    def model(x, timestep):
        with torch.no_grad():
            told = torch.full((len(x),), float(timestep) * factor)
            out = network.module(x.float(), told, classes).double()
        return out[:, :3], out[:, 3:]

    return model


def near(got, want):
    return float((got - want).abs().max()) < 5e-5 * float(want.abs().max())


def test_ddpm_with_a_learned_range(tmp_path):
    network = from_guided_diffusion(folder(tmp_path / "it", "guided", timestep_respacing="5"))
    timesteps, classes, x = [0, 250, 500, 749, 999], torch.tensor([3, 999]), images(3)
    draw, again = draws()
    sampler = Sampler(network, "ddpm", 5, variance="learned_range", backend="torch")
    assert [p.t for p in sampler.points] == [999, 749, 500, 250, 0, -1]
    got = sampler.sample(x=x, noised=True, condition=classes, noise=draw).samples
    betas = respaced_betas(LINEAR, timesteps)
    model = model_of(network, classes=classes)
    assert near(got, p_sample_loop(model, x.double(), betas, timesteps, again, learned=True))


def test_ddpm_with_the_large_variance(tmp_path):
    where = folder(tmp_path / "it", "guided plain", diffusion_steps=100, rescale_timesteps=True)
    network = from_guided_diffusion(where)
    timesteps, x = [0, 33, 66, 99], images(3)
    draw, again = draws()
    sampler = Sampler(network, "ddpm", 4, variance="fixed_large", backend="torch")
    got = sampler.sample(x=x, noised=True, noise=draw).samples
    betas = respaced_betas(np.linspace(1e-3, 0.2, 100), timesteps)  # 1000 / 100 times larger
    model = model_of(network, factor=10.0)
    zero = lambda x, t: (model(x, t)[0], 0.0)  # noqa: E731
    assert near(got, p_sample_loop(zero, x.double(), betas, timesteps, again))


def test_ddim(tmp_path):
    where = folder(tmp_path / "it", "guided updown", timestep_respacing="ddim4")
    network = from_guided_diffusion(where)
    timesteps, x = [0, 250, 500, 750], images(3)
    betas = respaced_betas(LINEAR, timesteps)
    for eta in (0.0, 0.5):
        draw, again = draws()
        sampler = Sampler(network, "ddim", 4, eta=eta, backend="torch")
        got = sampler.sample(x=x, noised=True, noise=draw).samples
        model = model_of(network)
        assert near(got, ddim_sample_loop(model, x.double(), betas, timesteps, again, eta))


def test_ddim_guided_by_a_classifier(tmp_path):
    network = from_guided_diffusion(
        folder(tmp_path / "it", "guided updown"),
        classifier=folder(tmp_path / "classifier", "classifier"),
        clip=None,
    )
    timesteps, x, classes = [0, 333, 666, 999], images(3), torch.tensor([3, 999])
    plain, classifier = network.module.module, network.module.classifier
    bar = np.cumprod(1 - LINEAR)

    def model(x, timestep):
        told = torch.full((len(x),), float(timestep))
        leaf = x.float().requires_grad_()
        log_p = classifier(leaf, told).log_softmax(1)[[0, 1], classes].sum()
        (gradient,) = torch.autograd.grad(log_p, leaf)
        with torch.no_grad():
            eps = plain(x.float(), told)[:, :3].double()
        return eps - (1 - bar[timestep]) ** 0.5 * 4.0 * gradient.double(), None

    sampler = Sampler(network, "ddim", 4, classifier_scale=4.0, backend="torch")
    got = sampler.sample(x=x, noised=True, condition=classes).samples
    want = ddim_sample_loop(
        model, x.double(), respaced_betas(LINEAR, timesteps), timesteps, clip=False
    )
    assert near(got, want)
    bare = Sampler(network, "ddim", 4, classifier_scale=0.0, backend="torch")
    assert not near(got, bare.sample(x=x, noised=True, condition=classes).samples)


def test_tables_and_timesteps():
    assert np.allclose(process_of("linear", 1000).alpha_bar, np.cumprod(1 - LINEAR), rtol=1e-12)
    cosine = np.asarray(process_of("cosine", 50).alpha_bar)
    u = (np.arange(51) / 50 + 0.008) / 1.008
    direct = np.cos(u * np.pi / 2) ** 2
    assert np.allclose(cosine[:-1], (direct[1:] / direct[0])[:-1], rtol=1e-9)

    table = process_of("linear", 300)
    sections = respaced("10,15,20")(table, 45)[::-1]
    assert sections[:3] == [0, 11, 22] and sections[10] == 100 and sections[-1] == 299
    assert len(set(sections)) == 45
    assert respaced("ddim25")(process_of("linear", 1000), 25)[:2] == [960.0, 920.0]
    assert respaced("")(table, 2) == [299.0, 0.0]
    with pytest.raises(ValueError, match="ask for 45"):
        respaced("10,15,20")(table, 40)
    with pytest.raises(ValueError, match="no whole stride"):
        respaced("ddim25")(process_of("linear", 1000), 999)
    for text in ("ddim", "10,,5", "fast", "0", "ddim5,5", "-3"):
        with pytest.raises(ValueError, match="timestep_respacing="):
            respaced(text)


def test_a_module_of_its_convention(tmp_path):
    module = from_guided_diffusion(folder(tmp_path / "it", "guided")).module
    module.in_channels, module.image_size, module.out_channels, module.num_classes = 3, 8, 6, 1000
    network = guided_diffusion_network(module, diffusion_steps=100, rescale_timesteps=True)
    about = network.parameterisation
    assert (network.shape, network.classes, about.variance) == ((3, 8, 8), 1000, "learned_range")
    assert about.clip == (-1.0, 1.0) and network.null is None
    assert about.label_of(network.process.at(7.0)) == 70.0
    pickle.loads(pickle.dumps(about))
    with pytest.raises(ValueError, match="give condition="):
        Sampler(network, "ddim", 2).sample(1)
    with pytest.raises(ValueError, match="give shape="):
        guided_diffusion_network(lambda x, t: x)


def test_images_are_enlarged(tmp_path):
    from safetensors.torch import save_file

    where = folder(tmp_path / "it", "guided plain", image_size=None, large_size=8, small_size=4)
    plain = from_guided_diffusion(folder(tmp_path / "plain", "guided plain"))
    state = plain.module.state_dict()
    first = state["input_blocks.0.0.weight"]
    state["input_blocks.0.0.weight"] = torch.cat([first, torch.full_like(first, 0.1)], dim=1)
    save_file(state, where / "model.safetensors")
    network = from_guided_diffusion(where)
    small = torch.zeros(2, 3, 4, 4)
    ours, own = Sampler(network, "ddim", 2), Sampler(plain, "ddim", 2)
    same = ours.sample(2, condition={"low_res": small}).samples
    assert torch.allclose(same, own.sample(2).samples, atol=1e-5)  # zeros add nothing
    other = ours.sample(2, condition={"low_res": small + 1.0}).samples
    assert not torch.allclose(same, other, atol=1e-2)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"attention_resolutions": "16;8"}, "whole numbers with commas"),
        ({"channel_mult": ""}, "say channel_mult"),
        ({"num_channels": 48}, "32 groups"),
        ({"noise_schedule": "sqrt"}, "choose linear, cosine"),
        ({"num_head_channels": 0}, "are -1, or above 0"),
        ({"learn_sigmas": True}, "did you mean learn_sigma"),
        ({"learn_sigma": False}, "another shape"),
    ],
)
def test_refusals(said, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        from_guided_diffusion(folder(tmp_path / "it", "guided", **said))


def test_a_classifier_is_checked_when_it_is_converted(tmp_path):
    where = folder(tmp_path / "it", "classifier")
    formats.check(where)
    with pytest.raises(ValueError, match="known are"):  # it is no network to sample
        formats.open_checkpoint(where)
    with pytest.raises(ValueError, match="choose adaptive, attention"):
        formats.check(folder(tmp_path / "other", "classifier", classifier_pool="max"))
