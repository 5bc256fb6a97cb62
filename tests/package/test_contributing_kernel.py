"""The op of CONTRIBUTING.md, put into a copy of the tree, is built and does what the page says.

Only its own C++ is compiled, with its lines of bind.cpp in a module that joins the `_cpu` of this tree; the
slow test builds all and runs every command of the page.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import textwrap
from pathlib import Path

import pytest
from optional import needs
from setup_file import ROOT, setup_py

from diffusion_engine.backends import native

SECTION = (
    (ROOT / "CONTRIBUTING.md").read_text().partition("## Add a kernel")[2].partition("\n## ")[0]
)
PARTS = (
    "diffusion_engine/ops/lerp.py", "csrc/cpu/lerp.h", "csrc/cpu/lerp.cpp",
    "diffusion_engine/backends/lerp.py", "kernels/lerp.py", "lines", "tests/ops/test_lerp.py",
    "benchmarks/ops/lerp.py", "commands",
)  # fmt: skip
TITLED = re.compile(r'```\w+ title="(.*?)"\n(.*?)```', re.DOTALL)
COPIED = ("diffusion_engine", "kernels", "benchmarks", "csrc", "tests", "setup.py", "pyproject.toml",
          "README.md", "LICENSE")  # fmt: skip
PROGRAMS = {
    "python": [],
    "diffusion-engine": ["-m", "diffusion_engine.cli"],
    "pytest": ["-m", "pytest", "-q", "-p", "no:cacheprovider"],
    "ruff": ["-m", "ruff"],
    "mypy": ["-m", "mypy"],
}
TO_DO = (
    "RUNS of tests/helpers/thread_runs.py has none of {'lerp'}",
    "driver.cpp has no lerp among its ops",
)


def blocks():
    """File -> its code, "lines" -> those to add to other files, "commands" -> what builds and tests it."""
    found = {title: textwrap.dedent(code) for title, code in TITLED.findall(SECTION)}
    assert tuple(found) == PARTS
    return found


def files():
    return {name: code for name, code in blocks().items() if "/" in name}


def additions():
    """(file, the line before, new lines)"""
    found, file = [], None
    for line in blocks()["lines"].splitlines():
        if line.startswith("+"):
            found[-1][2].append(line[1:])
        elif line.startswith(" "):
            found.append((file, line[1:], []))
        else:
            file = line
    return found


def commands():
    """Each command of the page, in order, with its comment."""
    for line in blocks()["commands"].splitlines():
        command, _, comment = line.partition("#")
        for part in command.split("&&"):
            yield part.strip(), comment.strip()


def run(tree, command, *more):
    """A command of the page in the tree, with the words that a test adds."""
    name, *words = shlex.split(command)
    settings = {
        "PYTHONPATH": str(tree),
        "OMP_WAIT_POLICY": "passive",
        "OMP_NUM_THREADS": "1",
        "WITH_CUDA": "0",
    }
    if "triton_aot" not in command:
        settings["TRITON_INTERPRET"] = "1"
    own = ("TRITON_INTERPRET", "PYTEST_ADDOPTS")
    kept = {k: v for k, v in os.environ.items() if k not in own}
    done = subprocess.run(
        [sys.executable, *PROGRAMS[name], *words, *more], env=kept | settings, cwd=tree, check=False,
        capture_output=True, text=True,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def of_page(start):
    return next((command, comment) for command, comment in commands() if command.startswith(start))


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A copy of the tree with the files and the lines of the page."""
    folder = tmp_path_factory.mktemp("tree")
    for name in COPIED:
        if (ROOT / name).is_dir():
            unwanted = shutil.ignore_patterns("__pycache__", "*.so")
            shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=unwanted)
        else:
            shutil.copy(ROOT / name, folder / name)
    for name, code in files().items():
        assert not (folder / name).exists(), name
        (folder / name).write_text(code)
    for name, before, lines in additions():
        text = (folder / name).read_text()
        assert f"\n{text}".count(f"\n{before}\n") == 1, f"{name} has not one line {before!r}"
        new = "".join(f"{line}\n" for line in lines)
        (folder / name).write_text(text.replace(f"{before}\n", f"{before}\n{new}"))
    return folder


