"""What a network computes in is not what its weights are stored in; labels and conditions follow it."""

import copy

import pytest
import torch
from torch import nn

from diffusion_engine import Decoder, Sampler, ScoreNetwork, from_diffusers
from diffusion_engine.processes import VP, Discrete

SHAPE = (3, 4, 4)
NARROW = torch.float8_e4m3fn


class Quantised(nn.Module):
    """Weights in int8 and fp8, scaled when they are used; what a layer is given is remembered."""

    def __init__(self, scale=torch.bfloat16):
        super().__init__()
        self.weight = nn.Parameter(torch.arange(-4, 5, dtype=torch.int8).view(3, 3), False)
        self.shift = nn.Parameter(torch.full((3,), 0.5).to(NARROW), False)
        if scale is not None:
            self.scale = nn.Parameter(torch.full((3,), 0.125, dtype=scale))
        self.seen = []

    def forward(self, x, label, *condition):
        self.seen.append((x.dtype, label.dtype, *(c.dtype for c in condition)))
        weight = self.weight.to(x.dtype) * 0.125
        return torch.einsum("ij,njhw->nihw", weight, x) + self.shift.to(x.dtype).view(3, 1, 1)


def test_weights_in_int8():
    module = Quantised()
    made = Sampler(ScoreNetwork(module, VP(), SHAPE), "ddim", 2)
    assert made.dtype == torch.bfloat16 and made.network.module is module
    assert made.sample(2).finite == [True, True]
    asked = Sampler(ScoreNetwork(module, VP(), SHAPE), "ddim", 2, dtype=torch.float32)
    asked.sample()
    assert module.seen[-1][0] == torch.float32
    assert asked.network.module is module and module.weight.dtype == torch.int8


def test_nothing_says_what_it_computes_in():
    module = Quantised(scale=None)
    network = ScoreNetwork(module, VP(), SHAPE)
    with pytest.raises(
        ValueError, match=r"all weights of the network are stored as torch\.int8.*dtype="
    ):
        Sampler(network, "ddim", 2)
    Sampler(network, "ddim", 2, dtype=torch.bfloat16).sample()
    assert module.seen[-1][0] == torch.bfloat16
    with pytest.raises(ValueError, match="say dtype="):
        Decoder(nn.Conv2d(3, 3, 1).to(NARROW))(torch.zeros(1, *SHAPE))


def test_nan_in_narrow_weights_is_found():
    module = Quantised()
    with torch.no_grad():
        module.shift.copy_(torch.full((3,), torch.nan))
    with pytest.raises(ValueError, match="weight 'shift' of the network holds NaN"):
        ScoreNetwork(module, VP(), SHAPE)


def layerwise(**options):
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    blocks = {"down_block_types": ("DownBlock2D",), "up_block_types": ("UpBlock2D",)}
    unet = diffusers.UNet2DModel(
        4, 3, 3, block_out_channels=(8,), layers_per_block=1, norm_num_groups=4, **blocks, **options
    )
    unet.to(torch.bfloat16).enable_layerwise_casting(NARROW, torch.bfloat16)
    return from_diffusers(unet, diffusers.DDPMScheduler())


def test_layerwise_casting():
    network = layerwise()
    assert next(network.module.parameters()).dtype == NARROW
    made = Sampler(network, "ddim", 2)
    assert made.dtype == torch.bfloat16
    first = made.sample(2)
    assert first.finite == [True, True] and torch.equal(first.samples, made.sample(2).samples)
    assert next(network.module.parameters()).dtype == NARROW
    with pytest.raises(ValueError, match=r"hooks cast this module's layers to torch\.bfloat16"):
        Sampler(network, "ddim", 2, dtype=torch.float32)


class Told(nn.Module):
    """Reads label and condition with layers of its own dtype."""

    def __init__(self, dtype):
        super().__init__()
        self.time, self.text = nn.Linear(1, 3), nn.Linear(5, 3)
        self.to(dtype)
        self.seen = []

    def forward(self, x, label, text):
        self.seen.append((x.dtype, label.dtype, text.dtype))
        return x + (self.time(label[:, None]) + self.text(text))[..., None, None]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_labels_and_conditions_in_the_dtype_of_the_network(dtype):
    module = Told(dtype)
    null = torch.zeros(5, dtype=torch.float32)
    plain = ScoreNetwork(module, VP(), SHAPE, null=null)
    text = torch.randn(2, 5)
    with pytest.raises(ValueError, match=rf"labels of torch.float32.*label_dtype={dtype}"):
        Sampler(plain, "ddim", 2).sample(condition=text)
    declared = ScoreNetwork(module, VP(), SHAPE, null=null, label_dtype=dtype)
    made = Sampler(declared, "ddim", 2, guidance=2.0).sample(condition=text)
    assert made.finite == [True, True]
    assert set(module.seen[1:]) == {(dtype, dtype, dtype)}


def test_labels_stay_as_they_are_declared():
    """bfloat16 rounds 999 to 1000: a network that casts for itself is told 999."""
    seen = []

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(3, 1, 1))

        def forward(self, x, label):
            seen.append(label.clone())
            return x * self.scale

    for declared in (torch.float32, torch.int64, torch.float64):
        network = ScoreNetwork(Net().bfloat16(), Discrete.linear(), SHAPE, label_dtype=declared)
        Sampler(network, "ddim", 1).sample()
        assert seen[-1].dtype == declared and seen[-1].tolist() == [999]


def test_numpy_conditions_and_named_ones():
    seen = {}

    def module(x, label, *, text, place):
        seen.update(text=text.dtype, place=place.dtype)
        return x * 0.5

    network = ScoreNetwork(module, VP(), SHAPE)
    named = {"text": torch.randn(2, 5).double().numpy(), "place": torch.tensor([1, 2])}
    Sampler(network, "ddim", 2).sample(condition=named)
    assert seen == {"text": torch.float32, "place": torch.int64}


def test_a_table_of_labels():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(1000, 3)

        def forward(self, x, label):
            return x + self.table(label)[..., None, None]

    with pytest.raises(ValueError, match=r"label_dtype=torch\.int64"):
        Sampler(ScoreNetwork(Net(), Discrete.linear(), SHAPE), "ddim", 2).sample()


def test_a_decoder_computes_in_its_own_dtype():
    class Half(nn.Module):
        def __init__(self):
            super().__init__()
            self.levels = nn.Parameter(torch.zeros(1, dtype=torch.int8), False)
            self.conv = copy.deepcopy(plain).bfloat16()

        def forward(self, z):
            return self.conv(z)

    plain, z = nn.Conv2d(3, 3, 1), torch.randn(2, *SHAPE)
    assert torch.allclose(Decoder(Half())(z), Decoder(plain)(z), atol=0.05)


def test_a_module_that_was_cast_after_the_sampler_was_made():
    module = nn.Conv2d(3, 3, 1)
    made = Sampler(ScoreNetwork(lambda x, label: module(x), VP(), SHAPE), "ddim", 2)
    module.to(torch.bfloat16)
    with pytest.raises(ValueError, match=r"an input of torch.float32, .* make the Sampler again"):
        made.sample()
