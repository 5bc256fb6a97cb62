"""Pictures and arrays that users bring: right values or one sentence."""

import io
import json

import numpy as np
import pytest
import torch
from picture_files import RAMP, SHAPES, saved, stored
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from diffusion_engine.cli import files
from diffusion_engine.cli.pictures import read_images
from diffusion_engine.sampler.result import Result

COLOURS = np.stack([RAMP, 255 - RAMP, RAMP // 2], axis=-1)


def levels(pixels, white=255.0):
    """[1, C, H, W] from -1 to 1."""
    pixels = np.asarray(pixels, np.float64)
    pixels = pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)
    return torch.from_numpy((pixels / white * 2 - 1)[None]).float()


@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bits_of_grey_keep_their_values(tmp_path, channels):
    grey = RAMP.astype(np.uint16) * 257
    grey[0, 1] = 1000  # between two values of 8 bits
    path = saved(tmp_path, Image.fromarray(grey))
    wanted = levels(grey, 65535.0).expand(1, *SHAPES[channels])
    torch.testing.assert_close(read_images(path, SHAPES[channels]), wanted, rtol=0, atol=1e-6)


PLAIN = {
    "grey": (Image.fromarray(RAMP), RAMP),
    "colours": (Image.fromarray(COLOURS), COLOURS),
    "palette": (Image.fromarray(COLOURS).quantize(24, dither=Image.Dither.NONE), None),
    "bits": (Image.fromarray(RAMP > 99), (RAMP > 99) * 255),
    "opaque": (Image.fromarray(np.dstack([COLOURS, RAMP * 0 + 255])), COLOURS),
    "grey, opaque": (Image.fromarray(np.dstack([RAMP, RAMP * 0 + 255])), RAMP),
}


@pytest.mark.parametrize("kind", PLAIN)
def test_pictures_have_the_values_that_a_viewer_shows(tmp_path, kind):
    image, pixels = PLAIN[kind]
    pixels = np.asarray(image.convert("RGB")) if pixels is None else pixels
    path = saved(tmp_path, image)
    wanted = levels(pixels).expand(1, *SHAPES[3])
    torch.testing.assert_close(read_images(path, SHAPES[3]), wanted, rtol=0, atol=1e-6)
    if pixels.ndim == 2:
        torch.testing.assert_close(read_images(path, SHAPES[1]), levels(pixels), rtol=0, atol=1e-6)


def test_a_camera_held_sideways(tmp_path):
    about = Image.Exif()
    about[0x0112] = 6  # turn by a quarter to see it upright
    turned = Image.fromarray(np.rot90(COLOURS).copy())
    path = saved(tmp_path, turned, exif=about)
    torch.testing.assert_close(read_images(path, SHAPES[3]), levels(COLOURS), rtol=0, atol=1e-6)


def test_a_jpeg_is_nearly_its_pixels(tmp_path):
    smooth = np.broadcast_to(np.linspace(0, 255, 48)[None, :, None], (32, 48, 3)).astype(np.uint8)
    path = saved(tmp_path, Image.fromarray(smooth), "x.jpg", quality=95)
    assert (read_images(path, (3, 32, 48)) - levels(smooth)).abs().max() < 0.05


def refusals():
    """Name, the image or bytes of a file, and what is said of it."""
    frames = [Image.fromarray(RAMP), Image.fromarray(255 - RAMP)]
    clear = np.dstack([COLOURS, RAMP])
    rgb = Image.fromarray(COLOURS)
    keyed = rgb.quantize(8)
    keyed.info["transparency"] = 0
    whole = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)).save(
        whole, "PNG"
    )
    yield "clear.png", Image.fromarray(clear), "transparent pixels"
    yield "clear_grey.png", Image.fromarray(clear[:, :, 2:]), "transparent pixels"
    yield "key.png", keyed, "transparent pixels"
    yield "ink.jpg", rgb.convert("CMYK"), "its pixels are CMYK; convert them"
    yield "float.tiff", Image.fromarray(RAMP.astype(np.float32)), "its pixels are F; convert"
    yield "film.gif", frames, "holds 2 pictures"
    yield "film.png", frames, "holds 2 pictures"
    yield "wide.png", rgb.resize((8, 4)), "holds images [3, 4, 8], and the network takes [3, 4, 6]"
    yield "high.png", rgb.transpose(Image.Transpose.ROTATE_90), "holds images [3, 6, 4], and the"
    yield "huge.png", Image.new("1", (13_000, 13_000)), "holds images [3, 13000, 13000], and the"
    yield "cut.png", whole.getvalue()[:-40], "holds no image"
    yield "noise.png", bytes(range(99)), "holds no image"
    yield "empty.jpg", b"", "holds no image"


