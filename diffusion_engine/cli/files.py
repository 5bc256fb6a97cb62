"""Samples into files: PNG grids, npz and safetensors. A file appears whole or not at all."""

from __future__ import annotations

import io
import json
import math
import os
import secrets
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import numpy as np
import safetensors.torch
import torch
from PIL import Image
from PIL.PngImagePlugin import PngImageFile, PngInfo

from ..plan import Plan
from ..sampler.result import Result
from ..sampler.spec import Recipe

METADATA_KEY = "diffusion_engine"


def ending(path: Path) -> str:
    """Of the name, in small letters."""
    return path.suffix.lower()


def check_path(path: Path, shape: tuple[int, ...] | None = None) -> None:
    """Raises ValueError where no samples (of this shape) could be written under this name."""
    if ending(path) not in WRITERS:
        raise ValueError(f"{path.name}: choose a name ending in {', '.join(WRITERS)}")
    if ending(path) == ".png" and shape is not None:
        check_picture(shape)
    check_folder(path)


def check_folder(path: Path) -> None:
    """Raises ValueError where no file can be written under this name."""
    if not path.parent.is_dir():
        raise ValueError(f"the folder {path.parent} does not exist; make it first")
    try:
        with suppress(FileNotFoundError):
            if stat.S_ISDIR(path.stat().st_mode):
                raise ValueError(f"{path} is a folder; give a file's name")
        handle, name = _beside(path)
        os.close(handle)
        name.unlink()
    except OSError as error:
        raise ValueError(f"{path} cannot be written ({error.strerror}); choose another") from error


def check_picture(shape: tuple[int, ...]) -> None:
    """Raises ValueError where samples of this shape are no pictures."""
    if len(shape) != 3:
        raise ValueError(
            f"a PNG shows images; a sample has shape {list(shape)}, write .npz instead"
        )
    if shape[0] not in (1, 3):
        raise ValueError(
            f"a PNG holds 1 or 3 channels, the samples have {shape[0]}; write .npz instead"
        )


def write(path: Path, result: Result, columns: int | None = None) -> None:
    """Writes samples with their recipe; the ending of the name chooses the form.

    path     .png: a grid of 8-bit images, the recipe as text metadata; .npz: samples, seeds, recipe;
             .safetensors: samples and seeds, the recipe as metadata
    columns  images a row of a PNG grid; None makes it about square
    """
    check_path(path, tuple(result.samples.shape[1:]))
    content = io.BytesIO()
    WRITERS[ending(path)](content, result, columns)
    atomically(path, content.getvalue())


def atomically(path: Path, content: bytes) -> None:
    """Writes a temporary file beside `path`, then puts it in its place."""
    handle, name = _beside(path)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.replace(name, path)
    except BaseException:
        name.unlink(missing_ok=True)
        raise


def _beside(path: Path) -> tuple[int, Path]:
    """A new file in the same folder, open, with the permissions that any new file has."""
    name = path.with_name(f".{secrets.token_hex(8)}.part")
    return os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666), name


def grid(samples: np.ndarray, columns: int | None = None) -> Image.Image:
    """Images [n, C, H, W] in [-1, 1], C = 1 or 3, side by side with two pixels between them."""
    check_picture(samples.shape[1:])
    n, channels, height, width = samples.shape
    columns = columns or math.ceil(math.sqrt(n))
    rows = math.ceil(n / columns)
    pixels = np.clip(np.rint(samples * 127.5 + 127.5), 0, 255).astype(np.uint8)
    sheet = np.zeros((rows * (height + 2) + 2, columns * (width + 2) + 2, channels), np.uint8)
    for image, place in zip(pixels, _places(n, columns, height, width), strict=True):
        sheet[place] = image.transpose(1, 2, 0)
    return Image.fromarray(sheet[:, :, 0] if channels == 1 else sheet)


