"""The images that samples begin with or keep, read for a network: as latents where it samples these."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.nn import functional as F

from .pictures import read_images

if TYPE_CHECKING:
    from ..networks.network import ScoreNetwork


def image_shape(network: ScoreNetwork) -> tuple[int, ...]:
    """Of an image that is made of a sample."""
    decoder = network.decoder
    return network.shape if decoder is None else decoder.image_shape(network.shape)


def read_state(path: Path, network: ScoreNetwork, noised: bool = False) -> Tensor:
    """[n, *shape] of a file, pictures encoded by the network's decoder; `noised` as read_images takes it.

    Raises ValueError where the file holds neither images nor latents of the network's.
    """
    decoder = network.decoder
    if decoder is None or decoder.encoder is None or noised:
        return read_images(path, network.shape, network.state_shape, noised)
    shape = decoder.image_shape(network.shape)
    found = read_images(path, shape, network.shape)
    return decoder.encode(found) if tuple(found.shape[1:]) == shape else found


def read_region(known: Path | None, mask: Path | None, network: ScoreNetwork) -> dict[str, Any]:
    """mask and known of Sampler.sample, of pictures: a mask is white where samples are free.

    A latent is free where any of its pixels is. Raises ValueError where one is given without the other.
    """
    if (known is None) != (mask is None):
        raise ValueError("--known and --mask go together: an image, and where samples keep it")
    if known is None or mask is None:
        return {}
    shape = image_shape(network)
    free = (read_images(mask, (1, *shape[1:])) > 0.0).float()
    if shape != network.shape:
        free = F.adaptive_max_pool2d(free, network.shape[1:])
    return {"mask": free, "known": read_state(known, network)}


def spread(images: Tensor | None, n: int) -> Tensor | None:
    """Images for n samples, of which one is for all."""
    if images is None or len(images) == n or len(images) > 1:
        return images
    return images.expand(n, *images.shape[1:])
