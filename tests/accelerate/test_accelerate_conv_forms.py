"""The forms that a 3x3 convolution is computed in, and which is chosen."""

import copy
from functools import partial

import pytest
import torch
from accelerate_cases import choose_form, close
from torch import nn

from diffusion_engine.accelerate import conv3x3
from diffusion_engine.accelerate.conv2d import FusedConv2d
from diffusion_engine.accelerate.conv3x3 import fastest

# 3x3 convolutions


def fused_conv(channels=97, out_channels=20, **options):
    torch.manual_seed(0)
    conv = nn.Conv2d(channels, out_channels, 3, padding=1, **options).eval()
    return conv3x3.fused_conv("conv", conv)


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
    replacement = fused_conv(bias=bias)
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
    replacement, x = fused_conv(), image(97, True, batch=5)
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
    for replacement in (fused_conv(), fused_conv()):
        replacement.forward(x)
    assert asked == [{0, 2, 4}]
    fused_conv().forward(image(97, False))  # another form may be the faster one
    fused_conv(8).forward(image(8, True))
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
        assert type(conv3x3.fused_conv("conv", conv)) is FusedConv2d


@torch.no_grad()
def test_without_the_native_module(monkeypatch):
    monkeypatch.setattr(conv3x3, "module", lambda name: f"{name} is not built")
    replacement, x = fused_conv(), image(97, True)
    close(replacement.forward(x), replacement.original(x))
    assert replacement.kind == "packed conv2d"
