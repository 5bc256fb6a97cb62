"""The tests that compare numbers, with the instructions that torch and oneDNN can be told to use."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import diffusion_engine
from diffusion_engine.backends import native

FOLDER = Path(__file__).parents[1]
# what our kernels are compiled for -> settings of torch and of oneDNN
SETTINGS = {
    "scalar": {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41"},
    "avx2": {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"},
    "avx512": {"ATEN_CPU_CAPABILITY": "avx512", "ONEDNN_MAX_CPU_ISA": "AVX512_CORE"},
}
FILES = (
    "accelerate", "accelerate_conv_forms", "accelerate_diffusers", "attention", "brownian", "classifier",
    "cld_golden", "cld_runs", "composition", "conv3x3", "cpp", "group_norm", "guidance", "noise", "plain",
    "requests", "sampler", "sde", "solvers", "step", "testing", "zoo",
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("threads", ["1", "2"])
@pytest.mark.parametrize("isa", SETTINGS)
def test_numbers(isa, threads):
    if isa not in native.module("_cpu").isas():
        pytest.skip(f"this processor has no {isa}")
    settings = SETTINGS[isa] | {
        "OMP_NUM_THREADS": threads,
        "PYTHONPATH": str(Path(diffusion_engine.__file__).parents[1]),
    }
    files = [str(next(FOLDER.rglob(f"test_{name}.py"))) for name in FILES]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "not triton", *files],
        env=os.environ | settings, cwd=FOLDER.parent, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, f"{settings}\n{done.stdout}\n{done.stderr}"
