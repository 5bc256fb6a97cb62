"""From latents to images, after the loop: x = module(z / scale_factor + shift)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from .. import checks
from .outputs import sample
from .placement import compute_dtype, evaluating, first_weight

SCALE = "latents are divided by it; give the autoencoder's, such as Stable Diffusion's 0.18215"
OVERLAP = "between 0 and 0.5 of a tile"


@dataclass(frozen=True, eq=False)
class Decoder:
    """An autoencoder's second half, for Sampler(network, decoder=...) or by itself.

    module        called as module(z) with z [n, C, H, W] or other pixels; returns [n, channels, f H, f W]
                  with a whole factor f, as a tensor
    scale_factor  of the latents, not 0; shift is added after the division (Rombach et al. 2022)
    tile          latents a side that are decoded at once, overlapping; None decodes all of them
    overlap       part of a tile that it shares with the next, 0 to 0.5. The blend takes place in the
                  overlap's middle half: a module whose output at a place depends on no latent farther
                  than overlap x tile / 4 away makes the same image as without tiles
    channels      C, where known
    batch_size    latents decoded, or images encoded, in one call at most
    encoder       the first half, for `encode`: called as encoder(images), it returns z
    preview       a linear map of z to small pictures, for what is seen on the way; called with latents as the
                  decoder itself is, they are made of z

    Raises ValueError where a number makes no sense.
    """

    module: Callable[[Tensor], Tensor]
    scale_factor: float = 1.0
    shift: float = 0.0
    tile: int | None = None
    overlap: float = 0.25
    channels: int | None = None
    batch_size: int = 8
    encoder: Callable[[Tensor], Tensor] | None = None
    preview: Callable[[Tensor], Tensor] | None = None

    def __post_init__(self) -> None:
        settle = partial(checks.settle, self)
        settle("module", checks.function, "give a torch.nn.Module or a function of latents")
        settle("scale_factor", checks.number, SCALE)
        settle("shift", checks.number)
        settle("tile", checks.whole, 2, "at least 2 whole latents a side, or None")
        settle("overlap", checks.number, OVERLAP)
        settle("channels", checks.whole, 1, "the latents' channels, 1 or more, or None")
        settle("batch_size", checks.whole, 1, "at least 1 latent a call")
        settle(
            "encoder", checks.function, "give a torch.nn.Module or a function of images, or None"
        )
        settle("preview", checks.function, "give a linear map of latents, or None")
        if self.scale_factor == 0.0:
            raise ValueError(f"scale_factor={self.scale_factor!r}: {SCALE}")
        if not 0.0 <= self.overlap <= 0.5:
            raise ValueError(f"overlap={self.overlap:g}: {OVERLAP}")
        if self.preview is not None:
            linear = self.preview.linear if isinstance(self.preview, Preview) else self.preview
            made = Preview(linear, self.scale_factor, self.shift)
            object.__setattr__(self, "preview", made)

    def placed(self, shape: tuple[int, ...], device: torch.device) -> Decoder:
        """The decoder on a device, a copy where it lies elsewhere, for latents of a shape (C, *pixel).

        Raises ValueError where it takes latents of another number of channels.
        """
        if self.channels is not None and self.channels != shape[0]:
            raise ValueError(
                f"the decoder takes latents of {self.channels} channels and the network makes {shape[0]}; "
                "give the autoencoder that the network was trained with"
            )
        weights = first_weight(self.module)
        if weights is None or weights.device == device:
            return self
        linear = self.preview.linear if isinstance(self.preview, Preview) else None
        # At once, since they may share weights.
        parts: Any = copy.deepcopy((self.module, self.encoder, linear))
        module, encoder, preview = (p.to(device) if isinstance(p, nn.Module) else p for p in parts)
        return replace(self, module=module, encoder=encoder, preview=preview)

    def __call__(self, latents: Tensor) -> Tensor:
        """[n, C, *pixel] to images [n, channels, *pixel], in the latents' type; reckoned in the module's."""
        floats = isinstance(latents, Tensor) and latents.is_floating_point()
        if not floats or latents.ndim < 3 or self.channels not in (None, latents.shape[1]):
            wanted = "C" if self.channels is None else self.channels
            raise ValueError(
                f"latents={checks.said(latents)}: give a floating-point tensor [n, {wanted}, *pixel]"
            )
        z = latents / self.scale_factor + self.shift
        with evaluating(self.module):
            return torch.cat([self._whole(part) for part in z.split(self.batch_size)])

    def encode(self, images: Tensor) -> Tensor:
        """[n, channels, *pixel] in [-1, 1] to the latents [n, C, *pixel] that decode to nearly them.

        Raises ValueError where there is no encoder, or the images are none of its.
        """
        if self.encoder is None:
            raise ValueError(
                "the decoder has no encoder: give Decoder(encoder=...), or latents in place of images"
            )
        if not (isinstance(images, Tensor) and images.is_floating_point() and images.ndim > 2):
            raise ValueError(
                f"images={checks.said(images)}: give a floating-point tensor [n, channels, *pixel]"
            )
        encoder, found = self.encoder, []
        with evaluating(encoder), torch.no_grad():
            for part in images.split(self.batch_size):
                z = sample(encoder(_for(encoder, part)))
                if not (isinstance(z, Tensor) and z.ndim == images.ndim and len(z) == len(part)):
                    raise ValueError(
                        f"the encoder made {checks.said(z)} of images {list(part.shape)}; it has to return a "
                        "tensor of as many latents"
                    )
                found.append((z.to(images) - self.shift) * self.scale_factor)
        return torch.cat(found)

    def image_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Of an image, by that of its latent: one of zeros is decoded."""
        weights = first_weight(self.module)
        device = None if weights is None else weights.device
        with torch.no_grad():
            return tuple(self(torch.zeros(1, *shape, device=device)).shape[1:])

    @property
    def levels(self) -> dict[str, float]:
        """What a recipe keeps of it: the numbers that images depend on beside the module."""
        return {"scale_factor": float(self.scale_factor), "shift": float(self.shift)}

    def _whole(self, z: Tensor) -> Tensor:
        if self.tile is None:
            return self._decode(z)
        return self._joined(z, 2)

    def _joined(self, z: Tensor, axis: int) -> Tensor:
        """Tiles along an axis, each joined along those after it."""
        assert self.tile is not None
        if axis == z.ndim:
            return self._decode(z)
        size = z.shape[axis]
        made = self._joined(z.narrow(axis, 0, min(self.tile, size)), axis + 1)
        factor, low = made.shape[axis] // min(self.tile, size), 0
        stride = max(1, self.tile - int(self.overlap * self.tile))
        while low + self.tile < size:
            low = min(low + stride, size - self.tile)
            tile = self._joined(z.narrow(axis, low, self.tile), axis + 1)
            made = _blend(made, tile, axis, low * factor)
        return made

    def _decode(self, z: Tensor) -> Tensor:
        image = sample(self.module(_for(self.module, z)))
        fits = (
            isinstance(image, Tensor)
            and image.ndim == z.ndim
            and len(image) == len(z)
            and len({b / a for a, b in zip(z.shape[2:], image.shape[2:], strict=True)}) == 1
            and image.shape[-1] % z.shape[-1] == 0
        )
        if not fits:
            got = list(image.shape) if isinstance(image, Tensor) else type(image).__name__
            raise ValueError(
                f"the decoder made {got} of latents {list(z.shape)}; it has to return a tensor of as many "
                "images, every side a whole number of times as long"
            )
        return image.to(z.dtype)


