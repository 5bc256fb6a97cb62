"""A build with DIFFUSION_ENGINE_DEBUG=1 checks what it uses as an index, and changes no bit."""

import importlib.util
import os
import subprocess
import sys

import numpy as np
import pytest
import step_cases
import torch
from setup_file import ROOT

from diffusion_engine.backends import native
from diffusion_engine.ops import layout as at
from diffusion_engine.ops.brownian import BrownianArgs
from diffusion_engine.ops.noise import NoiseArgs
from diffusion_engine.ops.registry import resolve
from diffusion_engine.ops.step import StepArgs, Table

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def debug(tmp_path_factory):
    """The module `_cpu` of such a build."""
    folder = tmp_path_factory.mktemp("debug")
    environment = os.environ | {"DIFFUSION_ENGINE_DEBUG": "1", "WITH_CUDA": "0"}
    command = [sys.executable, "setup.py", "build_ext", "-b", folder, "-t", folder / "objects"]
    subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True)
    (built,) = folder.glob("diffusion_engine/_cpu*.so")
    # By its own name: pybind11 keeps one module of a name.
    spec = importlib.util.spec_from_file_location("debug._cpu", built)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def used(debug, monkeypatch):
    assert debug.debug and not native.loaded("_cpu").debug
    monkeypatch.setattr(native, "module", lambda name: debug)


def test_right_indices_give_the_same_bits():
    for seed in range(200):
        case = step_cases.make(seed)
        got, want = step_cases.run("cpp", case), step_cases.run("torch", case)
        assert not step_cases.differences(got, want)


def step(field=None, where=None, value=None, column=None):
    """Launches a row of two samples with two entries, one of whose indices is `value`."""
    coef, index = np.zeros((3, at.COEF), np.float32), np.zeros((3, at.INDEX), np.int32)
    coef[:, at.SCALE], index[:, at.WRITES], index[:, at.FLAGS] = 1.0, 1, at.LEARNED
    if column is not None:
        index[0, column] = value
    i32 = torch.int32
    fields = {
        "row": torch.zeros(2, dtype=i32),
        "src": torch.tensor([[0], [1]], dtype=i32),
        "dst": torch.tensor([[0], [-1]], dtype=i32),
    }
    if field is not None:
        fields[field][where] = value
    args = StepArgs(
        slots=torch.ones(2, 2, 3, 4),
        seed=torch.zeros(2, dtype=torch.int64),
        table=Table(*map(torch.from_numpy, (coef, index, np.zeros((3, 2))))),
        net_in=torch.ones(2, 3, 4),
        label=torch.ones(2),
        normals=0,
        learned=True,
        **fields,
    )
    resolve("step", "cpp", args)((torch.ones(2, 3, 4),))
    return args


WRONG = {
    "row[1] is 3; .* the 3 rows of the table": ("row", 1, 3),
    "row[1] is -2; it has to be -1 or": ("row", 1, -2),
    "src[0, 0] is 2; .* the 2 entries of network output 0": ("src", 0, 2),
    "src[1, 0] is -2": ("src", 1, -2),
    "dst[1, 0] is 2; .* the 2 entries of net_in and label": ("dst", 1, 2),
    "NEXT of row 0 is 3; .* the 3 rows": (None, None, 3, at.NEXT),
    "NEXT of row 0 is -2": (None, None, -2, at.NEXT),
    "JV of row 0 is 1; .* the 1 outputs": (None, None, 1, at.JV),
    "READ[0] of row 0 is 2; it has to be one of the 2 slots": (None, None, 2, at.READ),
    "READ[0] of row 0 is -1": (None, None, -1, at.READ),
}


@pytest.mark.parametrize("message", WRONG)
def test_wrong_indices_of_a_step(message):
    pattern = message.replace("[", r"\[").replace("]", r"\]")
    with pytest.raises(IndexError, match=f"step: {pattern}"):
        step(*WRONG[message])
    assert step().row.tolist() == [0, 0]


def test_wrong_rows_of_noise_and_brownian():
    out, seed = torch.zeros(1, 2, 3), torch.zeros(1, dtype=torch.int64)
    row = torch.tensor([2], dtype=torch.int32)
    index = torch.zeros(2, at.INDEX, dtype=torch.int32)
    with pytest.raises(IndexError, match=r"noise: row\[0\] is 2; .* 2 rows of the table"):
        resolve("noise", "cpp", NoiseArgs(out, seed, row, index))()
    terms = torch.zeros(2, 1, at.HEADER + at.TERMS, dtype=torch.int32)
    weight = torch.zeros(2, 1, at.TERMS)
    with pytest.raises(IndexError, match=r"brownian: row\[0\] is 2"):
        resolve("brownian", "cpp", BrownianArgs(out[None], seed, row, terms, weight))()
    terms[1, 0, 0], row[0] = at.TERMS + 1, 1
    with pytest.raises(IndexError, match=r"brownian: terms\[1, 0\] is 35; it has to be at most 34"):
        resolve("brownian", "cpp", BrownianArgs(out[None], seed, row, terms, weight))()
