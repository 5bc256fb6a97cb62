"""The packed row means the same in Python, C++ and CUDA, and every op has all that it needs."""

import ast
from pathlib import Path

import pytest
import thread_runs
import torch

from diffusion_engine.backends import native
from diffusion_engine.ops import layout
from diffusion_engine.ops.op import Implementation, Op
from diffusion_engine.ops.registry import definition, explain, implementation, preference
from diffusion_engine.ops.table import IMPLEMENTATIONS, PREFERENCE

TESTS = Path(__file__).parents[1]


@pytest.mark.parametrize("name", ["_cpu", "_cuda"])
def test_native_layout(name):
    module = native.module(name)
    if name == "_cuda" and isinstance(module, str):
        pytest.skip(f"no nvcc when this was built: {module}")
    assert module.abi() == layout.ABI


EVERY = {"torch", "cpp", "triton", "cuda"}
# cuDNN's convolutions and attention are what a GPU should run; torch's convolution has no other name.
BACKENDS = {
    "conv3x3": {"torch", "cpp"},
    "attention": EVERY | {"sdpa"},
}


def test_every_op_has_a_reference_and_its_backends():
    for op in {op for op, _ in IMPLEMENTATIONS}:
        found = {name for o, name in IMPLEMENTATIONS if o == op}
        wanted = BACKENDS.get(op, EVERY)
        assert found == wanted, (
            f"{op} has {sorted(found)} in table.py, and {sorted(wanted)} here: write what is missing, "
            "or say in BACKENDS which it has"
        )
        lists = [PREFERENCE.get((op, kind), PREFERENCE["*", kind]) for kind in ("cpu", "cuda")]
        assert set().union(*lists) >= found and all(names[-1] == "torch" for names in lists)


def test_attention_on_a_gpu_is_torchs_first():
    assert preference("attention", "cuda") == ("sdpa", "cuda", "triton", "torch")
    assert preference("group_norm", "cuda") == ("cuda", "triton", "torch")
    assert preference("attention", "cpu") == preference("step", "cpu") == ("cpp", "torch")
    assert preference("step", "mps") == ("torch",)
    assert [name for name, _ in explain("attention", "cuda")] == [*preference("attention", "cuda")]


def test_every_implementation_exists_and_takes_the_same_arguments():
    """So much as can be told without the device: of plain arguments they say no more than where they run."""
    for op, backend in IMPLEMENTATIONS:
        found = implementation(op, backend)
        assert type(found) is (Op if backend == "torch" else Implementation)
        args = definition(op).plain(torch.device("cpu"))
        reason = found.objection(args)
        assert reason is None or backend in ("cuda", "sdpa"), reason
        if reason is None:
            assert callable(found.bind(args))


def test_ops_import_no_implementation():
    """They know backends and kernels by the table's strings alone, and register with torch on demand."""
    for path in (Path(layout.__file__).parent).glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                assert not (node.module or "").startswith(("backends", "kernels")), path


def test_every_cpp_kernel_is_run_under_the_sanitizers():
    driver = (TESTS / "native" / "driver.cpp").read_text()
    for op in (op for op, backend in IMPLEMENTATIONS if backend == "cpp"):
        assert f'{{"{op}", {op}}}' in driver, f"tests/native/driver.cpp has no {op} among its ops"


def test_every_op_is_run_from_several_threads():
    missing = {op for op, _ in IMPLEMENTATIONS} - set(thread_runs.RUNS)
    assert not missing, f"RUNS of tests/helpers/thread_runs.py has none of {missing}"


def test_headers_are_free_of_torch():
    for path in (TESTS.parent / "csrc").rglob("*"):
        if path.is_file():
            assert "#include <torch" not in path.read_text() and "ATen" not in path.read_text()
