"""Where nothing is compiled and there is no Triton and no NVTX (macOS), all is imported and torch samples."""

import subprocess
import sys

import pytest

from diffusion_engine import Sampler
from diffusion_engine.processes import VP
from diffusion_engine.testing import Mixture

HIDDEN = """\
import sys
names = "triton", "nvtx", "diffusion_engine._cpu", "diffusion_engine._cuda"
sys.modules.update(dict.fromkeys(names))
"""
IMPORTS = """\
import pkgutil
from importlib import import_module
import diffusion_engine
found = [m.name for m in pkgutil.walk_packages(diffusion_engine.__path__, "diffusion_engine.")]
others = "diffusion_engine.kernels", "diffusion_engine._", "diffusion_engine.cli.__main__"
ours = [name for name in found if not name.startswith(others)]
for name in ours:
    import_module(name)
print(len(ours))
"""
SAMPLES = """\
from diffusion_engine import Sampler
from diffusion_engine.processes import VP
from diffusion_engine.testing import Mixture
for solver in {solvers!r}:
    made = Sampler(Mixture().network(VP()), solver, 5).sample(seeds=[3, 4])
    print(solver, made.samples.numpy().tobytes().hex())
"""
REPORT = """\
from diffusion_engine.cli.doctor import report
found = report()
chosen = {row["op"]: row["backend"] for row in found["ops"] if row["chosen"]}
assert set(chosen.values()) <= {"torch", "sdpa"}, chosen
assert "C++ kernels not built" in found["devices"]["cpu"]
assert not any(row["ran"] for row in found["self_test"] if row["device"] == "cpu")
"""
SOLVERS = ["dpmpp_2m_sde", "unipc"]


def hidden(program):
    done = subprocess.run([sys.executable, "-c", HIDDEN + program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done


def test_everything_is_imported_and_doctor_says_what_is_missing():
    assert int(hidden(IMPORTS + REPORT).stdout) > 100


@pytest.fixture(scope="module")
def sampled():
    """A process that samples with each solver."""
    return hidden(SAMPLES.format(solvers=SOLVERS))


def test_torch_in_place_of_cpp_is_said_once(sampled):
    said = "RuntimeWarning: torch runs in place of C++, slower. diffusion_engine._cpu is not built"
    assert sampled.stderr.count(said) == (1 if sys.platform == "linux" else 0), sampled.stderr


@pytest.mark.parametrize("solver", SOLVERS)
def test_samples_are_the_same(sampled, solver):
    here = Sampler(Mixture().network(VP()), solver, 5).sample(seeds=[3, 4]).samples
    made = dict(line.split() for line in sampled.stdout.splitlines())
    assert made[solver] == here.numpy().tobytes().hex()
