"""Warnings of samples that met a value that is not finite."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

from torch import Tensor


def warn_nonfinite(seeds: Sequence[int], finite: list[bool]) -> None:
    """Names the samples that a run lost."""
    lost = [s for s, ok in zip(seeds, finite, strict=True) if not ok]
    warnings.warn(
        f"samples of seeds {lost} met a value that is not finite; the network returned it, "
        f"or the state overflowed: check the weights, the dtype and the guidance scale",
        RuntimeWarning,
        stacklevel=5,
    )


def finite_images(seeds: Sequence[int], finite: list[bool], images: Tensor) -> list[bool]:
    """Which samples are finite in the run and as images; names those that the decoder lost."""
    sound = images.flatten(1).isfinite().all(dim=1).tolist()
    lost = [s for s, was, ok in zip(seeds, finite, sound, strict=True) if was and not ok]
    if lost:
        warnings.warn(
            f"the decoder made values that are not finite of the latents of seeds {lost}: check its weights, "
            f"its dtype (some overflow in float16) and its scale factor",
            RuntimeWarning,
            stacklevel=5,
        )
    return [was and ok for was, ok in zip(finite, sound, strict=True)]
