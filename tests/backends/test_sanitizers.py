"""The C++ sources under the compiler's sanitizers: tests/native/driver.cpp runs every CPU kernel on many
shapes, from several threads, for every instruction set of the machine, tests/native/tasks.cpp the
operations of recorded networks, and tests/native/programs.cpp random programs on shared pools.

GCC's own libgomp is no code that ThreadSanitizer was told of: its barriers look like races. So
tests/native/gomp.cpp takes its place, and nothing has to be suppressed.
"""

import os
import shlex
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest
from setup_file import ROOT, setup_py

CXX = os.environ.get("CXX", "c++")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(5400),
    pytest.mark.skipif(shutil.which(shlex.split(CXX)[0]) is None, reason="no C++ compiler"),
]

KINDS = {
    "thread": ("-fsanitize=thread", 40),
    "address-undefined": ("-fsanitize=address,undefined -fno-sanitize-recover=all", 200),
}


def compiler(*arguments):
    done = subprocess.run(
        [*shlex.split(CXX), *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]


def build(folder, sanitizer):
    """The driver with the kernels; libgomp is not linked."""
    flags = [*shlex.split(setup_py.CXX_FLAGS.replace("-O3", "-O1")), "-g", *shlex.split(sanitizer)]
    flags += [f"-Icsrc{part}" for part in ("", "/common", "/cpu")] + ["-DDE_X86"] * setup_py.X86
    kernels = [p for p in sorted((ROOT / "csrc" / "cpu").rglob("*.cpp")) if p.name != "bind.cpp"]
    kernels = [p for p in kernels if setup_py.X86 or not setup_py.isa_flags(p.name)]
    own = sorted((ROOT / "tests" / "native").glob("*.cpp"))

    def compiled(source):
        isa = shlex.split(setup_py.isa_flags(source.name))
        plain = [flag for flag in flags if source in kernels or flag != "-fopenmp"]
        made = str(folder / f"{source.parent.name}.{source.stem}.o")
        compiler(*plain, *isa, "-c", str(source), "-o", made)
        return made

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(compiled, [*kernels, *own]))
    program = folder / "driver"
    compiler(*shlex.split(sanitizer), "-pthread", *objects, "-o", str(program))
    return program


def run(program, cases):
    """The driver without random addresses: newer kernels spread them wider than ThreadSanitizer expects."""
    fixed = shutil.which("setarch")
    command = [*([fixed, "-R"] if fixed else []), str(program), str(cases)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("kind", KINDS)
def test_kernels(tmp_path, kind):
    sanitizer, cases = KINDS[kind]
    done = run(build(tmp_path, sanitizer), cases)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
