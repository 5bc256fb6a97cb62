"""Bad input is one sentence that says what was given and what to do."""

import json
import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from diffusion_engine import Plan, Row, Sampler, ScoreNetwork, classifier_free
from diffusion_engine.plan import Call
from diffusion_engine.plan.linear import denoised, normal, slot, x
from diffusion_engine.processes import EDM, VP, Discrete, FlowMatching, Point, grids
from diffusion_engine.solvers import solver

SHAPE = (1, 4, 4)


def net(process=None, **options):
    return ScoreNetwork(lambda x, label, *y: x * 0.5, process or VP(), SHAPE, **options)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"solver": "dpmpp_4m"}, "unknown solver 'dpmpp_4m'; the solvers are euler"),
        ({"solver": 3}, "neither a name nor an object"),
        ({"steps": 0}, "steps=0: a run has a whole number of steps, 1 or more"),
        ({"steps": -3}, "steps=-3"),
        ({"steps": 2.5}, "steps=2.5"),
        ({"grid": "karas"}, "unknown grid 'karas'"),
        ({"grid": "trailing"}, "picks timesteps of a discrete table, and VP has none"),
        ({"end": "middle"}, "end='middle'"),
        ({"executor": "graph", "backend": "opencl"}, "backend='opencl': choose auto, torch"),
        (
            {"sigmas": [1.0, 2.0, 0.0]},
            "sigmas has to fall strictly.*rises at entry 1 \\(1, then 2\\)",
        ),
        ({"sigmas": [2.0, 2.0, 0.0]}, "repeats at entry 1"),
        ({"sigmas": [2.0, -1.0]}, "sigmas end at -1"),
        ({"sigmas": [float("nan"), 0.0]}, "sigmas\\[0\\]=nan: give a finite number"),
        ({"times": [0.1, 0.5]}, "times has to fall strictly"),
        ({"times": [0.5]}, "at least 2"),
        ({"times": [0.5, 0.1], "sigmas": [1.0, 0.0]}, "give one of them"),
        ({"solver": "ddim", "eta": 2.0}, "eta=2: DDIM's eta lies between 0 and 1"),
        ({"solver": "ddim", "churn": 2.0}, "has no option churn; it has cfg_pp, clipped_eps, eta"),
        ({"solver": "ddim", "order": 2}, "has no option order"),
        ({"solver": "vdm", "eta": 2}, "has no option eta; it has none"),
        ({"solver": "ddpm", "variance": "big"}, "variance='big'"),
        (
            {"solver": "unipc", "order": 2},
            "has no option order; it has .*; did you mean max_order\\?",
        ),
        ({"solver": "lms", "start": "rk4"}, "start='rk4': choose euler, heun"),
        ({"solver": "unipc", "max_order": 4}, "max_order=4: UniPC has orders 1 to 3"),
        ({"solver": "lms", "max_order": 9}, "max_order=9"),
        ({"solver": "dpmpp_2m", "variant": "x"}, "choose 'midpoint' or 'heun'"),
        ({"solver": "dpmpp_3m", "kappa": 3.0}, "kappa"),
        ({"guidance": float("nan")}, "guidance=nan"),
        ({"interval": (2.0, 1.0), "guidance": 2.0}, "0 <= low < high"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"backend": "opencl"}, "backend='opencl': choose auto, torch, cpp, triton, cuda"),
    ],
)
def test_sampler_options(options, message):
    options = {"solver": "dpmpp_2m", "steps": 3} | options
    with pytest.raises(ValueError, match=message):
        Sampler(net(), **options).sample()


