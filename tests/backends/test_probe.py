"""A GPU that the built CUDA module has no code or no driver for: "auto" goes on, doctor says why."""

from types import SimpleNamespace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from diffusion_engine.backends import native, step
from diffusion_engine.ops.registry import explain

SENTENCE = "no kernel of this build runs on cuda:1: no kernel image is available"


@pytest.fixture
def asked(monkeypatch):
    """Devices that a stand-in for the module was asked for; it runs on cuda:0 alone."""
    devices = []

    def objection(device):
        devices.append(device)
        return SENTENCE if device else None

    monkeypatch.setattr(native, "module", lambda name: SimpleNamespace(objection=objection))
    native._unfit.cache_clear()
    yield devices
    native._unfit.cache_clear()


def test_ops_go_on_to_triton(asked):
    """Tensors of a GPU that is not there; doctor prints what explain says."""
    ops = ("noise", "group_norm", "attention")  # those whose arguments are made without an index
    with FakeTensorMode():
        found = {op: dict(explain(op, "cuda:1")) for op in ops}
        found["attention"].pop("sdpa")  # torch's own
        fine = dict(explain("noise", "cuda:0"))
        args = SimpleNamespace(slots=torch.zeros(1, device="cuda:1"))
    assert found == {op: {"cuda": SENTENCE, "triton": None, "torch": None} for op in ops}
    assert fine["cuda"] is None
    assert step.CUDA.objection(args) == SENTENCE
    assert asked == [1, 0], "each device is asked once"
    reason = native.CUDA.objection("x", torch.zeros(1))
    assert reason == "_cuda works on cuda tensors; x is on cpu"


def test_the_module_says_what_is_missing(cuda):
    if torch.cuda.is_available():
        assert cuda.objection(0) is None
    else:
        assert "no kernel of this build runs on cuda:0: " in cuda.objection(0)
        assert "nvidia-smi" in cuda.objection(0)
