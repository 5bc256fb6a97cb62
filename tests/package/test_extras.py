"""Without the packages that are not required: tests pass, or are skipped and name what is missing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1]
OPTIONAL = (
    "accelerate", "build", "diffusers", "k_diffusion", "matplotlib", "mlxtend", "mypy",
    "ninja", "onnx", "onnxruntime", "onnxscript", "openvino", "playwright", "pybind11", "ruff", "scipy",
    "setuptools", "torchmetrics", "transformers", "triton", "wheel",
)  # fmt: skip
PROGRAM = """\
import sys
import pytest
missing, *arguments = sys.argv[1:]
sys.path[:0] = ["tests", "tests/helpers"]
sys.modules.update(dict.fromkeys(missing.split(",")))
sys.exit(pytest.main(arguments))
"""


NEEDY = """\
from optional import diffusers, needs

def test_module():
    diffusers.DDIMScheduler()

def test_part():
    needs("scipy.integrate")

def test_triton():
    raise AssertionError
"""


def run(missing, *arguments):
    """pytest where an import of what is missing fails, and pytest-timeout is not installed."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
    words = [sys.executable, "-c", PROGRAM, ",".join(missing), "-p", "no:timeout", "-q", "-rs"]
    done = subprocess.run(
        [*words, "-p", "no:cacheprovider", *map(str, arguments)],
        cwd=FOLDER.parent, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_missing_package_is_named(tmp_path):
    (tmp_path / "test_it.py").write_text(NEEDY)
    settings = ("-c", FOLDER.parent / "pyproject.toml", f"--rootdir={tmp_path}", "-p", "conftest")
    said = run(("diffusers", "scipy", "triton"), *settings, tmp_path)
    assert "3 skipped" in said
    for name in ("diffusers", "scipy", "triton"):
        assert f"{name} is not installed" in said


@pytest.mark.slow
def test_every_file_is_collected_without_any():
    run(OPTIONAL, "--collect-only", FOLDER)


# What asks for optional packages: the whole suite takes too long to run it without each.
FILES = (
    "accelerate", "accelerate_blocks", "accelerate_derivatives", "accelerate_places", "api_page",
    "benchmark_networks", "benchmark_ops", "benchmark_runs", "benchmarks", "consistency",
    "contributing_kernel", "cuda_build", "decoder", "diffusers_schedulers", "from_diffusers",
    "genie", "genie_attached", "learned_variance", "metadata", "noise", "packaging",
    "pages", "site", "step", "triton", "triton_layers", "zoo",
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    "missing", [("diffusers",), ("scipy",), ("onnxscript",), ("triton",), OPTIONAL]
)
def test_nothing_fails_without(missing):
    run(missing, *(next(FOLDER.rglob(f"test_{name}.py")) for name in FILES))
