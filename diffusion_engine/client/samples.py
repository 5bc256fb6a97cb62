"""`Samples`: what comes back of a request, as numpy has it."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

KEY = "diffusion_engine"  # of a recipe in the metadata of PNG and safetensors


@dataclass(frozen=True, eq=False)
class Samples:
    """Samples that a server made, with the floats that it made.

    samples      [n, *shape] float32
    seeds        of each sample
    nfe          calls of the network that a sample sees one after another
    evaluations  of all samples together, guidance branches counted
    recipe       JSON-able; with the network it makes the same samples again (Sampler.replay)
    finite       of each sample: whether all values were
    about        what else the server said: the request's id, its model, seconds, its driver's reports
    latents      [n, *shape] float32 where a decoder made the samples, else None
    """

    samples: np.ndarray
    seeds: list[int]
    nfe: int
    evaluations: int
    recipe: dict[str, Any]
    finite: list[bool]
    about: dict[str, Any]
    latents: np.ndarray | None = None

    @classmethod
    def read(cls, content: bytes) -> Samples:
        """Those of an answer.

        content  a safetensors file
        Raises ValueError where it is none.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load

        try:
            tensors = load(content)
            size = int.from_bytes(content[:8], "little")
            texts = json.loads(content[8 : 8 + size])["__metadata__"]
            about, recipe = json.loads(texts["about"]), json.loads(texts[KEY])
            seeds = tensors["seeds"].view(np.uint64).tolist()
            nfe, evaluations, finite = (about.pop(n) for n in ("nfe", "evaluations", "finite"))
            samples, latents = tensors["samples"], tensors.get("latents")
            return cls(samples, seeds, nfe, evaluations, recipe, finite, about, latents)
        except (SafetensorError, ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"the answer holds no samples ({type(error).__name__}: {error})"
            ) from None

    def recipe_of(self, i: int) -> dict[str, Any]:
        """The recipe of sample `i` alone."""
        from ..sampler.spec import Recipe

        own = {k: [v[i]] for k, v in self.recipe.items() if k in Recipe.PER_SAMPLE and v}
        return self.recipe | own

    def png(self, i: int = 0) -> bytes:
        """Sample `i` as a PNG of 8 bits with its recipe. Raises ValueError where it is no image."""
        from PIL import Image
        from PIL.PngImagePlugin import PngInfo

        image = self.samples[i]
        if image.ndim != 3 or len(image) not in (1, 3):
            raise ValueError(
                f"a PNG holds 1 or 3 channels, sample {i} is {list(image.shape)}; save an .npz"
            )
        levels = np.clip(np.rint(image * 127.5 + 127.5), 0, 255).astype(np.uint8)
        pixels = levels[0] if len(image) == 1 else levels.transpose(1, 2, 0)
        about, made = PngInfo(), io.BytesIO()
        about.add_text(KEY, json.dumps(self.recipe_of(i)))
        Image.fromarray(pixels).save(made, "PNG", pnginfo=about)
        return made.getvalue()

    def save(self, path: str | Path) -> None:
        """Writes samples, seeds and recipe.

        path  .npz or .safetensors; of one sample also .png
        Raises ValueError where the name ends otherwise.
        """
        path = Path(path)
        ending = path.suffix.lower()
        if ending == ".png":
            if len(self.samples) != 1:
                raise ValueError(
                    f"{path.name}: a PNG holds one sample and there are {len(self.samples)}; use png(i)"
                )
            content = self.png()
        elif ending in WRITERS:
            content = WRITERS[ending](self)
        else:
            raise ValueError(f"{path.name}: choose a name ending in .npz, .safetensors or .png")
        path.write_bytes(content)


def _npz(made: Samples) -> bytes:
    file = io.BytesIO()
    recipe = np.array(json.dumps(made.recipe))
    np.savez(file, samples=made.samples, seeds=np.array(made.seeds, np.uint64), recipe=recipe)
    return file.getvalue()


def _safetensors(made: Samples) -> bytes:
    from safetensors.numpy import save

    tensors = {
        "samples": np.ascontiguousarray(made.samples),
        "seeds": np.array(made.seeds, np.uint64).view(np.int64),
    }
    return save(tensors, metadata={KEY: json.dumps(made.recipe)})


WRITERS = {".npz": _npz, ".safetensors": _safetensors}
