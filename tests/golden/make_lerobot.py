"""Records what the U-Net of lerobot's diffusion policy returns: lerobot.json.

Run in an environment that has lerobot: PYTHONPATH=tests/helpers python tests/golden/make_lerobot.py
"""

import json
from pathlib import Path
from types import SimpleNamespace

import torch
from lerobot.policies.diffusion.modeling_diffusion import DiffusionConditionalUnet1d
from lerobot_cases import CONDITION, UNET, given, weights

HERE = Path(__file__).parent


def main():
    made = {}
    for scales in (True, False):
        config = UNET | {"use_film_scale_modulation": scales, "gradient_checkpointing": False}
        config = SimpleNamespace(**config, action_feature=SimpleNamespace(shape=(2,)))
        net = DiffusionConditionalUnet1d(config, global_cond_dim=CONDITION).eval()
        shapes = {name: list(tensor.shape) for name, tensor in net.state_dict().items()}
        net.load_state_dict(weights(shapes))
        with torch.no_grad():
            out = net(*given())
        made[str(scales)] = {"shapes": shapes, "out": out.flatten().tolist()}
    (HERE / "lerobot.json").write_text(json.dumps(made) + "\n")


if __name__ == "__main__":
    main()
