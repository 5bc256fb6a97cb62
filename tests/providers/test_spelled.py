"""Operations that an exporter or a runtime would take for others, or not at all."""

import pytest
import torch
from optional import needs
from torch.nn import functional

from diffusion_engine import Sampler, ScoreNetwork
from diffusion_engine.processes import VP


def odd(x, label):
    """0 / 1e-15 where x is negative; a size of 2 is not squeezed."""
    positive = functional.relu(x)
    return x.squeeze(1) + positive / (positive + 1e-15)


NETWORK = ScoreNetwork(odd, VP(), (2, 3, 3))


@pytest.mark.parametrize("executor", ["onnxruntime", "openvino"])
def test_operations_are_those_of_torch(executor):
    needs("onnxscript"), needs(executor)
    made = Sampler(NETWORK, "ddim", 2, executor=executor, threads=1).sample(2, seed=0).samples
    want = Sampler(NETWORK, "ddim", 2).sample(2, seed=0).samples
    assert torch.allclose(made, want, rtol=1e-4, atol=1e-4)
