"""Small networks of the NCSN++ family as their repositories save them, with weights of a formula."""

import copy
import hashlib
import json
import math
from pathlib import Path

import numpy as np
import safetensors.torch
import torch

from diffusion_engine.adapters.checkpoint import on_meta
from diffusion_engine.adapters.ncsnpp.network import NCSNpp, sigma_row
from diffusion_engine.ops import philox

GOLDEN = Path(__file__).parents[1] / "golden" / "ncsnpp.safetensors"
REFERENCE = {"dtype": torch.float64, "backend": "torch"}


def numbers(shape, k):
    """Numbers of variance 1 that look random, the same anywhere: parts of large sines."""
    count = math.prod(shape)
    parts = np.sin(np.arange(1, count + 1) * 12.9898 + 0.618 * k) * 43758.5453
    return torch.from_numpy(((parts % 1.0) * 2.0 - 1.0) * math.sqrt(3.0)).float().reshape(shape)


def weights(module):
    """Numbers for all that a module holds, on "meta" or not, of a size at which it stays tame."""
    made, held = {}, module.state_dict()
    held.pop("sigmas", None)  # made of the config
    for k, (name, tensor) in enumerate(sorted(held.items())):
        size = tensor[0].numel() if tensor.ndim > 1 else 25
        made[name] = numbers(tensor.shape, k) / math.sqrt(size)
        if name.endswith("weight") and tensor.ndim == 1:
            made[name] += 1.0  # of a norm
        if name == "all_modules.0.W":
            made[name] *= 5.0
    return made


def image(parts=1):
    """What networks are shown: [2, 3, 4, 4], or [x, v] of one channel each."""
    return numbers((2, 3, 4, 4) if parts == 1 else (2, parts, 4, 4), 1000)


def times():
    return torch.tensor([0.02, 0.9])


def labels(config):
    """Of two times, as the network of a config is told."""
    training = config.get("training", {})
    if config["format"] == "cld_sgm":
        return times()
    if config["format"] == "ddgan" or not training["continuous"]:
        return torch.tensor([1, 3] if training.get("sde") != "vpsde" else [1.0, 3.0])
    return torch.tensor([0.05, 20.0]) if training["sde"] == "vesde" else 999.0 * times()


def latent():
    return numbers((2, 10), 1001)


def small():
    """What an upsampler is shown, [2, 3, 2, 2]."""
    return numbers((2, 3, 2, 2), 1002)


def digest(module):
    """Of the names of what was trained, in its order, and of all that its checkpoint holds."""
    trained = [name for name, weight in module.named_parameters() if weight.requires_grad]
    held = sorted(set(module.state_dict()) - {"sigmas"})
    return hashlib.sha256("\n".join([*trained, *held]).encode()).hexdigest()


def save(folder, config, tensors):
    folder.mkdir(exist_ok=True)
    safetensors.torch.save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def save_network(folder, config, architecture, **more):
    """As its repository does, with the buffers that it has besides."""
    return save(folder, config, weights(on_meta(lambda: NCSNpp(architecture))) | more)


def levels(low, high, count):
    """The buffer that score_sde's networks carry."""
    return {"sigmas": sigma_row(low, high, count)}


def called(module):
    """A copy of a network as a function of numpy in float64: model(x, label), whole labels as int64."""
    module = copy.deepcopy(module).double()

    def model(x, label, *rest):
        dtype = torch.int64 if isinstance(label, int) else torch.float64
        labels = torch.full((len(x),), label, dtype=dtype)
        with torch.no_grad():
            return module(torch.from_numpy(x), labels, *map(torch.from_numpy, rest)).numpy()

    return model


def normals(key, shape, seeds):
    """[samples, *shape], those of a row's key."""
    seed = torch.tensor(seeds)
    made = philox.normals(seed, torch.full_like(seed, key), 0, math.prod(shape))
    return made.double().numpy().reshape(len(seeds), *shape)
