"""Images from files, as a network takes them: pictures by Pillow, and arrays."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from PIL import Image, ImageOps
from torch import Tensor

from .files import METADATA_KEY, cut, ending, readable

# What no image in [-1, 1] holds, nor a sample of any guidance: then it is not in [-1, 1].
LARGEST = 16.0
# Whole numbers of these dtypes run over the whole dtype.
LEVELS = {torch.bool: 1.0, torch.uint8: 255.0, torch.uint16: 65535.0}


def read_images(
    path: Path, shape: tuple[int, ...], whole: tuple[int, ...] | None = None, noised: bool = False
) -> Tensor:
    """[n, *shape] float32 in [-1, 1]: the picture of a file, or its array.

    path    .npz, .npy and .safetensors hold an array 'samples', or one array alone: [n, *shape], or with its
            channels last, without a channel axis where there is one channel, or one image [*shape]; uint8,
            uint16 and bool run from black to white, floats are taken as they are. Anything else is a
            picture of 1, 8 or 16 bits, grey or RGB (of RGB the upper 8), without transparent pixels, or a
            sheet of samples as `files.write` makes it
    whole   the shape of a state with a velocity, which may be read too
    noised  states of any values, not images
    Raises ValueError where the file holds no images of this shape.
    """
    with readable(path, "no image that can be taken"):
        read = ARRAYS.get(ending(path))
        found = _picture(path, shape) if read is None else _levels(read(path))
    images = _fitted(path, found, [s for s in (shape, whole) if s is not None])
    _check_values(path, images, noised or len(shape) != 3 or shape[0] not in (1, 3))
    return images


def read_array(path: Path) -> Tensor:
    """The array 'samples' of a file, or the one it holds, float32 or float64. Raises ValueError of others."""
    with readable(path, "no array that can be taken"):
        if (read := ARRAYS.get(ending(path))) is None:
            raise ValueError(f"{path}: give an array as {', '.join(ARRAYS)}")
        found = read(path)
    return found if found.dtype == torch.float64 else found.float()


def _numpy(path: Path) -> Tensor:
    with np.load(path, allow_pickle=False) as arrays:
        return _native(arrays[_only(arrays.files)])


def _native(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.array(array, array.dtype.newbyteorder("=")))


def _safetensors(path: Path) -> Tensor:
    tensors = safetensors.torch.load(path.read_bytes())
    return tensors[_only(list(tensors))]


ARRAYS: dict[str, Callable[[Path], Tensor]] = {
    ".npz": _numpy,
    ".npy": lambda path: _native(np.load(path, allow_pickle=False)),
    ".safetensors": _safetensors,
}


def _only(names: list[str]) -> str:
    """The name of the array that holds the images."""
    if "samples" in names or len(names) == 1:
        return "samples" if "samples" in names else names[0]
    raise ValueError(
        f"it has the arrays {', '.join(sorted(names)) or 'none'}; call that of images 'samples'"
    )


def _levels(found: Tensor) -> Tensor:
    """float32, whole numbers from -1 to 1."""
    if found.is_floating_point():
        return found.float()
    if found.dtype not in LEVELS:
        raise ValueError(
            f"its values are {str(found.dtype).removeprefix('torch.')}, which does not say what is white; "
            "save uint8, uint16 or floats in [-1, 1]"
        )
    return found.float() / (0.5 * LEVELS[found.dtype]) - 1.0


def _picture(path: Path, shape: tuple[int, ...]) -> Tensor:
    """[n, C, H, W], upright: of one picture, or of a sheet of samples."""
    with Image.open(path) as file:
        # A camera's MPO holds previews behind its picture.
        if getattr(file, "is_animated", False) and file.format != "MPO":
            raise ValueError(f"it holds {file.n_frames} pictures; save the one that is meant")  # type: ignore[attr-defined]
        sheet = METADATA_KEY in file.info and file.size != shape[:0:-1]
        n = _samples(file, shape) if sheet else 1
        if not sheet and sorted(file.size) != sorted(shape[1:]):  # before a large one is decoded
            raise ValueError(f"it {_sizes([shape[0], *file.size[::-1]], shape)}")
        pixels = np.asarray(_plain(ImageOps.exif_transpose(file), file.format, shape[0]))
    found = _native(cut(pixels, n, *shape[1:]) if sheet else pixels[None])
    return _levels(found.reshape(*found.shape[:3], -1).movedim(-1, 1))


def _samples(sheet: Image.Image, shape: tuple[int, ...]) -> int:
    """How many lie on a sheet, one a seed of its recipe. Raises ValueError where none have the shape."""
    seeds = json.loads(sheet.info[METADATA_KEY]).get("seeds", ())
    sides = zip(sheet.size, shape[:0:-1], strict=True)
    (across, right), (down, below) = (divmod(side - 2, own + 2) for side, own in sides)
    if right or below or not across * (down - 1) < len(seeds) <= across * down:
        raise ValueError(
            f"it is a sheet of samples, and none of {list(shape)}; give them as .npz or .safetensors"
        )
    return len(seeds)


def _plain(image: Image.Image, form: str | None, channels: int) -> Image.Image | np.ndarray:
    """Grey for one channel, else RGB; grey of 16 bits keeps them."""
    if image.has_transparency_data:
        image = image.convert("RGBA")
        if image.getchannel("A").getextrema()[0] != 255:
            raise ValueError("it has transparent pixels; put it onto a background")
    # Some Pillows read 16 bits of grey into 32.
    if image.mode.startswith("I;16") or (image.mode == "I" and form in ("PNG", "PPM")):
        grey = np.asarray(image).astype(np.uint16)
        return grey if channels == 1 else np.stack([grey] * 3, axis=-1)
    if image.mode not in ("1", "L", "P", "RGB", "RGBA"):
        raise ValueError(f"its pixels are {image.mode}; convert them to grey or RGB of 8 bits")
    return image.convert("L" if channels == 1 else "RGB")


def _fitted(path: Path, found: Tensor, shapes: list[tuple[int, ...]]) -> Tensor:
    """The images as [n, *shape], of the first shape that they have."""
    for shape in shapes:
        for view in _views(found, shape):
            if tuple(view.shape[1:]) == shape:
                if not len(view):
                    raise ValueError(
                        f"{path} holds no images: its array has shape {list(found.shape)}"
                    )
                return view.contiguous()
    sizes = [list(view.shape[1:]) for view in _views(found, shapes[0])]
    raise ValueError(f"{path} {_sizes(sizes[0] if sizes else list(found.shape), shapes[0])}")


def _sizes(held: list[int], shape: tuple[int, ...]) -> str:
    return f"holds images {held}, and the network takes {list(shape)}; resize them"


def _views(found: Tensor, shape: tuple[int, ...]) -> Iterator[Tensor]:
    """An array read as [n, *shape]: with its channels first, last, or without them where there is one."""
    for batch in (found, found[None]):
        if batch.ndim == len(shape) + 1:
            yield batch
            if len(shape) == 3:
                yield batch.movedim(-1, 1)
        elif batch.ndim == len(shape) and shape[0] == 1:
            yield batch.unsqueeze(1)


def _check_values(path: Path, images: Tensor, free: bool) -> None:
    """Raises ValueError on what is not finite, and on pixels of another scale than [-1, 1]."""
    bad = [i for i, image in enumerate(images) if not bool(torch.isfinite(image).all())]
    if bad:
        raise ValueError(f"{path} holds NaN or infinity, in image {bad[0]} first")
    low, high = images.min().item(), images.max().item()
    if not free and max(-low, high) > LARGEST:
        raise ValueError(
            f"{path} has floats from {low:g} to {high:g}, and images lie in [-1, 1]; scale them, or save "
            "uint8"
        )
