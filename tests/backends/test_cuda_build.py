"""What nvcc makes of the CUDA kernels: registers, local memory, and no fused multiply-adds."""

import importlib.util
import os
import re
import shlex
import shutil
import subprocess

import pytest
from setup_file import ROOT, setup_py

pytestmark = [
    pytest.mark.skipif(setup_py.find_nvcc() is None, reason="nvcc is not installed"),
    pytest.mark.timeout(1200),
]

KERNELS = {
    "step": 15,
    "noise": 2,
    "brownian": 2,
    "group_norm": 12,
    "attention": 20,
    "norms": 3,
    "quantile": 1,
}
# Bytes of local memory of one kernel, its stack included: nvcc 12 and 13 need none, and a kernel that has
# outgrown the registers has hundreds.
LOCAL = 64
EXACT = (
    "step",
    "noise",
    "brownian",
    "norms",
    "quantile",
)  # which round every product and every sum


@pytest.fixture(scope="module", params=[pytest.param("sm_80", marks=pytest.mark.slow), "sm_90"])
def compiled(request, tmp_path_factory):
    """(folder, ptxas' report by source) of one architecture."""
    folder = tmp_path_factory.mktemp(request.param, numbered=False)
    flags = [*shlex.split(setup_py.NVCC_FLAGS), f"-arch={request.param}", "-Xptxas", "-v"]
    reports = {}
    for name in KERNELS:
        done = subprocess.run(
            [setup_py.find_nvcc(), *flags, "-cubin", "--keep", "--keep-dir", folder,
             "-I", ROOT / "csrc" / "common", "-o", folder / f"{name}.cubin",
             ROOT / "csrc" / "cuda" / f"{name}.cu"],
            cwd=folder, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        reports[name] = done.stdout + done.stderr
    return folder, reports


def short(symbol):
    """step_kernel<1,1,0> of _ZN2de...11step_kernelILi1ELb1ELb0EEE..."""
    name, values = re.search(r"\d([a-z_]+_kernel)I((?:L[ib]\d+E)+)E", symbol).groups()
    return f"{name}<{','.join(re.findall('[0-9]+', values))}>"


FIGURES = re.compile(
    r"Compiling entry function '(\S+)'.*?(\d+) bytes stack frame, (\d+) bytes spill stores, "
    r"(\d+) bytes spill loads.*?Used (\d+) registers[^\n]*?(?:(\d+) bytes smem[^\n]*)?\n",
    re.DOTALL,
)


def test_kernels_stay_in_registers(compiled):
    folder, reports = compiled
    for name, report in reports.items():
        figures = FIGURES.findall(report)
        for symbol, *numbers in figures:
            stack, stores, loads, registers, shared = (int(n or 0) for n in numbers)
            print(f"{folder.name} {short(symbol)}: {registers} registers, {stores + loads} bytes "
                  f"spilled, {stack} of stack, {shared} shared")  # fmt: skip
            assert stack + stores + loads <= LOCAL, f"{symbol}: {stack}, {stores}, {loads} bytes"
        assert len(figures) == KERNELS[name]


def disassembler():
    triton = importlib.util.find_spec("triton")
    folders = triton.submodule_search_locations if triton else []
    bundled = [os.path.join(f, "backends", "nvidia", "bin") for f in folders]
    return shutil.which("nvdisasm") or shutil.which("nvdisasm", path=os.pathsep.join(bundled))


def test_products_and_sums_are_not_fused(compiled):
    folder, _ = compiled
    for name in EXACT:
        assert not re.search(r"\bfma\.", (folder / f"{name}.ptx").read_text())
    if disassembler() is None:
        pytest.skip("nvdisasm is not installed; PTX alone was checked")
    sass = subprocess.run(
        [disassembler(), "-c", folder / "step.cubin"], capture_output=True, text=True, check=True
    ).stdout
    bodies = re.split(r"^\.text\.(\S*step_kernel\S*):$", sass, flags=re.MULTILINE)[1:]
    kernels = {short(symbol): body for symbol, body in zip(bodies[::2], bodies[1::2], strict=True)}
    assert len(kernels) == KERNELS["step"]
    for kernel, body in kernels.items():
        assert "FMUL" in body
        # A correctly rounded square root is made of them; kernels without normals have none.
        assert ("FFMA" in body) == ("MUFU.RSQ" in body) == (not kernel.endswith(",0>")), kernel
