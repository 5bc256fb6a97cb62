"""Pictures and arrays in files."""

import numpy as np
import safetensors.torch
import torch

SHAPES = {1: (1, 4, 6), 3: (3, 4, 6)}  # two more pixels across than down, so that none are mixed up
RAMP = np.linspace(0, 255, 24).astype(np.uint8).reshape(4, 6)


def saved(tmp_path, image, name="x.png", **options):
    path = tmp_path / name
    image.save(path, **options)
    return path


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
