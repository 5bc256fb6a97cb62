"""Replacements of convolutions: their forms, which is chosen, and calls of every kind."""

import copy
from functools import partial

import accelerate_cases as cases
import pytest
import torch
from accelerate_cases import choose_form, close, randomised
from torch import nn
from torch.nn import functional as F

from diffusion_engine.accelerate import conv3x3
from diffusion_engine.accelerate.conv2d import FusedConv2d
from diffusion_engine.accelerate.conv3x3 import FusedConv3x3, fastest, fused_conv

choose_fused = cases.choose_fused


def fused(channels=97, out_channels=20, **options):
    torch.manual_seed(0)
    conv = nn.Conv2d(channels, out_channels, 3, padding=1, **options).eval()
    return fused_conv("conv", conv)


def image(channels, last, batch=2):
    form = torch.channels_last if last else torch.contiguous_format
    return torch.randn(batch, channels, 16, 15).contiguous(memory_format=form)


@pytest.mark.parametrize("form", [0, 2, 4])
@pytest.mark.parametrize("last", [False, True], ids=["contiguous", "channels_last"])
@pytest.mark.parametrize("bias", [False, True])
@torch.no_grad()
def test_forms_of_a_convolution(form, last, bias, monkeypatch):
    choose_form(monkeypatch, lambda forms: form)
    monkeypatch.setattr("diffusion_engine.ops.conv3x3.OP", None)  # no form is so slow
    replacement = fused(bias=bias)
    x, residual = image(97, last), image(20, last)
    close(replacement.forward(x), want := replacement.original(x))
    assert list(replacement.packed) == [form]
    close(replacement.add(x, residual), want + residual)
    other = image(20, not last)
    close(replacement.add(x, other), want + other)
    close(replacement.add(x, residual[:1, :, :1, :1]), want + residual[:1, :, :1, :1])
    replacement.install()
    close(replacement.module(x[:0]), want[:0])


@torch.no_grad()
def test_a_form_serves_every_batch(monkeypatch):
    choose_form(monkeypatch, max)
    replacement, x = fused(), image(97, True, batch=5)
    alone = replacement.forward(x[:1])
    assert torch.equal(replacement.forward(x)[:1], alone) and replacement.tiles == {True: 4}
    choose_form(monkeypatch, min)
    assert torch.equal(replacement.forward(x)[:1], alone)
    replacement.forward(x.contiguous())
    assert replacement.tiles == {True: 4, False: 0} and set(replacement.packed) == {0, 4}
    made = copy.deepcopy(replacement)
    assert made.tiles == replacement.tiles and not made.packed
    assert torch.equal(made.forward(x), replacement.forward(x))


def test_the_fastest_form_is_that_of_the_least_time(monkeypatch):
    clock = [5.0]

    def run(seconds):
        clock[0] += seconds

    monkeypatch.setattr(conv3x3.time, "perf_counter", lambda: clock[0])
    waits = {0: 0.02, 2: 0.001, 4: 0.02}
    forms = {form: partial(run, seconds) for form, seconds in waits.items()}
    assert fastest(forms, torch.ones(1)) == 2


@torch.no_grad()
def test_a_form_is_chosen_once_for_a_kind(monkeypatch):
    asked = []
    choose_form(monkeypatch, lambda forms: asked.append(set(forms)) or 2)
    x = image(97, True)
    for replacement in (fused(), fused()):
        replacement.forward(x)
    assert asked == [{0, 2, 4}]
    fused().forward(image(97, False))  # another form may be the faster one
    fused(8).forward(image(8, True))
    assert asked[1:] == [{0, 2, 4}, {0, 2}]


def test_other_convolutions_stay_with_onednn():
    for options in (
        {"stride": 2},
        {"dilation": 2},
        {"groups": 2},
        {"padding": 0},
        {"kernel_size": 5},
    ):
        conv = nn.Conv2d(4, 4, **{"kernel_size": 3, "padding": 1} | options)
        assert type(fused_conv("conv", conv)) is FusedConv2d


