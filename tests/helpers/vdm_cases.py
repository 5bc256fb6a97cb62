"""Weights and inputs of a small network of VDM, the same in jax and here."""

import numpy as np

SIZE = 4


def weights(shapes):
    """Numbers for every name of a tree, in the order of the names."""
    numbers = np.random.default_rng(0)
    return {
        name: (name.endswith("scale") + 0.1 * numbers.standard_normal(shapes[name])).astype(
            "float32"
        )
        for name in sorted(shapes)
    }


def given():
    """z, t and conditioning."""
    numbers = np.random.default_rng(1)
    z = numbers.standard_normal((2, SIZE, SIZE, 3)).astype("float32")
    return z, np.array([0.1, 0.8], "float32"), np.array([0.0, 2.0], "float32")
