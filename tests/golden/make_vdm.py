"""Records what google-research/vdm's score network and noise schedule return: vdm.json.

Run with jax and flax, and that repository's folder on the path:
PYTHONPATH=VDM:tests/helpers python tests/golden/make_vdm.py
"""

import json
from pathlib import Path

import flax
import jax
import jax.numpy as jnp
import model_vdm
import numpy as np
from vdm_cases import SIZE, given, weights

HERE = Path(__file__).parent
CONFIG = {
    "vocab_size": 256,
    "sample_softmax": False,
    "antithetic_time_sampling": True,
    "with_fourier_features": True,
    "with_attention": True,
    "gamma_type": "learnable_nnet",
    "gamma_min": -13.3,
    "gamma_max": 5.0,
    "sm_n_timesteps": 0,
    "sm_n_embd": 64,  # of 32 each group of a norm has one channel, which takes the time away again
    "sm_n_layer": 1,
    "sm_pdrop": 0.1,
}


def main():
    flax.linen.normalization = flax.linen  # as it was called in 2022
    model = model_vdm.VDM(model_vdm.VDMConfig(**CONFIG))
    key, images = jax.random.PRNGKey(0), jnp.zeros((2, SIZE, SIZE, 3), "uint8")
    tree = model.init({"params": key, "sample": key}, images, jnp.zeros(2))["params"]
    flat = flax.traverse_util.flatten_dict(tree, sep="/")
    shapes = {name: list(value.shape) for name, value in flat.items()}
    params = {"params": flax.traverse_util.unflatten_dict(weights(shapes), sep="/")}
    z, t, conditioning = given()
    gamma = model.apply(params, t, method=lambda net, t: net.gamma(t))
    eps = model.apply(params, z, gamma, conditioning, method=lambda net, *g: net.score_model(*g))
    made = {
        "config": CONFIG | {"image_size": SIZE},
        "shapes": shapes,
        "gamma": np.asarray(gamma).tolist(),
        "eps": np.asarray(eps).ravel().tolist(),
    }
    (HERE / "vdm.json").write_text(json.dumps(made) + "\n")


if __name__ == "__main__":
    main()
