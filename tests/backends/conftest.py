"""The CUDA module."""

import pytest
from setup_file import setup_py

from diffusion_engine.backends import native


@pytest.fixture(scope="module")
def cuda():
    loaded = native.module("_cuda")
    if isinstance(loaded, str) and setup_py.find_nvcc() is None:
        pytest.skip(f"nvcc is not installed, so {loaded}")
    assert not isinstance(loaded, str), loaded
    return loaded
