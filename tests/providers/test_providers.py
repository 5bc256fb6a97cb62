"""executor="onnxruntime" and "openvino": the samples are torch's, whatever a call is made of."""

import pytest
import torch
from native_cases import small
from optional import needs

from diffusion_engine import Sampler
from diffusion_engine.providers import OnnxRuntime, OpenVINO, export

GIVEN = {"seeds": [1, 2, 3], "condition": [0, 1, 0], "guidance": 2.0}
WAIT = 120


@pytest.fixture(scope="module", params=["onnxruntime", "openvino"])
def executor(request):
    """One of each, which keeps what it opened."""
    needs("onnx"), needs("onnxscript")
    if request.param == "openvino":
        needs("openvino")
        return OpenVINO(threads=1)
    needs("onnxruntime")
    return OnnxRuntime(threads=1)


@pytest.fixture(scope="module")
def network():
    return small()


def close(own, executor, given=None, solver="ddim", **how):
    """The samples, which are those of torch within rounding."""
    given = given or GIVEN
    made = Sampler(own, solver, 3, executor=executor, **how).sample(**given)
    want = Sampler(own, solver, 3, **how).sample(**given)
    assert torch.allclose(made.samples, want.samples, rtol=1e-4, atol=1e-4)
    return made


def test_samples_are_those_of_torch(network, executor):
    made = close(network, executor)
    assert made.recipe["network_form"] == f"{executor.name}/{executor.version}/float32"
    assert made.recipe["threads"] == 1
    close(network, executor, {"n": 1, "seed": 4})
    close(network, executor, {"x": torch.randn(2, 1, 6, 5), "noised": True, "condition": 1})


def test_the_export_is_made_once_for_both(network, executor):
    close(network, executor)
    assert len(export._known[network]) == 1
