"""EDM's and EDM2's networks: how they are told, and their published sampler."""

import pickle

import pytest
import torch
from checkpoint_cases import CASES, folder, images, normals, tensors
from oracles.published_samplers import edm_sampler, karras_levels
from safetensors.torch import save_file
from torch import nn

from diffusion_engine import Sampler
from diffusion_engine.adapters.edm import edm_network, from_edm
from diffusion_engine.adapters.edm2 import from_edm2
from diffusion_engine.processes import EDM

STEPS = 4
CHURN = {"churn": 2.0, "low": 0.05, "high": 50.0, "s_noise": 1.003}
OURS = {"s_churn": 2.0, "s_tmin": 0.05, "s_tmax": 50.0, "s_noise": 1.003}


class Drawn:
    """Normals in the order in which a run asks for them, and again in that order."""

    def __init__(self):
        self.made = []

    def __call__(self, row, m, seeds):
        name = f"z{len(self.made)}"
        self.made.append(torch.from_numpy(normals(name, len(seeds), 3, 8, 8)).float())
        return self.made[-1]

    def again(self):
        kept = iter(self.made)
        return lambda: next(kept).double()


def d_of(network, kind, classes, config):
    """D(x, sigma) in float64 by table 1 of Karras et al. 2022, around the inner network."""
    sd = config.get("sigma_data", 0.5)

    def denoise(x, sigma):
        g = torch.tensor(float(sigma), dtype=torch.float64)
        c_skip, c_out, c_in, c_noise = {
            "EDMPrecond": lambda: (
                sd**2 / (g**2 + sd**2), g * sd / (g**2 + sd**2).sqrt(), 1 / (g**2 + sd**2).sqrt(),
                g.log() / 4,
            ),
            "VPPrecond": lambda: (
                1.0, -g, 1 / (g**2 + 1).sqrt(), 999 * ((0.01 + 39.8 * (1 + g**2).log()).sqrt() - 0.1) / 19.9
            ),
            "VEPrecond": lambda: (1.0, g, 1.0, (g / 2).log()),
            "iDDPMPrecond": lambda: (
                1.0, -g, 1 / (g**2 + 1).sqrt(),
                float(config["M"] - 1 - (tensors("edm iddpm")["u"].double() - g).abs().argmin()),
            ),
        }[kind]()  # fmt: skip
        label = torch.full((len(x),), float(c_noise))
        with torch.no_grad():
            out = network.module((c_in * x).float(), label, classes)
        return c_skip * x + c_out * out[:, : x.shape[1]].double()

    return denoise


@pytest.mark.parametrize("name", ["edm adm", "edm ve", "edm vp", "edm iddpm", "edm2"])
def test_algorithm_2(name, tmp_path):
    fmt, config = CASES[name]
    network = {"edm": from_edm, "edm2": from_edm2}[fmt](folder(tmp_path / "it", name))
    kind = config.get("class_name", "EDMPrecond")
    count = config.get("label_dim")
    classes = torch.tensor([1, 4]) if count else None
    low = {"VEPrecond": 0.02}.get(kind, 0.002)
    rounded = float
    if kind == "iDDPMPrecond":
        u = tensors(name)["u"].double()
        low = float(u[-2])
        rounded = lambda s: float(u[(u - s).abs().argmin()])  # noqa: E731
    levels = karras_levels(STEPS, low=low)
    x = rounded(levels[0]) * images(3)
    given = {} if classes is None else {"condition": classes}
    for churn, ours in (({}, {}), (CHURN, OURS)):
        drawn = Drawn()
        sampler = Sampler(network, "heun", STEPS, backend="torch", **ours)
        got = sampler.sample(x=x, noised=True, noise=drawn, **given).samples
        denoise = d_of(network, kind, classes, config)
        want = edm_sampler(denoise, x, levels, drawn.again(), **churn, rounded=rounded)
        assert bool(drawn.made) == bool(churn)
        assert float((got - want).abs().max()) < 2e-5 * float(want.abs().max())


def test_guidance_by_the_class_that_is_none(tmp_path):
    network = from_edm(folder(tmp_path / "it", "edm adm"))
    classes = torch.tensor([1, 4])
    x = 80.0 * images(3)
    got = Sampler(network, "heun", STEPS, guidance=2.0, backend="torch")
    got = got.sample(x=x, noised=True, condition=classes).samples
    config = CASES["edm adm"][1]
    told, none = (d_of(network, "EDMPrecond", c, config) for c in (classes, torch.tensor([5, 5])))

    def guided(x, sigma):
        return none(x, sigma) + 2.0 * (told(x, sigma) - none(x, sigma))

    want = edm_sampler(guided, x, karras_levels(STEPS))
    assert float((got - want).abs().max()) < 2e-5 * float(want.abs().max())
    # Without classes the network is told none of them, as by EDM's class_labels=None.
    bare = Sampler(network, "heun", 2, backend="torch").sample(x=x, noised=True).samples
    zeros = Sampler(network, "heun", 2, backend="torch").sample(x=x, noised=True, condition=[5, 5])
    assert torch.equal(bare, zeros.samples)


