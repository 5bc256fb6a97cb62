"""Imports go one way: no module and no folder of the package reaches itself, wherever the import stands."""

import ast
import subprocess
import sys
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "diffusion_engine"
# Left to right; what is in no line is above them all, and none of these imports it.
CORE = (
    "processes",
    "plan",
    "networks",
    "solvers",
    "ops",
    "guiders",
    "backends",
    "executors",
    "rollouts",
    "sampler",
)
OUTSIDE = ("adapters", "cli", "genie", "profiling", "training", "workers", "zoo")


def name_of(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def files():
    return {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imported(path):
    """The modules of the package that a file imports, also within functions and for types alone."""
    name, known = name_of(path), files()
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom):
            base = package.rsplit(".", node.level - 1)[0] if node.level else ""
            module = ".".join(filter(None, (base, node.module)))
            if module in known:
                for alias in node.names:
                    inner = f"{module}.{alias.name}"
                    if inner in known or not alias.name.startswith("_c"):  # _cpu, _cuda
                        yield inner if inner in known else module


@cache
def graph():
    return {name: set(imported(path)) - {name} for name, path in files().items()}


def folder(name):
    return (
        name.split(".")[1] if name.count(".") and (PACKAGE / name.split(".")[1]).is_dir() else name
    )


def acyclic(edges):
    try:
        return list(TopologicalSorter(edges).static_order())
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_no_module_reaches_itself():
    acyclic(graph())


def test_no_folder_reaches_itself():
    between = {}
    for name, modules in graph().items():
        if name != "diffusion_engine":  # exports names as they are used
            between.setdefault(folder(name), set()).update(map(folder, modules))
    acyclic({place: others - {place} for place, others in between.items()})


def test_the_core_imports_nothing_that_stands_on_it():
    for name, modules in graph().items():
        if folder(name) in CORE:
            wrong = [m for m in modules if folder(m) in OUTSIDE]
            assert not wrong, f"{name} imports {wrong}"


def test_a_circle_is_found():
    with pytest.raises(pytest.fail.Exception, match="a -> b"):
        acyclic({"a": {"b"}, "b": {"a"}})


def test_the_package_loads_neither_triton_nor_what_is_compiled():
    code = "import sys, diffusion_engine; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert not loaded & {"torch", "triton", "numpy", "pydantic", "diffusion_engine._cpu"}
    code = "import sys; from diffusion_engine import Sampler; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not set(done.stdout.split()) & {
        "triton",
        "diffusion_engine._cpu",
        "diffusion_engine._cuda",
    }


def test_long_files_say_why():
    """A file of more than 300 lines gives the reason in its docstring."""
    for name, path in files().items():
        lines = path.read_text().count("\n")
        reason = ast.get_docstring(ast.parse(path.read_text())) or ""
        assert lines <= 300 or "one file because" in reason.lower().replace("\n", " "), (
            f"{name}: {lines}"
        )


def test_no_two_files_of_tests_have_one_name():
    """They are imported by their names alone, so that pytest would leave the second out with an error."""
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert sorted(set(names)) == sorted(names)
