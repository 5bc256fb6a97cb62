"""The ops as torch operators: opcheck, torch.compile and torch.export."""

import pytest
import step_cases
import torch

from diffusion_engine.ops import layout as at
from diffusion_engine.ops.library import register
from diffusion_engine.ops.registry import resolve
from diffusion_engine.ops.step import StepArgs

register()
OPTIONAL = (
    "src",
    "dst",
    "net_in",
    "label",
    "noise",
    "mask",
    "known",
    "denoised",
    "status",
    "ticket",
)


def arguments(seed):
    case = step_cases.make(seed, [(3, 5, 7), (2, 4)])
    fields = dict(case.fields)
    keywords = {name: fields.get(name) for name in OPTIONAL}
    keywords |= {name: fields[name] for name in ("normals", "inputs", "learned")}
    state = (fields["slots"].nan_to_num(), fields["row"], fields["seed"])
    return (*state, *fields["table"], [out.nan_to_num() for out in case.outs]), keywords


def copies(given):
    if isinstance(given, dict):
        return {name: copies(value) for name, value in given.items()}
    if isinstance(given, (list, tuple)):
        return type(given)(copies(value) for value in given)
    return given.clone() if isinstance(given, torch.Tensor) else given


@pytest.mark.parametrize("seed", [1, 2, 5, 8])
def test_opcheck_step(seed):
    tensors, keywords = arguments(seed)
    torch.library.opcheck(torch.ops.diffusion_engine.step.default, tensors, keywords)


def test_opcheck_noise():
    out, seed = torch.zeros(2, 3, 4), torch.tensor([1, 2])
    torch.library.opcheck(torch.ops.diffusion_engine.noise.default, (out, seed, 3, 1))
    rows = {"row": torch.tensor([0, -1], dtype=torch.int32)}
    rows["index"] = torch.ones(1, at.INDEX, dtype=torch.int32)
    torch.library.opcheck(torch.ops.diffusion_engine.noise.default, (out, seed, 3, 1), rows)


def test_opcheck_brownian():
    terms = torch.full((1, 1, at.HEADER + at.TERMS), 2, dtype=torch.int32)
    row, weight = torch.tensor([0, -1], dtype=torch.int32), torch.ones(1, 1, at.TERMS)
    given = (torch.zeros(1, 2, 3, 4), torch.tensor([1, 2]), row, terms, weight)
    torch.library.opcheck(torch.ops.diffusion_engine.brownian.default, given)


@pytest.mark.parametrize("seed", [1, 5])
def test_compiles_in_one_graph(seed):
    tensors, keywords = arguments(seed)
    expected, got = copies((tensors, keywords)), copies((tensors, keywords))
    names = ("slots", "row", "seed")
    args = StepArgs(**dict(zip(names, expected[0], strict=False)), table=step_cases.Table(*expected[0][3:6]),
                    **expected[1])  # fmt: skip
    resolve("step", "cpp", args)(expected[0][6])

    def program(*tensors, **keywords):
        torch.ops.diffusion_engine.step(*tensors, **keywords)
        return tensors[0] + 1

    made = torch.compile(program, fullgraph=True, backend="aot_eager")(*got[0], **got[1])
    assert torch.equal(made.nan_to_num(), (expected[0][0] + 1).nan_to_num())
    assert torch.equal(got[0][1], expected[0][1])


def test_exports():
    class Draw(torch.nn.Module):
        def forward(self, x, seed):
            z = torch.empty_like(x)
            torch.ops.diffusion_engine.noise(z, seed, 3)
            return x + z

    x, seed = torch.zeros(2, 3, 4), torch.tensor([1, 2])
    program = torch.export.export(Draw(), (x, seed))
    assert torch.equal(program.module()(x, seed), Draw()(x, seed))