def compiled(tree, source, *flags):
    include = [
        f"-I{path}"
        for path in (tree / "csrc/common", tree / "csrc/cpu", sysconfig.get_path("include"))
    ]
    flags = [*shlex.split(setup_py.CXX_FLAGS), *flags, *include]
    made = source.with_suffix(".o")
    compiler = shlex.split(os.environ.get("CXX", "c++"))
    subprocess.run([*compiler, *flags, "-c", source, "-o", made], check=True)
    return made


@pytest.fixture(scope="module")
def joined(tree):
    """The tree with a `_cpu` that has the op."""
    needs("pybind11")
    import pybind11

    new = "\n".join(
        line for name, _, lines in additions() for line in lines if name.endswith("bind.cpp")
    )
    include, _, define = new.partition("\n")
    bind = tree / "bind_lerp.cpp"
    bind.write_text(
        f"#include <pybind11/pybind11.h>\n{include}\nnamespace py = pybind11;\n"
        f"PYBIND11_MODULE(_lerp, m) {{\n{define}\n}}\n"
    )
    parts = [compiled(tree, tree / "csrc/cpu/lerp.cpp"),
             compiled(tree, bind, "-O0", f"-I{pybind11.get_include()}")]  # fmt: skip
    package, real = tree / "diffusion_engine", Path(native.loaded("_cpu").__file__)
    compiler = shlex.split(os.environ.get("CXX", "c++"))
    subprocess.run(
        [*compiler, "-shared", "-fopenmp", *parts, "-o", package / "_lerp.so"], check=True
    )
    (package / "built").mkdir()
    shutil.copy(real, package / "built" / real.name)
    (package / "_cpu.py").write_text("from .built._cpu import *\nfrom ._lerp import lerp\n")
    return tree


def test_its_tests_pass_and_others_name_what_is_missing(joined):
    (own, _), (others, _) = (of_page(f"pytest tests/ops/test_l{name}") for name in ("erp", "ayout"))
    code, printed = run(joined, own, *shlex.split(others)[1:], "-k", "lerp or every")
    assert code == 1 and re.search("^2 failed", printed, re.MULTILINE), printed
    assert all(sentence in printed for sentence in TO_DO), printed


def test_doctor_and_the_benchmark_show_it(joined):
    command, line = of_page("diffusion-engine doctor")
    code, printed = run(joined, command)
    assert code == 0 and line in printed.splitlines(), printed
    command, _ = of_page("python -m benchmarks.run")
    code, printed = run(joined, command, "--rows", "1x3x32x32", "--repeats", "2", "--threads", "1")
    assert code == 0 and re.findall(r"lerp +(\S+) ", printed) == ["torch", "ours:cpp"], printed


def test_triton_compiles_it(tree):
    command, comment = of_page("python tests/helpers/triton_aot.py")
    code, printed = run(tree, command)
    assert code == 0 and '"kernel": "lerp"' in printed, printed
    assert comment.partition(",")[0] in printed, printed


def test_the_code_is_formatted(tree):
    needs("ruff")
    changed = {*files(), *(name for name, *_ in additions())}
    for command in ("ruff format --check", "ruff check"):
        code, printed = run(tree, command, *(name for name in changed if name.endswith(".py")))
        assert code == 0, printed


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_command_of_the_page(tree):
    needs("mypy")
    for command, _ in commands():
        code, printed = run(tree, command)
        found = re.search("^([0-9]+) failed", printed, re.MULTILINE)
        wanted = "2" if "test_layout" in command else None
        assert (found and found[1]) == wanted and code == bool(wanted), printed
