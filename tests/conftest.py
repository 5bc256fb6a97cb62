"""Set up before any test module is imported."""

import importlib.util
import os

# libgomp's threads would spin while they wait, and a worker of pytest-xdist has a core to itself; what
# depends on the number of threads sets it. Read when libgomp is loaded, with torch.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch

if not torch.cuda.is_available():
    # Read when triton is first imported: its kernels then run on CPU tensors.
    os.environ.setdefault("TRITON_INTERPRET", "1")

import slow_first
from poison import poison
from process_state import kept

from diffusion_engine.backends import native


def pytest_configure(config):
    """pytest-xdist would deal out the files with the most tests first; the order is `slow_first`'s."""
    if hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False


def pytest_collection_modifyitems(items):
    """The tests of every backend pass over Triton's where it is not installed."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        items[:] = slow_first.ordered(items)
    if importlib.util.find_spec("triton") is None:
        for item in items:
            if "triton" in item.nodeid:
                item.add_marker(pytest.mark.skip(reason="triton is not installed"))


@pytest.fixture(scope="session", autouse=True)
def unwritten_memory_shows():
    """Kernels that leave a part of their output unwritten are found by every comparison."""
    with pytest.MonkeyPatch.context() as patch:
        poison(patch)
        yield


@pytest.fixture(autouse=True)
def process_is_kept():
    """What a test sets for the process ends with it."""
    with kept():
        yield


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path_factory, request):
    """What is measured in a test is kept for nobody else: a folder that is made where it is written to."""
    folder = tmp_path_factory.getbasetemp() / "cache" / f"{abs(hash(request.node.nodeid)):x}"
    monkeypatch.setenv("DIFFUSION_ENGINE_CACHE", str(folder))
    return folder


@pytest.fixture(params=["scalar", "avx2", "avx512"])
def isa(request):
    """The instructions of the CPU kernels: each that this processor has."""
    cpu = native.module("_cpu")
    if request.param not in cpu.isas():
        pytest.skip(f"this processor has no {request.param}")
    cpu.set_isa(request.param)
    return request.param