REFUSALS = list(refusals())


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("name, content, message", REFUSALS, ids=[name for name, *_ in REFUSALS])
def test_pictures_that_are_refused(tmp_path, monkeypatch, name, content, message):
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, list):
        content[0].save(path, save_all=True, append_images=content[1:])
    else:
        content.save(path)
    if name == "huge.png":
        monkeypatch.setattr(Image.Image, "load", None)  # told without decoding it
    with pytest.raises(ValueError) as told:
        read_images(path, SHAPES[3])
    assert message in str(told.value) and str(path) in str(told.value)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("n", "columns"), [(1, None), (3, None), (5, 2), (2, 7)])
def test_a_sheet_of_samples_is_read_as_these(tmp_path, channels, n, columns):
    shape = SHAPES[channels]
    white = np.random.default_rng(n).integers(0, 256, (n, *shape))
    samples = torch.from_numpy(white / 127.5 - 1.0).float()
    recipe = {"seeds": list(range(n))}
    files.write(tmp_path / "x.png", Result(samples, [], 1, n, recipe, [True] * n), columns)
    torch.testing.assert_close(read_images(tmp_path / "x.png", shape), samples, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("size", "seeds"), [((80, 40), 1), ((18, 14), 2), ((18, 14), 5), ((18, 14), 0)]
)
def test_a_sheet_of_other_samples_is_refused(tmp_path, size, seeds):
    about = PngInfo()
    about.add_text(files.METADATA_KEY, json.dumps({"seeds": [0] * seeds} if seeds else {}))
    path = saved(tmp_path, Image.new("L", size), pnginfo=about)
    with pytest.raises(ValueError, match=r"a sheet of samples, and none of \[1, 4, 6\]; give them"):
        read_images(path, SHAPES[1])


@pytest.mark.parametrize("ending", ["npz", "npy", "safetensors"])
@pytest.mark.parametrize("dtype, white", [("uint8", 255), ("uint16", 65535), ("bool", 1)])
def test_whole_numbers_run_from_black_to_white(tmp_path, ending, dtype, white):
    one = (RAMP / 255 * white).round().astype(dtype)
    for array in (one, one[None], one[None, None], one[None, :, :, None]):
        path = stored(tmp_path / f"x.{ending}", {"samples": array})
        found = read_images(path, SHAPES[1])
        torch.testing.assert_close(found, levels(one, white), rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", ">f4"])
def test_floats_are_taken_as_they_are(tmp_path, dtype):
    array = np.random.default_rng(1).normal(size=(2, 3, 4, 6)).astype(dtype)
    path = stored(tmp_path / "x.npz", {"arr_0": array})  # as np.savez names one without a name
    wanted = torch.from_numpy(array.astype("float32"))
    assert torch.equal(read_images(path, SHAPES[3]), wanted)
    channels_last = stored(tmp_path / "y.npy", {"": np.moveaxis(array, 1, -1)})
    assert torch.equal(read_images(channels_last, SHAPES[3]), wanted)
    latents = stored(tmp_path / "z.npz", {"samples": 100 * array.astype("float32")})
    assert torch.equal(read_images(latents, SHAPES[3], noised=True), 100 * wanted)


@pytest.mark.parametrize("ending", ["npz", "safetensors"])
@pytest.mark.parametrize(
    "arrays, message",
    [
        (
            {"samples": np.full((1, 3, 4, 6), np.nan, np.float32)},
            "holds NaN or infinity, in image 0",
        ),
        ({"samples": np.full((1, 3, 4, 6), 200.0, np.float32)}, "has floats from 200 to 200, and"),
        ({"samples": np.ones((1, 3, 4, 6), np.int64)}, "values are int64, which does not say"),
        ({"samples": np.ones((1, 3, 4, 7), np.float32)}, "holds images [3, 4, 7], and the network"),
        ({"samples": np.ones((0, 3, 4, 6), np.float32)}, "holds no images"),
        ({"samples": np.ones((5, 1), np.float32)}, "holds images [5, 1], and the network"),
        ({"a": np.ones((1, 3, 4, 6)), "b": np.ones(1)}, "has the arrays a, b; call that of images"),
        ({}, "has the arrays none"),
    ],
)
def test_arrays_that_are_refused(tmp_path, ending, arrays, message):
    path = stored(tmp_path / f"x.{ending}", arrays)
    with pytest.raises(ValueError) as told:
        read_images(path, SHAPES[3])
    assert message in str(told.value) and str(path) in str(told.value)


@pytest.mark.parametrize("name", ["x.npz", "x.npy", "x.safetensors"])
def test_damaged_arrays_are_a_sentence(tmp_path, name):
    path = stored(tmp_path / name, {"samples": np.zeros((1, 3, 4, 6), np.float32)})
    content = path.read_bytes()
    for damaged in (b"", b"junk", content[:40], content[:-60], b"\xff" * 8 + content[8:]):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="holds no image"):
            read_images(path, SHAPES[3])
    np.save(path.with_suffix(".npy"), np.array([{"a": 1}], object), allow_pickle=True)
    with pytest.raises(ValueError, match="holds no image"):
        read_images(path.with_suffix(".npy"), SHAPES[3])
