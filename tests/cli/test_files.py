"""Files that users bring and name: right values or one sentence, and never half a file."""

import io
import json
import os

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from test_cli import run

from diffusion_engine import Sampler
from diffusion_engine.cli import files
from diffusion_engine.cli.pictures import read_images
from diffusion_engine.sampler.spec import Recipe
from diffusion_engine.testing import exact_network

SHAPES = {1: (1, 4, 6), 3: (3, 4, 6)}  # two more pixels across than down, so that none are mixed up
RAMP = np.linspace(0, 255, 24).astype(np.uint8).reshape(4, 6)
COLOURS = np.stack([RAMP, 255 - RAMP, RAMP // 2], axis=-1)


def saved(tmp_path, image, name="x.png", **options):
    path = tmp_path / name
    image.save(path, **options)
    return path


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


def test_a_sheet_of_samples_is_not_one_image(tmp_path):
    about = PngInfo()
    about.add_text(files.METADATA_KEY, "{}")
    path = saved(tmp_path, Image.new("L", (80, 40)), pnginfo=about)
    with pytest.raises(ValueError, match="it is a sheet of samples; give them as"):
        read_images(path, SHAPES[1])


def stored(path, arrays):
    if path.suffix == ".npy":
        np.save(path, *arrays.values())
    elif path.suffix == ".npz":
        np.savez(path, **arrays)
    else:
        path.write_bytes(
            safetensors.torch.save({k: torch.from_numpy(a.copy()) for k, a in arrays.items()})
        )
    return path


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


def test_commands_take_such_files(capsys, tmp_path):
    grey = tmp_path / "x.png"
    Image.fromarray(np.full((32, 32), 40000, np.uint16)).save(grey)
    few = ("--start", 0.01, "--steps", 1, "--n", 1, "--class", "none", "--solver", "ddim")
    run(capsys, "sample", "--x", grey, "--out", tmp_path / "y.NPZ", *few)
    found = np.load(tmp_path / "y.NPZ")["samples"]
    assert abs(found.mean() - (40000 / 32767.5 - 1)) < 0.1
    (tmp_path / "cut.npz").write_bytes((tmp_path / "y.NPZ").read_bytes()[:-99])
    for command in ("sample", "encode"):
        given = (
            ("--x", tmp_path / "cut.npz", *few) if command == "sample" else (tmp_path / "cut.npz",)
        )
        _, err = run(capsys, command, *given, "--out", tmp_path / "z.npz", code=2)
        assert "holds no image" in err and err.count("\n") == 1


# ---------------------------------------------------------------- names that are written


def test_a_file_has_the_permissions_of_any_other(tmp_path):
    before = os.umask(0o027)
    try:
        files.atomically(tmp_path / "x", b"new")
    finally:
        os.umask(before)
    assert (tmp_path / "x").stat().st_mode & 0o777 == 0o640
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


@pytest.mark.parametrize("command", ["sample", "encode", "profile", "plan"])
def test_names_are_checked_before_the_work(capsys, tmp_path, monkeypatch, command):
    def never(*arguments, **more):
        raise AssertionError("sampled first")

    monkeypatch.setattr(Sampler, "sample", never)
    source = stored(tmp_path / "x.npz", {"samples": np.zeros((1, 1, 32, 32), np.float32)})
    given = {"encode": ("encode", source, "--steps", 2), "profile": ("profile",)}
    given = given.get(command, ("sample", "--out", tmp_path / "fine.npz"))
    flag = "--save-plan" if command == "plan" else "--out"
    for name in ("no/x.npz", "/proc/x.npz", "x" * 300 + ".npz"):
        _, err = run(capsys, *given, flag, tmp_path / name, code=2)
        assert ("does not exist" in err) == name.startswith("no/") and err.count("\n") == 1
        assert "does not exist" in err or "cannot be written" in err
    assert [p.name for p in tmp_path.iterdir()] == ["x.npz"]


def test_samples_that_are_no_picture_are_found_out_first(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(Sampler, "sample", None)
    _, err = run(capsys, "sample", "--out", tmp_path / "x.png", "--model", "exact", code=2)
    assert "a PNG shows images; a sample has shape [1]" in err


# ---------------------------------------------------------------- recipes


@pytest.fixture
def made(tmp_path):
    """Samples of a network of two elements, in a file with their recipe."""
    result = Sampler(exact_network("heun", (1, 1, 2)), "heun", 2).sample(2)
    path = tmp_path / "made.png"
    files.write(path, result)
    return path, result.recipe


def test_a_recipe_is_strict_json_of_known_keys(made):
    path, recipe = made
    text = Image.open(path).text[files.METADATA_KEY]
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert files.read_recipe(path) == recipe and recipe.keys() == Recipe.model_fields.keys()
    large = path.with_name("large.png")
    about = PngInfo()
    about.add_text(files.METADATA_KEY, text)
    Image.new("1", (20_000, 10_000)).save(large, pnginfo=about)  # beyond Pillow's limit
    assert files.read_recipe(large) == recipe


@pytest.mark.parametrize(
    "options",
    [
        ("--steps", 5), ("--seeds", "3-4"), ("--n", 2), ("--class", "all"), ("--guidance", 2),
        ("--grid", "karras"), ("--end", "zero"), ("--option", "s_churn=1"), ("--solver", "heun"),
        ("--start", 0.5), ("--noised",), ("--noise", "brownian"), ("--save-plan", "p.json"),
        ("--x", "made.png"),
    ],
)  # fmt: skip
def test_what_a_recipe_says_is_not_said_again(capsys, tmp_path, monkeypatch, made, options):
    monkeypatch.chdir(tmp_path)
    given = ("--recipe", made[0], "--model", "exact", "--out", "x.npz", "--backend", "torch")
    _, err = run(capsys, "sample", *given, *options, code=2)
    assert f"as they were made: leave out {options[0]}, or --recipe" in err
    assert not (tmp_path / "x.npz").exists()


def test_a_recipe_names_its_network(capsys, tmp_path, made):
    _, err = run(capsys, "sample", "--recipe", made[0], "--out", tmp_path / "x.npz", code=2)
    assert "does not ship; say which it is by --model" in err
    path = tmp_path / "genie.json"
    path.write_text(json.dumps(made[1] | {"network": "digits_genie"}))
    few = ("--recipe", path, "--out", tmp_path / "x.npz", "--json")
    about = json.loads(run(capsys, "sample", *few)[0])
    assert about["recipe"]["network"] == "digits_genie"


@pytest.mark.parametrize(
    "change, message",
    [
        (
            {"format": "diffusion-engine-recipe/3"},
            "format is 'diffusion-engine-recipe/3' and this version",
        ),
        ({"format": None}, "format is None and this version reads"),
        ({"rng": "mt19937/1"}, "rng is 'mt19937/1' and this version"),
        ({"rng": "philox4x32-10/1", "needs": ["x"]}, "rng is 'philox4x32-10/1' and this version"),
        ({"stepz": 3}, "a recipe has no stepz"),
        ({"points": [["a", 1, 2], [0, 1, 0]]}, "not a recipe of this engine"),
        ({"points": 7}, "not a recipe of this engine"),
        ({"dtype": "load"}, "not a recipe of this engine"),
        ({"dtype": "no_such"}, "not a recipe of this engine"),
        ({"solver": "heun"}, "not a recipe of this engine, it names no solver"),
        (
            {"solver": {"name": "heun", "options": {"s_churn": "much"}}},
            "s_churn='much': give a finite number",
        ),
        ({"solver": {"name": "unipc", "options": {"order": 2}}}, "did you mean max_order?"),
        ({"interval": None}, "not a recipe of this engine"),
        ({"interval": [True, 3.0]}, "not a recipe of this engine"),
    ],
)
def test_recipes_that_are_refused(capsys, tmp_path, made, change, message):
    path = tmp_path / "x.json"
    path.write_text(json.dumps({"recipe": made[1] | change}))
    given = ("--recipe", path, "--model", "exact", "--out", tmp_path / "x.npz")
    _, err = run(capsys, "sample", *given, code=2)
    assert message in err and err.count("\n") == 1 and not (tmp_path / "x.npz").exists()


def test_a_recipe_of_the_rng_before_draws_the_same(made):
    recipe = made[1] | {"rng": "philox4x32-10/1"}
    again = Sampler.replay(exact_network("heun", (1, 1, 2)), recipe).samples
    assert torch.equal(again, Sampler.replay(exact_network("heun", (1, 1, 2)), made[1]).samples)


@pytest.mark.parametrize(
    "text, message",
    [
        (None, "of its own it has 'parameters'"),
        ("{", "holds no recipe of this engine"),
        ("[1]", "says no format"),
        ('{"a": 1}', "says no format"),
        ("[" * 5000, "holds no recipe of this engine"),
    ],
)
def test_metadata_of_others(capsys, tmp_path, text, message):
    about = PngInfo()
    about.add_text("parameters", "a cat, Steps: 20")
    if text is not None:
        about.add_text(files.METADATA_KEY, text)
    path = saved(tmp_path, Image.new("L", (4, 4)), pnginfo=about)
    jpeg = saved(tmp_path, Image.new("L", (4, 4)), "jpeg.png", format="JPEG")
    for name, said in ((path, message), (jpeg, "holds no recipe of this engine")):
        _, err = run(capsys, "sample", "--recipe", name, "--out", tmp_path / "x.npz", code=2)
        assert said in err and err.count("\n") == 1


# ---------------------------------------------------------------- options


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("--solver", "ddim", "--option", "eta=abc"), "eta='abc': give a finite number"),
        (("--solver", "ddim", "--option", "eta=true"), "eta=True: give a finite number"),
        (("--solver", "ddim", "--option", "eta=NaN"), "eta=nan: give a finite number"),
        (("--solver", "ddim", "--option", "clipped_eps=1"), "clipped_eps=1: give True or False"),
        (("--solver", "ddim", "--option", "eta=0", "--option", "eta=1"), "eta is given twice"),
        (("--solver", "unipc", "--option", "max_order=2.5"), "max_order=2.5: give an integer"),
        (("--solver", "unipc", "--option", "variant=1"), "variant=1: it is a name"),
        (("--option", "clip=[-1, 1]"), "has no option clip"),
        (("--option", "=1"), "has no option"),
        (("--solver", "ddim", "--option", "eta=" + "[" * 50000), "give a finite number"),
        (("--seeds", ""), "no list of numbers"),
        (("--seeds", "1,,2"), "no list of numbers"),
        (("--seeds", "0-2000000"), "more than 1000000 numbers"),
        (("--seeds", "0-999999,5"), "more than 1000000 numbers"),
        (("--seeds", "9" * 5000), "no list of numbers"),
        (("--n", 10**12), "at most 1000000"),
        (("--model", "exact", "--class", "3"), "has no classes"),
        (("--model", "exact", "--guidance", "3"), "guidance"),
        (("--class", "none", "--guidance", "3"), "guidance needs a condition"),
    ],
)
def test_what_is_asked_is_taken_or_refused(capsys, tmp_path, arguments, message):
    _, err = run(capsys, "sample", "--out", tmp_path / "x.npz", *arguments, code=2)
    assert message in err and err.count("\n") == 1 and list(tmp_path.iterdir()) == []


def test_blanks_in_lists_and_plain_values_in_recipes(capsys, tmp_path):
    few = ("--model", "exact", "--solver", "heun", "--steps", 2, "--out", tmp_path / "x.npz")
    given = ("--seeds", " 0 - 2, 9", "--option", "s_churn=1", "--json")
    about = json.loads(run(capsys, "sample", *few, *given)[0])
    assert about["recipe"]["seeds"] == [0, 1, 2, 9]
    sampler = Sampler(exact_network("heun"), "heun", 2, s_churn=np.float32(0.5))
    assert type(sampler.recipe()["solver"]["options"]["s_churn"]) is float


def test_a_model_of_the_users_own_that_fails(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "failing_model.py").write_text("def net(): raise RuntimeError('no weights here')\n")
    few = ("--model", "failing_model:net", "--out", "x.npz")
    _, err = run(capsys, "sample", *few, code=2)
    assert "RuntimeError: no weights here" in err and err.count("\n") == 1
