"""Memory that nobody wrote shows: what torch.empty and its kin return is NaN, and of integers the largest."""

import functools

import torch
from torch.utils._device import _device_constructors
from torch.utils._python_dispatch import _disable_current_modes

MAKERS = {
    torch: ("empty", "empty_like", "empty_permuted", "empty_strided"),
    torch.Tensor: ("new_empty", "new_empty_strided"),
}


def unwritten(dtype):
    """What stands in memory of this type that nobody wrote."""
    if dtype.is_floating_point or dtype.is_complex:
        return torch.nan
    return True if dtype == torch.bool else torch.iinfo(dtype).max


def poisoned(make):
    """The maker of tensors, whose tensors are filled. Who counts operations or versions sees none of it."""

    @functools.wraps(make)
    def made(*given, **options):
        tensor = make(*given, **options)
        plain = type(tensor) is torch.Tensor and tensor.layout is torch.strided
        if plain and not torch.compiler.is_compiling() and not tensor.is_meta:
            with _disable_current_modes():
                tensor.data.fill_(unwritten(tensor.dtype))
        return tensor

    return made


def poison(patch):
    """Fills what torch's makers return from now on.

    patch  pytest's MonkeyPatch, which ends it
    """
    _device_constructors()  # torch looks once, by their names, for whom a default device is
    for owner, names in MAKERS.items():
        for name in names:
            patch.setattr(owner, name, poisoned(getattr(owner, name)))
