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


def pytest_collection_modifyitems(items):
    """The tests of every backend pass over Triton's where it is not installed."""
    if importlib.util.find_spec("triton") is None:
        for item in items:
            if "triton" in item.nodeid:
                item.add_marker(pytest.mark.skip(reason="triton is not installed"))
