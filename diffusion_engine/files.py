"""Samples into files: PNG grids, npz and safetensors. A file appears whole or not at all."""

from __future__ import annotations

import io
import json
import math
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np
import safetensors.torch
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from .request import Result

METADATA_KEY = "diffusion_engine"


def check_path(path: Path) -> None:
    """Raises ValueError where nothing could be written under this name."""
    if path.suffix not in WRITERS:
        raise ValueError(f"{path.name}: choose a name ending in {', '.join(WRITERS)}")
    check_folder(path)


def check_folder(path: Path) -> None:
    """Raises ValueError where no file can have this name."""
    if not path.parent.is_dir():
        raise ValueError(f"the folder {path.parent} does not exist; make it first")
    if path.is_dir():
        raise ValueError(f"{path} is a folder; give a file's name")


def write(path: Path, result: Result, columns: int | None = None) -> None:
    """Writes samples with their recipe; the ending of the name chooses the form.

    path     .png: a grid of 8-bit images, the recipe as text metadata; .npz: samples, seeds, recipe;
             .safetensors: samples and seeds, the recipe as metadata
    columns  images a row of a PNG grid; None makes it about square
    """
    check_path(path)
    content = io.BytesIO()
    WRITERS[path.suffix](content, result, columns)
    atomically(path, content.getvalue())


def atomically(path: Path, content: bytes) -> None:
    """Writes a temporary file beside `path`, then puts it in its place."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(name, 0o666 & ~umask)  # mkstemp makes files that only the owner reads
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def grid(samples: np.ndarray, columns: int | None = None) -> Image.Image:
    """Images [n, C, H, W] in [-1, 1], C = 1 or 3, side by side with two pixels between them."""
    n, channels, height, width = samples.shape
    if channels not in (1, 3):
        raise ValueError(
            f"a PNG holds 1 or 3 channels, the samples have {channels}; write .npz instead"
        )
    columns = columns or math.ceil(math.sqrt(n))
    rows = math.ceil(n / columns)
    pixels = np.clip(np.rint(samples * 127.5 + 127.5), 0, 255).astype(np.uint8)
    sheet = np.zeros((rows * (height + 2) + 2, columns * (width + 2) + 2, channels), np.uint8)
    for i, image in enumerate(pixels):
        y, x = 2 + i // columns * (height + 2), 2 + i % columns * (width + 2)
        sheet[y : y + height, x : x + width] = image.transpose(1, 2, 0)
    return Image.fromarray(sheet[:, :, 0] if channels == 1 else sheet)


def _png(file: IO[bytes], result: Result, columns: int | None) -> None:
    about = PngInfo()
    about.add_text(METADATA_KEY, json.dumps(result.recipe))
    samples = result.samples.float().cpu().numpy()
    if samples.ndim != 4:
        raise ValueError(
            f"a PNG shows images; the samples have shape {list(samples.shape)}, write .npz instead"
        )
    grid(samples, columns).save(file, "PNG", pnginfo=about)


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


def read_images(
    path: Path, shape: tuple[int, ...], whole: tuple[int, ...] | None = None
) -> torch.Tensor:
    """[n, *shape] float32 in [-1, 1]: the image of a file, or the samples of one that `write` made.

    whole  the shape of a state with a velocity, which may be read too
    Raises ValueError where the file holds no images of this shape.
    """
    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as arrays:
                found = torch.from_numpy(arrays["samples"])
        elif path.suffix == ".safetensors":
            found = safetensors.torch.load(path.read_bytes())["samples"]
        else:
            with Image.open(path) as image:
                pixels = np.asarray(image.convert("L" if shape[0] == 1 else "RGB"), np.float32)
            # An image has its channels last, or none of them.
            found = torch.from_numpy(pixels / 127.5 - 1.0).reshape(1, *pixels.shape[:2], -1)
            found = found.movedim(-1, 1)
    except (OSError, KeyError, ValueError, safetensors.SafetensorError) as error:
        raise ValueError(f"{path} holds no image, and no array 'samples' ({error})") from error
    if tuple(found.shape[1:]) not in (shape, whole):
        raise ValueError(
            f"{path} holds images {list(found.shape[1:])}, and the network takes {list(shape)}; resize them"
        )
    return found.float()


def read_recipe(path: Path) -> dict[str, Any]:
    """The recipe in a file that `write` made, or in a .json file of its own."""
    try:
        if path.suffix == ".png":
            with Image.open(path) as image:
                text = image.text[METADATA_KEY]  # type: ignore[attr-defined]
        elif path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as arrays:
                text = str(arrays["recipe"])
        elif path.suffix == ".safetensors":
            with safetensors.safe_open(path, "np") as file:  # type: ignore[attr-defined]
                text = file.metadata()[METADATA_KEY]
        else:
            text = path.read_text()
        recipe = json.loads(text)
        if not isinstance(recipe, dict):
            raise ValueError("it is no JSON object")
        return recipe.get("recipe", recipe)
    except (
        OSError,
        KeyError,
        TypeError,
        AttributeError,
        ValueError,
        safetensors.SafetensorError,
    ) as error:
        raise ValueError(f"{path} holds no recipe of this engine ({error})") from error