def cut(sheet: np.ndarray, n: int, height: int, width: int) -> np.ndarray:
    """The images [n, H, W, ...] of a sheet that `grid` laid out."""
    columns = (sheet.shape[1] - 2) // (width + 2)
    return np.stack([sheet[place] for place in _places(n, columns, height, width)])


def _places(n: int, columns: int, height: int, width: int) -> Iterator[tuple[slice, slice]]:
    """Where the images of a sheet lie, row by row."""
    for i in range(n):
        y, x = 2 + i // columns * (height + 2), 2 + i % columns * (width + 2)
        yield slice(y, y + height), slice(x, x + width)


def _png(file: IO[bytes], result: Result, columns: int | None) -> None:
    about = PngInfo()
    about.add_text(METADATA_KEY, json.dumps(result.recipe))
    grid(result.samples.float().cpu().numpy(), columns).save(file, "PNG", pnginfo=about)


def _npz(file: IO[bytes], result: Result, columns: int | None) -> None:
    arrays: dict[str, Any] = {
        "samples": result.samples.float().cpu().numpy(),
        "seeds": np.array(result.seeds, np.uint64),
        "recipe": np.array(json.dumps(result.recipe)),
    }
    np.savez(file, **arrays)


def _safetensors(file: IO[bytes], result: Result, columns: int | None) -> None:
    tensors = {
        "samples": result.samples.cpu().contiguous(),
        "seeds": torch.from_numpy(np.array(result.seeds, np.uint64).view(np.int64)),
    }
    file.write(safetensors.torch.save(tensors, metadata={METADATA_KEY: json.dumps(result.recipe)}))


WRITERS: dict[str, Callable[[IO[bytes], Result, int | None], None]] = {
    ".png": _png,
    ".npz": _npz,
    ".safetensors": _safetensors,
}


@contextmanager
def readable(path: Path, what: str) -> Iterator[None]:
    """Turns whatever a decoder raises into a ValueError: `path` holds `what`."""
    try:
        yield
    except Exception as error:  # a damaged file makes decoders raise nearly anything
        raise ValueError(f"{path} holds {what} ({error})") from error


def read_recipe(path: Path) -> dict[str, Any]:
    """The recipe in a file that `write` made, or in a .json file of its own.

    Raises ValueError where there is none that this version makes.
    """
    with readable(path, "no recipe of this engine"):
        recipe = json.loads(RECIPES.get(ending(path), Path.read_text)(path))
        if isinstance(recipe, dict):  # `sample --json` prints it beside other things
            recipe = recipe.get("recipe", recipe)
        Recipe.model_validate(recipe)
    return recipe


def read_plan(path: Path) -> Plan:
    """The plan that a file of JSON holds. Raises ValueError where it holds none."""
    with readable(path, "no plan of this engine"):
        return Plan.from_json(path.read_text())


def _of_png(path: Path) -> str:
    # Not by Image.open, which refuses large sheets; texts that `write` put there need no pixels.
    with PngImageFile(path) as image:
        texts = image.info if METADATA_KEY in image.info else image.text
        return str(texts[METADATA_KEY]) if METADATA_KEY in texts else _none(texts)


def _of_npz(path: Path) -> str:
    with np.load(path, allow_pickle=False) as arrays:
        return str(arrays["recipe"]) if "recipe" in arrays.files else _none(arrays.files)


def _of_safetensors(path: Path) -> str:
    with safetensors.safe_open(path, "np") as file:  # type: ignore[attr-defined]
        texts = file.metadata() or {}
    return texts[METADATA_KEY] if METADATA_KEY in texts else _none(texts)


def _none(names: Iterable[Any]) -> str:
    raise ValueError(f"of its own it has {', '.join(map(repr, names)) or 'nothing'}")


RECIPES: dict[str, Callable[[Path], str]] = {
    ".png": _of_png,
    ".npz": _of_npz,
    ".safetensors": _of_safetensors,
}