@torch.no_grad()
def test_without_the_native_module(monkeypatch):
    monkeypatch.setattr(conv3x3, "module", lambda name: f"{name} is not built")
    replacement, x = fused(), image(97, True)
    close(replacement.forward(x), replacement.original(x))
    assert replacement.kind == "packed conv2d"


@torch.no_grad()
def test_forms_of_a_weight_that_were_not_chosen_are_dropped(monkeypatch):
    def fastest(forms, x):
        for run in forms.values():
            run()
        return 2

    monkeypatch.setattr(conv3x3, "fastest", fastest)
    replacement = fused_conv("conv", nn.Conv2d(64, 8, 3, padding=1).eval())
    replacement.forward(torch.randn(1, 64, 5, 4))
    assert replacement.packed.keys() == {2}


CONVS = {
    "3x3": {"kernel_size": 3, "padding": 1},
    "3x3 without padding": {"kernel_size": 3},
    "3x3 apart": {"kernel_size": 3, "padding": 1, "groups": 2},
    "3x3 of every second": {"kernel_size": 3, "padding": 1, "stride": 2},
    "3x3 dilated": {"kernel_size": 3, "padding": 1, "dilation": 2},
    "3x3 wide": {"kernel_size": 3, "padding": 2},
    "1x1": {"kernel_size": 1},
    "3x1": {"kernel_size": (3, 1), "padding": (1, 0)},
}


@pytest.mark.parametrize("last", [False, True], ids=["contiguous", "channels_last"])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("kind", CONVS)
@torch.no_grad()
def test_calls_of_convolutions(kind, bias, last):
    """Alone, and with what is added: a map in any order or dtype, one value a channel, a row."""
    layer = randomised(nn.Conv2d(8, 6, bias=bias, **CONVS[kind]))
    replacement = fused_conv("conv", layer)
    assert (
        isinstance(replacement, FusedConv3x3) == (kind == "3x3") and replacement.objection() is None
    )
    x = torch.randn(2, 8, 7, 9)
    x = x.contiguous(memory_format=torch.channels_last) if last else x
    want = layer(x)
    close(replacement.forward(x), want)
    maps = [
        torch.randn_like(want),
        torch.randn(want.shape).contiguous(memory_format=torch.channels_last),
        torch.randn(want.shape),
        torch.randn(want.shape, dtype=torch.float64),
        torch.randn(want.shape[::-1]).permute(3, 2, 1, 0),
    ]
    if kind == "3x3":
        rows = (2, 6, 1, 1), (1, 6, 7, 9), (9,)
        maps += [torch.randn(shape) for shape in rows]
    for residual in maps:
        got = replacement.add(x, residual)
        assert got.dtype == (want + residual).dtype
        close(got, want + residual)


@pytest.mark.parametrize(
    "options", [{"padding": "same"}, {"padding": 1, "padding_mode": "circular"},
                {"padding": 1, "padding_mode": "reflect"}],
)  # fmt: skip
def test_paddings_that_onednn_has_not(options):
    replacement = fused_conv("conv", nn.Conv2d(8, 6, 3, **options).eval())
    assert (
        not isinstance(replacement, FusedConv3x3)
        and "is none of oneDNN's" in replacement.objection()
    )


def strided(layer):
    layer.stride = (2, 2)


def doubled(layer):
    layer._conv_forward = lambda x, w, b: 2.0 * F.conv2d(x, w, b, padding=1)


@pytest.mark.parametrize("change", [strided, doubled])
@torch.no_grad()
def test_a_convolution_that_is_changed_after(change):
    """Its geometry, or its call, which is then torch's own again."""
    layer = randomised(nn.Conv2d(8, 6, 3, padding=1))
    replacement, x = fused_conv("conv", layer), torch.randn(2, 8, 6, 5)
    replacement.forward(x)
    change(layer)
    want = layer(x)
    close(replacement.forward(x), want)
    close(replacement.add(x, torch.ones_like(want)), want + 1.0)
