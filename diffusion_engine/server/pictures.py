"""Samples as a client takes them: PNGs with their recipes, npz, safetensors; and what it sends."""

from __future__ import annotations

import base64
import binascii
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ..sampler.spec import Recipe
from ..workers.messages import Made

METADATA_KEY = "diffusion_engine"  # as in files that the command line writes
PNG, NPZ, SAFETENSORS = "application/json", "application/x-npz", "application/vnd.safetensors"
TENSORS = ("x", "mask", "known", "measurement", "noise", "condition", "negative")
FLOATS = {"F32": np.float32, "F16": np.float16}
AXES = 8


def is_picture(shape: Sequence[int]) -> bool:
    """Whether a PNG can show a sample of this shape."""
    return len(shape) == 3 and shape[0] in (1, 3)


def png(
    sample: np.ndarray,
    recipe: Mapping[str, Any] | None = None,
    size: Sequence[int] | None = None,
) -> bytes:
    """A PNG of 8 bits of an image [C, H, W] in [-1, 1], C = 1 or 3; what is not a number is white.

    recipe  of this sample, that goes with it
    size    (height, width) to which it is scaled, None for its own
    """
    pixels = np.fmax(np.fmin(np.rint(sample * 127.5 + 127.5), 255.0), 0.0).astype(np.uint8)
    image = Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0))
    if size is not None and tuple(size) != sample.shape[1:]:
        image = image.resize((size[1], size[0]), Image.Resampling.BICUBIC)
    about = None
    if recipe is not None:
        about = PngInfo()
        about.add_text(METADATA_KEY, json.dumps(recipe))
    made = io.BytesIO()
    image.save(made, "PNG", pnginfo=about, compress_level=4)
    return made.getvalue()


def text(content: bytes) -> str:
    """In base64."""
    return binascii.b2a_base64(content, newline=False).decode()


def recipe_of(recipe: Mapping[str, Any], sample: int) -> dict[str, Any]:
    """That of one sample of a request."""
    own = {n: recipe[n][sample : sample + 1] for n in Recipe.PER_SAMPLE if recipe.get(n)}
    return {**recipe, **own}


def pngs(made: Made) -> list[bytes]:
    """A PNG of each sample, with its recipe."""
    samples = enumerate(made.samples)
    return [png(sample, recipe_of(made.recipe, i)) for i, sample in samples]


def npz(made: Made, about: Mapping[str, Any]) -> bytes:
    """samples, seeds and recipe, as the command line writes them, latents where there are some, and about."""
    content = io.BytesIO()
    arrays: dict[str, Any] = {
        "samples": made.samples, "seeds": np.array(made.seeds, np.uint64),
        "recipe": np.array(json.dumps(made.recipe)), "about": np.array(json.dumps(about)),
    }  # fmt: skip
    if made.latents is not None:
        arrays["latents"] = made.latents
    np.savez(content, **arrays)
    return content.getvalue()


def tensors(made: Made, about: Mapping[str, Any]) -> bytes:
    """The same as safetensors: recipe and about are its metadata, and seeds are int64 of the same bits."""
    seeds = np.array(made.seeds, np.uint64).view(np.int64)
    arrays = {"samples": np.ascontiguousarray(made.samples), "seeds": seeds}
    if made.latents is not None:
        arrays["latents"] = np.ascontiguousarray(made.latents)
    texts = {METADATA_KEY: json.dumps(made.recipe), "about": json.dumps(about)}
    return safetensors.numpy.save(arrays, metadata=texts)


def alone(denoised: np.ndarray, form: str) -> tuple[str, bytes]:
    """A preview as npz or safetensors, and which."""
    if form == NPZ:
        content = io.BytesIO()
        np.savez(content, denoised=denoised)
        return "npz", content.getvalue()
    return "safetensors", safetensors.numpy.save({"denoised": np.ascontiguousarray(denoised)})


def read_tensors(given: str) -> dict[str, np.ndarray]:
    """float32 tensors by name, of the base64 of a safetensors file. Raises ValueError."""
    try:
        content = base64.b64decode(given, validate=True)
        found = safetensors.deserialize(content)
    except (binascii.Error, ValueError, safetensors.SafetensorError):
        raise ValueError(
            "tensors is no base64 of a safetensors file; write one, and encode it"
        ) from None
    made = {}
    for name, about in found:
        kind, shape = about["dtype"], about["shape"]
        if name not in TENSORS:
            raise ValueError(f"tensors holds {name[:80]!r}; it may hold {', '.join(TENSORS)}")
        if kind not in FLOATS or len(shape) > AXES or 0 in shape:
            raise ValueError(
                f"tensors: {name} is {kind} {shape[:AXES]}; give float32 or float16 of at least one value"
            )
        array = np.frombuffer(about["data"], FLOATS[kind]).reshape(shape)
        made[name] = array.astype(np.float32)
    return made
