"""The server's side of the workers imports no torch, and nothing that serves reads what runs code."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "diffusion_engine"
PARENT = ("errors", "frames", "messages", "service")
CODE = re.compile(
    r"\b(pickle|marshal|shelve|dill|cloudpickle|joblib)\b|\byaml\.(unsafe_)?load\b|\btorch\.load\b"
    r"|(?<![\w.])(eval|exec)\(|allow_pickle=True"
)


def test_the_parent_imports_no_torch():
    named = [f"diffusion_engine.workers.{name}" for name in PARENT]
    code = f"import sys, {', '.join(named)}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not set(done.stdout.split()) & {"torch", "triton"}


@pytest.mark.parametrize("folder", ["workers", "server", "client"])
def test_nothing_is_read_that_runs_code(folder):
    for path in sorted((PACKAGE / folder).rglob("*.py")):
        found = CODE.search(path.read_text())
        assert found is None, f"{path.name}: {found}"


def test_what_runs_code_is_found():
    for text in (
        "import pickle",
        "torch.load(f)",
        "yaml.load(f)",
        "eval(x)",
        "np.load(f, allow_pickle=True)",
    ):
        assert CODE.search(text)
    assert not CODE.search("network.eval() and evaluating(x) and json.loads(y)")