@pytest.mark.parametrize(
    "request_, message",
    [
        ({"n": 0}, "n=0: ask for at least 1 sample"),
        ({"n": 3, "seeds": [1, 2]}, "n=3 samples and 2 seeds"),
        ({"seeds": []}, "seeds is empty"),
        ({"seeds": [-1]}, "a seed lies in 0 ... 2\\^64 - 1"),
        ({"seeds": [1], "seed": 2}, "seed and seeds were both given"),
        ({"n": 2, "condition": [1, 2, 3]}, "shape \\[3\\] for 2 samples"),
        ({"n": 1, "condition": 12}, "the network knows classes 0 to 9; got \\[12\\]"),
        ({"n": 1, "condition": [0.5]}, "the network knows classes"),
        ({"n": 2, "guidance": [1.0]}, "1 guidance scales for 2 samples"),
        ({"n": 1, "guidance": 2.0}, "guidance needs a condition"),
        ({"x": torch.zeros(1, *SHAPE)}, "say at which time to start"),
        ({"n": 1, "start": 0.5}, "belong to a given x"),
        (
            {"x": torch.zeros(2, 3, 9, 9), "start": 0.5},
            "x has shape \\[2, 3, 9, 9\\]; it has to fit",
        ),
        ({"n": 1, "mask": torch.zeros(SHAPE)}, "needs both mask= and known="),
        ({"x": torch.zeros(1, *SHAPE), "start": 1e-9}, "at or after the last time"),
        ({"n": 1, "batch_size": 0}, "batch_size=0"),
        (
            {"n": 2, "noise": torch.zeros(4, 1, 2, 5)},
            r"noise of row 0, draw 0 is \[2, 5\]; give a tensor",
        ),
        ({"n": 1, "noise": lambda *given: "z"}, "noise of row 0, draw 0 is 'z'; give a tensor"),
    ],
)
def test_requests(request_, message):
    end = "t_min" if request_.get("start") == 1e-9 else "zero"
    sampler = Sampler(net(null=10, classes=10), steps=3, end=end)
    with pytest.raises(ValueError, match=message):
        sampler.sample(**request_)


@pytest.mark.parametrize("scale", [-1.0, 0.0, 0.5, 2.0])
def test_guidance_without_a_branch(scale):
    with pytest.raises(ValueError, match="needs an unconditional branch and the network has none"):
        Sampler(net(), guidance=scale).sample(condition=torch.zeros(1, dtype=torch.int64))
    with pytest.raises(ValueError, match="guidance needs a condition to guide to"):
        Sampler(net(null=10), guidance=scale).sample()


@pytest.mark.parametrize("name", ["lms", "deis", "pndm"])
def test_solver_that_does_not_suit_the_process(name):
    process = Discrete.scaled_linear().zero_terminal_snr()
    with pytest.raises(
        ValueError, match=f"solver '{name}' cannot run this: alpha is 0 at its first"
    ):
        Sampler(net(process, prediction="v"), name, 10)


def test_eps_network_at_zero_terminal_snr():
    with pytest.raises(ValueError, match="predicts eps says nothing about x0 at t=999"):
        Sampler(net(Discrete.linear().zero_terminal_snr()), "ddim", 5)


def test_grid_on_infinite_ratio():
    with pytest.raises(ValueError, match="noise-to-signal ratio is infinite"):
        Sampler(net(FlowMatching(), prediction="flow"), grid="karras")


@pytest.mark.parametrize(
    "options, message",
    [
        ({"process": "vp"}, "is no noising process"),
        ({"shape": ()}, "shape"),
        ({"shape": (1, -4)}, "shape"),
        ({"prediction": "epsilon"}, "unknown prediction 'epsilon'; choose eps"),
        ({"label": "time"}, "unknown label 'time'"),
        ({"scale": "two"}, "unknown scale 'two'"),
        ({"memory_format": torch.channels_last, "shape": (3, 8)}, "channels_last needs images"),
    ],
)
def test_networks(options, message):
    options = {"process": EDM(), "shape": SHAPE} | options
    with pytest.raises(ValueError, match=message):
        ScoreNetwork(lambda x, t: x, **options)


def test_nan_weights_are_refused():
    module = nn.Linear(2, 2)
    with torch.no_grad():
        module.weight[0, 0] = float("nan")
    with pytest.raises(ValueError, match="weight 'weight' of the network holds NaN"):
        ScoreNetwork(module, VP(), SHAPE)


