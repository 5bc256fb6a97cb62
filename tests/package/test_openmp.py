"""A process has one OpenMP: the C++ module binds to the one that torch brought, and brings none."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

PROGRAM = """\
from diffusion_engine.backends import native
native.loaded("_cpu")
for line in open("/proc/self/maps"):
    if "gomp" in line:
        print(line.split()[-1])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there is no C++ module")
def test_the_module_runs_on_torchs_openmp():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    mapped = {Path(line).resolve() for line in done.stdout.splitlines()}
    assert len(mapped) == 1, mapped
    torchs = Path(torch.__file__).parent / "lib" / "libgomp.so.1"
    if torchs.exists():  # a torch of a distribution takes the system's
        assert mapped == {torchs.resolve()}
