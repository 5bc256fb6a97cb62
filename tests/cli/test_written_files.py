"""Samples as files: the nearest level of every pixel in its place, and arrays to the last bit."""

import os

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

from diffusion_engine import Sampler
from diffusion_engine.cli import files
from diffusion_engine.cli.conditions import columns_of
from diffusion_engine.sampler.result import Result
from diffusion_engine.testing import exact_network


def sheet(samples, tmp_path, columns=None):
    """The pixels of a written PNG."""
    n = len(samples)
    files.write(tmp_path / "x.png", Result(samples, [*range(n)], 1, n, {}, [True] * n), columns)
    return np.asarray(Image.open(tmp_path / "x.png"))


@pytest.mark.parametrize("off", [-0.49, -0.3, 0.0, 0.3, 0.49])
def test_pixels_are_the_nearest_levels(tmp_path, off):
    samples = torch.from_numpy((np.arange(256) + off) / 127.5 - 1.0).float().view(1, 1, 16, 16)
    assert np.array_equal(sheet(samples, tmp_path)[2:-2, 2:-2], np.arange(256).reshape(16, 16))


def test_values_beyond_the_range_are_its_ends(tmp_path):
    samples = torch.tensor([-7.0, -1.01, 1.01, 300.0]).view(1, 1, 2, 2)
    assert sheet(samples, tmp_path)[2:4, 2:4].tolist() == [[0, 0], [255, 255]]


@pytest.mark.parametrize(
    "n, columns, size", [(1, None, (1, 1)), (5, None, (2, 3)), (5, 2, (3, 2)), (3, 7, (1, 7))]
)
def test_places_of_a_sheet(tmp_path, n, columns, size):
    """Row by row, two pixels apart, of three channels in their order."""
    levels = (7 * torch.arange(n * 3 * 4 * 6) % 256).reshape(n, 3, 4, 6)
    pixels = sheet(levels / 127.5 - 1.0, tmp_path, columns)
    rows, across = size
    assert pixels.shape == (rows * 6 + 2, across * 8 + 2, 3)
    want = np.zeros_like(pixels)
    for i, image in enumerate(levels):
        y, x = 2 + 6 * (i // across), 2 + 8 * (i % across)
        want[y : y + 4, x : x + 6] = image.numpy().transpose(1, 2, 0)
    assert np.array_equal(pixels, want)


@pytest.mark.parametrize(
    ("condition", "columns"),
    [
        (None, None), ([3, 3], None), ([0, 1, 2], 3), ([0, 1, 0, 1, 0], 2), ([0, 1, 1], None),
        (["a cat", "a dog"] * 2, 2), (["a cat", "a dog", "a fox"], None),
    ],
)  # fmt: skip
def test_conditions_in_turn_have_columns(condition, columns):
    assert columns_of(condition) == columns


@pytest.mark.parametrize("ending", ["npz", "safetensors"])
def test_arrays_are_the_samples_and_all_bits_of_their_seeds(tmp_path, ending):
    samples = torch.randn(2, 3, 4, 6).to(memory_format=torch.channels_last)
    seeds = [2**64 - 1, 5]
    recipe = Sampler(exact_network("heun"), "heun", 2).sample(2).recipe
    path = tmp_path / f"x.{ending}"
    files.write(path, Result(samples, seeds, 1, 2, recipe, [True] * 2))
    if ending == "npz":
        with np.load(path) as found:
            made, given = torch.from_numpy(found["samples"]), found["seeds"]
    else:
        found = safetensors.torch.load_file(path)
        made, given = found["samples"], found["seeds"].numpy().view(np.uint64)
    assert torch.equal(made, samples) and given.tolist() == seeds
    assert files.read_recipe(path) == recipe


def test_a_file_that_cannot_be_finished_leaves_the_one_before(tmp_path, monkeypatch):
    path = tmp_path / "x.npz"
    path.write_bytes(b"before")

    def full(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="no space left"):
        files.atomically(path, b"after")
    assert path.read_bytes() == b"before" and [p.name for p in tmp_path.iterdir()] == ["x.npz"]


@pytest.mark.parametrize(
    "shape, message",
    [
        ((4, 4), r"a sample has shape \[4, 4\], write .npz instead"),
        ((2, 4, 4), "1 or 3 channels, the samples have 2"),
        ((4, 4, 4), "1 or 3 channels, the samples have 4"),
        ((3, 2, 4, 4), r"a sample has shape \[3, 2, 4, 4\]"),
    ],
)
def test_samples_that_are_no_pictures(tmp_path, shape, message):
    result = Result(torch.zeros(1, *shape), [0], 1, 1, {}, [True])
    with pytest.raises(ValueError, match=message):
        files.write(tmp_path / "x.png", result)
    with pytest.raises(ValueError, match=r"choose a name ending in \.png, \.npz, \.safetensors"):
        files.write(tmp_path / "x.gif", result)
    assert not list(tmp_path.iterdir())
