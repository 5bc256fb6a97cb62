"""The Triton kernels of group_norm and attention: what the cases of the ops do not reach."""

import gc
import weakref

import group_norm_cases
import pytest
import torch
from group_norm_checks import SMALL, check
from with_triton import triton  # noqa: F401

from diffusion_engine.kernels import attention, group_norm
from diffusion_engine.ops.attention import AttentionArgs
from diffusion_engine.ops.group_norm import GroupNormArgs


@pytest.fixture
def small_tiles(monkeypatch):
    """Large maps at sizes that the interpreter can do: several parts, tiles and blocks."""
    monkeypatch.setattr(group_norm, "HELD", 0)
    monkeypatch.setattr(group_norm, "TILE", 64)
    monkeypatch.setattr(group_norm, "CHANNELS", 8)
    monkeypatch.setattr(group_norm, "PROGRAMS", 6)


@pytest.mark.parametrize("part", range(3))
def test_large_maps_of_group_norm(small_tiles, part):
    for seed in range(500 + 5 * part, 505 + 5 * part):
        check("triton", seed, pixels=SMALL, batches=(1, 2))


def test_one_sample_fills_a_gpu():
    """At least 132 programs, of every layout, for one sample of 1 MB and more."""
    for channels, pixels in (
        (128, 64 * 64),
        (320, 64 * 64),
        (128, 256 * 256),
        (512, 64 * 64),
        (32, 512 * 512),
    ):
        for last in (False, True):
            shape = group_norm.Shape(32, channels // 32, pixels, last)
            if shape.held:
                continue
            parts = -(-shape.tiles // shape.tiles_of_part)
            assert shape.blocks * parts >= 132 and shape.blocks * shape.tiles >= 132
            assert shape.blocks * parts <= 4 * group_norm.PROGRAMS


def test_a_launch_takes_other_tensors_and_keeps_none():
    def call():
        x = torch.randn(2, 6, 5)
        return GroupNormArgs(x, torch.empty_like(x), groups=3, silu=True)

    first, second = call(), call()
    launch = group_norm.bind(first)
    launch(first.tensors())
    launch(second.tensors())
    torch.testing.assert_close(second.out, group_norm_cases.by_torch(second)[0])
    kept = [weakref.ref(t) for t in (first.x, first.out, second.x)]
    del first, second
    gc.collect()
    assert not any(ref() is not None for ref in kept)


@pytest.mark.parametrize(
    "dim, dtype, tokens_first, unit",
    [
        (40, torch.bfloat16, True, 8), (72, torch.float16, False, 8), (8, torch.bfloat16, True, 8),
        (40, torch.float32, True, 4), (12, torch.bfloat16, True, 4), (13, torch.bfloat16, True, 1),
        (13, torch.float32, False, 1), (64, torch.bfloat16, True, 1),
    ],
)  # fmt: skip
def test_strides_of_attention_are_whole_units(dim, dtype, tokens_first, unit):
    """Of 16 bytes where all of them are and Triton does not see it; the products are the strides."""
    q = torch.empty(2, 5, 3, dim, dtype=dtype)
    q = q.transpose(1, 2) if tokens_first else q
    _, fixed = attention.prepare(AttentionArgs(q, q, q, q))
    assert fixed["UNIT"] == unit
    for name in ("q", "k", "v", "out"):
        steps = [fixed[f"{name}_{axis}"] * unit for axis in ("batch", "head", "token")]
        assert steps == list(q.stride()[:3])


def test_fusion_of_products_and_sums_is_said():
    """Triton's own default changes from release to release."""
    q = torch.empty(1, 1, 4, 8)
    for shape in ((1, 320, 62, 62), (1, 8, 4, 4)):
        x = torch.empty(shape)
        for stage in group_norm.stages(GroupNormArgs(x, x, groups=4)):
            assert stage.fixed["enable_fp_fusion"] is True
    assert attention.prepare(AttentionArgs(q, q, q, q))[1]["enable_fp_fusion"] is True


def test_float64_is_refused():
    x = torch.zeros(1, 2, 3, dtype=torch.float64)
    reason = group_norm.objection(GroupNormArgs(x, x))
    assert reason == "Triton works in float32; x is float64"