@dataclass(frozen=True, eq=False)
class Preview:
    """Small pictures [n, 3, h, w] of latents [n, C, h, w]: linear(z), z as the decoder's module takes it."""

    linear: Callable[[Tensor], Tensor]
    scale_factor: float
    shift: float

    def __call__(self, latents: Tensor) -> Tensor:
        z = latents / self.scale_factor + self.shift
        with torch.no_grad():
            return self.linear(_for(self.linear, z)).to(latents)


def _for(module: Any, given: Tensor) -> Tensor:
    """What a module is given, where its weights are and in what it computes."""
    weights = first_weight(module)
    return given if weights is None else given.to(weights.device, compute_dtype(module))


def fitting(decoder: Decoder, made_with: Mapping[str, float] | None) -> None:
    """Raises ValueError where a recipe's images were made with another scale than the decoder's."""
    if made_with is not None and decoder.levels != dict(made_with):
        raise ValueError(
            f"the recipe's images were decoded with {_said(made_with)} and this decoder has "
            f"{_said(decoder.levels)}; give it the same"
        )


def _said(levels: Mapping[str, float]) -> str:
    return " and ".join(f"{name}={value:g}" for name, value in levels.items())


def _blend(made: Tensor, tile: Tensor, axis: int, low: int) -> Tensor:
    """`made` with a tile laid on from `low` on; where both are, it passes from one to the other."""
    shared = made.shape[axis] - low
    if shared <= 0:
        return torch.cat([made, tile], dim=axis)
    before, after = made.narrow(axis, low, shared), tile.narrow(axis, 0, shared)
    place = (torch.arange(shared, device=made.device, dtype=made.dtype) + 0.5) / shared
    # What lies near the edge of a tile was decoded without its surroundings: it has no weight.
    weight = (2.0 * place - 0.5).clamp(0.0, 1.0)
    weight = weight.view([-1 if i == axis else 1 for i in range(made.ndim)])
    both = torch.lerp(before, after, weight)
    rest = tile.narrow(axis, shared, tile.shape[axis] - shared)
    return torch.cat([made.narrow(axis, 0, low), both, rest], dim=axis)