class Net(nn.Module):
    """EDM's convention; D = x / (1 + sigma^2) + the class."""

    img_channels, img_resolution, label_dim, sigma_min, sigma_max = 2, 4, 3, 0.01, 50.0

    def __init__(self):
        super().__init__()
        self.told = []

    def forward(self, x, sigma, class_labels=None):
        self.told.append((sigma, class_labels))
        assert x.dtype == sigma.dtype == torch.float32
        zero = torch.zeros(len(x), 3) if class_labels is None else class_labels
        added = (zero * torch.arange(1.0, 4.0)).sum(1)
        return (x / (1 + sigma.view(-1, 1, 1, 1) ** 2)) + added.view(-1, 1, 1, 1)


class Rounding(Net):
    """It knows every half of a level alone."""

    def round_sigma(self, sigma):
        return (torch.as_tensor(sigma) * 2).round().clamp(min=1) / 2


def test_a_module_is_read_and_told_one_hot_classes():
    net = Net()
    network = edm_network(net)
    assert network.shape == (2, 4, 4) and network.classes == network.null == 3
    assert network.process == EDM(t_min=0.01, t_max=50.0)  # within the sampler's 0.002 to 80
    Sampler(network, "heun", 2, guidance=1.5).sample(2, condition=[0, 2])
    _, told = net.told[0]
    assert told.dtype == torch.float32
    rows = {tuple(row) for row in told.tolist()}
    assert rows == {(1.0, 0.0, 0.0), (0.0, 0.0, 1.0), (0.0, 0.0, 0.0)}
    assert all(sigma.dtype == torch.float32 for sigma, _ in net.told)

    other = edm_network(lambda x, sigma, labels: x, shape=(1, 2, 2))
    assert other.classes is None and other.process == EDM()
    with pytest.raises(ValueError, match="give shape="):
        edm_network(lambda x, sigma, labels: x)


def test_levels_are_the_module_s_own():
    net = Rounding()
    network = edm_network(net)
    points = Sampler(network, "heun", 6).points
    assert [p.sigma for p in points] == [50.0, 17.5, 5.0, 1.0, 0.5, 0.0]  # one was there twice
    Sampler(network, "heun", 6, s_churn=1.0).sample(1, condition=[0])
    told = torch.cat([sigma for sigma, _ in net.told])
    assert torch.equal(told, net.round_sigma(told))
    pickle.loads(pickle.dumps(edm_network(Net()).parameterisation))


def test_angles_keep_their_precision(tmp_path):
    for network, name in (
        (from_edm(folder(tmp_path / "ve", "edm ve")), "model.map_noise.freqs"),
        (from_edm2(folder(tmp_path / "two", "edm2")), "unet.emb_fourier.freqs"),
    ):
        kept = network.module.state_dict()[name].clone()
        half = network.module.bfloat16()
        assert torch.equal(half.state_dict()[name], kept)
        with torch.no_grad():
            out = half(images(3).bfloat16(), torch.tensor([0.1, 1.0]), None)
        assert out.dtype == torch.bfloat16 and bool(out.isfinite().all())


def test_edm2_weights_are_normalised_once(tmp_path):
    """Scaling a checkpoint's weights changes nothing, as its layers divide by their magnitude."""
    where = folder(tmp_path / "it", "edm2")
    plain = from_edm2(where)
    doubled = {k: v * 2e3 if k.endswith("weight") else v for k, v in tensors("edm2").items()}
    save_file(doubled, where / "model.safetensors")
    scaled = from_edm2(where)
    for name, tensor in plain.module.state_dict().items():
        assert torch.allclose(scaled.module.state_dict()[name], tensor, rtol=5e-3, atol=1e-6)
    row = plain.module.unet.out_conv.weight[0].detach().double()
    assert float(row.square().sum()) == pytest.approx(1.0, rel=5e-3)
    assert plain.module.logvar(torch.tensor([-0.3, 0.4])).shape == (2,)


@pytest.mark.parametrize(
    ("name", "said", "message"),
    [
        ("edm adm", {"class_name": "EDM"}, "choose EDMPrecond, VPPrecond"),
        ("edm adm", {"channel_mult": [1, 1, 1, 1, 1]}, "multiple of 16"),
        ("edm adm", {"img_channels": None}, "lacks 'img_channels'"),
        ("edm adm", {"sigma_date": 0.5}, "did you mean sigma_data"),
        ("edm adm", {"model_type": "training.networks:DhariwalUNet"}, "names code"),
        ("edm ve", {"resample_filter": [1, 1]}, "another filter"),
        ("edm ve", {"resample_filter": [1, 2, 1]}, "even number of taps"),
        ("edm iddpm", {"M": 41}, "keeps 42 levels"),
        ("edm2", {"res_balance": 1.5}, "from 0 to 1"),
        ("edm2", {"channels_per_head": 24}, "do not divide"),
    ],
)
def test_refusals(name, said, message, tmp_path):
    reader = {"edm": from_edm, "edm2": from_edm2}[CASES[name][0]]
    with pytest.raises(ValueError, match=message):
        reader(folder(tmp_path / "it", name, **said))


def test_a_table_of_levels_has_to_be_there(tmp_path):
    where = folder(tmp_path / "it", "edm iddpm")
    save_file(
        {k: v for k, v in tensors("edm iddpm").items() if k != "u"}, where / "model.safetensors"
    )
    with pytest.raises(ValueError, match="lacks"):
        from_edm(where)
    levels = tensors("edm iddpm")["u"].clone()
    levels[1] = float("nan")
    given = tensors("edm iddpm") | {"u": levels}
    save_file(given, where / "model.safetensors")
    with pytest.raises(ValueError, match="has otherwise"):
        from_edm(where)