@pytest.mark.parametrize(
    "out, message",
    [
        (lambda x, t: x[:, :, :2], "network output has shape"),
        (lambda x, t: x.long(), "network output is int64"),
        (lambda x, t: x[:, :0], "0 channels; a multiple of 1"),
        (lambda x, t: (x,) * 5, "returned 5 tensors; at most 4"),
        (lambda x, t: x[:1], "returned a batch of 1 for one of 3"),
    ],
)
@pytest.mark.parametrize("backend", ["torch", "cpp"])
def test_network_outputs(out, message, backend):
    network = ScoreNetwork(out, VP(), SHAPE)
    with pytest.raises((ValueError, TypeError), match=message):
        Sampler(network, steps=2, backend=backend).sample(3)


AT = Point(0.5, 0.8, 0.6)


def row(new, call=True, **fields):
    if not call:
        return Row(None, new, state=AT, **fields)
    fields = {
        "p": (1.0,),
        "q": (1.0,),
        "channel_blocks": (0,),
        "branches": (0,),
        "state": AT,
    } | fields
    return Row(Call(AT, 0.5), new, **fields)


@pytest.mark.parametrize(
    "rows, message",
    [
        ((row({0: normal(0)}, call=False),), "a first row and at least one call"),
        ((row({0: x}), row({0: x})), "row 0: it makes the state"),
        ((row({0: x}, call=False), row({0: x}, call=False)), "the last row has a network call"),
        (
            (row({0: x}, call=False), replace(row({0: x}), call=None), row({0: x})),
            "row 1 has no network call and takes outputs of one",
        ),
        (
            (row({0: x}, call=False), row({0: slot(3)})),
            "reads slots \\[3\\] before any row wrote them",
        ),
        (
            (row({0: x}, call=False), replace(row({0: x}), call=Call(AT, 0.5, (1,)))),
            "reads slots \\[1\\] before any row wrote them",
        ),
        (
            (row({0: x}, call=False), row({0: denoised}, p=(1.0, 0.0, 2.0))),
            "reads slots \\[2\\] before any row wrote them",
        ),
        ((row({0: x}, call=False), row({0: x, 7: x})), "it has to write some of 0 to 4"),
        ((row({0: x}, call=False), row({0: x * float("inf")})), "not finite"),
        (
            (row({0: x}, call=False), replace(row({0: x}), call=Call(AT, 0.5, (0,), (math.nan,)))),
            "not finite",
        ),
        *(
            ((row({0: x}, call=False), row({0: x}, **{name: wrong})), "not finite")
            for name, wrong in {
                "p": (math.inf,),
                "q": (math.nan,),
                "e": (math.nan,),
                "scale": math.nan,
                "known": (0.8, math.nan),
                "learned": (math.inf, 0.0, 0),
            }.items()
        ),
        ((row({0: x}, call=False), row({0: x}, q=(1.0, 2.0))), "one value for each output"),
        ((row({0: x}, call=False), row({0: 0.9 * x + 0.2 * denoised})), "does not transport x0"),
    ],
)
def test_plans(rows, message):
    with pytest.raises(ValueError, match=message):
        Plan(rows)


def test_guiding_twice_is_refused():
    plan = Sampler(net(null=10)).plan()
    with pytest.raises(ValueError, match="guided already"):
        classifier_free(classifier_free(plan, 2.0), 2.0)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": "x"}', "not json"])
def test_saved_plans(text):
    with pytest.raises(ValueError, match="this is not a saved plan"):
        Plan.from_json(text)


@pytest.mark.parametrize("recipe", [{}, {"solver": 3}, json.loads("[]")])
def test_recipes(recipe):
    with pytest.raises(ValueError, match="not a recipe"):
        Sampler.replay(net(), recipe)


def test_options_with_an_object():
    with pytest.raises(ValueError, match="go with a solver's name"):
        Sampler(net(), solver("ddim"), eta=1.0)


def test_one_step_schedules_work_for_every_grid():
    for name in grids.GRIDS:
        process = Discrete.linear() if name in ("leading", "trailing", "linspace") else VP()
        points = grids.points(process, 1, name)
        assert len(points) == 2 and points[-1].sigma == 0.0
