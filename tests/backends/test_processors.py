"""The tests that compare numbers, with the instructions that torch and oneDNN can be told to use."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import diffusion_engine
from diffusion_engine.backends import native
from diffusion_engine.ops.table import IMPLEMENTATIONS

FOLDER = Path(__file__).parents[1]
# what our kernels are compiled for -> settings of torch and of oneDNN
SETTINGS = {
    "scalar": {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41"},
    "avx2": {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"},
    "avx512": {"ATEN_CPU_CAPABILITY": "avx512", "ONEDNN_MAX_CPU_ISA": "AVX512_CORE"},
}
TOGETHER = {"norms": "reductions", "quantile": "reductions"}  # ops that one file tests
NAMES = (
    *sorted({TOGETHER.get(op, op) for op, _ in IMPLEMENTATIONS}),
    "accelerate", "accelerate_blocks", "accelerate_convolutions", "classifier", "cld_golden", "cld_runs",
    "composition", "cpp", "guidance", "plain", "requests", "sampler", "sde", "solvers", "testing", "zoo",
)  # fmt: skip
FILES = [str(next(FOLDER.rglob(f"test_{name}.py"))) for name in NAMES]


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
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "not triton", *FILES],
        env=os.environ | settings, cwd=FOLDER.parent, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, f"{settings}\n{done.stdout}\n{done.stderr}"
