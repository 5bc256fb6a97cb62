"""Learning tables: nearer to the ODE than what is begun with, the same by seed, whole when interrupted."""

import csv

import numpy as np
import pytest
import torch
from command import run
from torch import nn

from diffusion_engine import Sampler, ScoreNetwork
from diffusion_engine.compare import Fine, distance, fine_solution
from diffusion_engine.learned import epd, read, table_of
from diffusion_engine.learned.weights import weights
from diffusion_engine.processes import EDM, VP, Discrete, FlowMatching
from diffusion_engine.testing import Mixture, labelled_mixture
from diffusion_engine.tuning import FAMILIES, compared, tune
from diffusion_engine.tuning.families import EPD
from diffusion_engine.tuning.rollout import Runs

DATA = Mixture((0.4, 0.6), (-0.8, 0.6), (0.2, 0.15))
QUICK = {"steps": 10, "batch": 32, "samples": 64, "fine_steps": 40}


def plain(process=None):
    return DATA.network(process or VP(), (6,))


@pytest.mark.parametrize(
    "process, family, calls",
    [
        (VP(), "bns", 4), (EDM(), "bns", 5), (FlowMatching(), "bns", 3), (VP(), "multistep", 10),
        (FlowMatching(), "multistep", 4), (EDM(), "epd", 4), (VP(), "epd", 5),
    ],
)  # fmt: skip
def test_what_is_learned_is_nearer_and_runs(process, family, calls):
    network, seen = plain(process), []
    made = tune(network, calls, family, **QUICK, on_step=seen.append)
    assert made.distance < 0.99 * made.begun.distance
    assert [p.step for p in seen] == [0, 10] and seen[-1].distance == made.distance
    sampler = Sampler(network, "learned", table=made.table)
    assert sampler.plan().nfe == calls and made.table.family == family
    seeds = [(1 << 40) + i for i in range(64)]
    fine = fine_solution(network, seeds, fine=Fine.of(network, 40))
    own = distance(sampler.sample(seeds=seeds, progress=False).samples, fine)
    assert own == pytest.approx(made.distance, rel=1e-3)


def test_the_same_seed_learns_the_same_table():
    one, same, other = (tune(plain(), 3, **QUICK, seed=s).table for s in (0, 0, 1))
    assert one == same and one != other


def test_an_interruption_keeps_the_best_until_then():
    def interrupted(progress):
        if progress.step:
            raise KeyboardInterrupt

    made = tune(plain(), 3, **QUICK, on_step=interrupted)
    assert made.stopped and made.steps == 10
    assert made.table == tune(plain(), 3, **QUICK, on_step=interrupted).table


class Net(nn.Module):
    """A guided network with weights, in training mode."""

    def __init__(self):
        super().__init__()
        self.layer, self.drop = nn.Linear(6, 6), nn.Dropout(0.5)
        torch.manual_seed(0)
        nn.init.normal_(self.layer.weight, std=0.3)

    def forward(self, x, t, y):
        return 0.5 * torch.tanh(self.drop(self.layer(x)) + t[:, None] + 0.2 * y[:, None])


def test_guided_runs_are_the_engine_s_and_leave_the_module_as_it_was():
    module = Net()
    network = ScoreNetwork(module, VP(), (6,), prediction="v", null=3, classes=3, clip=(-0.9, 0.9))
    seeds = [(1 << 40) + i for i in range(64)]
    asked = (("all", [0, 1, 2] * 21 + [0], 2.0), ([1], [1] * 64, 2.0), (None, None, 1.0))
    for classes, told, scale in asked:
        made = tune(network, 3, condition=classes, guidance=scale, **QUICK)
        assert made.table.guidance == scale
        fine = fine_solution(network, seeds, told, fine=Fine.of(network, 40), guidance=scale)
        sampler = Sampler(network, "learned", table=made.table, guidance=scale)
        found = distance(sampler.sample(seeds=seeds, condition=told, progress=False).samples, fine)
        assert found == pytest.approx(made.distance, rel=1e-3)
    assert module.training and all(p.requires_grad and p.grad is None for p in module.parameters())


def test_epd_as_the_published_parameters_make_it():
    process, calls = VP(), 7
    points = Sampler(plain(), "ddim", EPD.steps(calls), grid="karras").plan(kind="state")
    made = EPD(process, weights(table_of(points, process), process), calls)
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for free in made.parameters:
            free += torch.randn(free.shape, generator=draw, dtype=torch.float64)
    names = ("r_params", "weight_s", "scale_dir_params", "scale_time_params")
    predictor = {n: p.detach() for n, p in zip(names, made.parameters, strict=True)}
    sigmas = [float(g) for g in (-made.lam).exp()]
    table = epd(predictor, process, sigmas, scale_dir=0.05, scale_time=0.05, denoise=True)
    t, states = made()
    theirs = weights(table, process)
    assert (
        np.abs(theirs.states - states.detach().numpy()).max() < 1e-9 * np.abs(theirs.states).max()
    )
    assert [p.t for p in theirs.points[:-1]] == pytest.approx(t.tolist(), abs=1e-12)


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_are_those_of_differences(family):
    network, kind, calls = plain(), FAMILIES[family], 4
    solver = kind.begins[0]
    plan = Sampler(network, solver, kind.steps(calls), grid="lambda").plan(kind="state")
    made = kind(network.process, weights(table_of(plan, network.process), network.process), calls)
    runs = Runs(network)
    x = runs.first([0, 1, 2]).double()

    def loss():
        return runs.ends(x, None, *made()).square().sum()

    loss().backward()
    for free in made.parameters:
        if not free.numel() or free.grad is None:
            continue
        at = tuple(int(i) for i in torch.unravel_index(free.grad.abs().argmax(), free.shape))
        with torch.no_grad():
            free[at] += 1e-5
            up = float(loss())
            free[at] -= 2e-5
            down = float(loss())
            free[at] += 1e-5
        assert (up - down) / 2e-5 == pytest.approx(float(free.grad[at]), rel=1e-4, abs=1e-6)


@pytest.mark.parametrize(
    "given, said",
    [
        ({"family": "bnss"}, "family='bnss': choose bns, multistep, epd"),
        ({"calls": 10}, "family 'bns' has 1 to 9 calls"),
        ({"calls": 65, "family": "multistep"}, "has 1 to 64 calls, and not 65"),
        ({"calls": 6, "family": "epd"}, "family 'epd' has 4, 7, 10"),
        ({"steps": 0}, "steps=0"),
        ({"batch": 1.5}, "batch=1.5"),
        ({"guidance": 2.0}, "guidance=2 needs an unconditional branch"),
        ({"condition": [0]}, "give classes of the network"),
    ],
)  # fmt: skip
def test_bad_tuning(given, said):
    with pytest.raises(ValueError, match=said):
        tune(plain(), **{"calls": 4} | given)


def test_networks_that_cannot_be_tuned():
    told = ScoreNetwork(lambda x, t: x, Discrete.linear(), (2,), label_dtype=torch.int64)
    flow = plain(FlowMatching())
    with pytest.raises(ValueError, match="nothing to begin with: EPD goes by sigma / alpha"):
        tune(flow, 4, "epd", **QUICK)
    with pytest.raises(ValueError, match="label_dtype"):
        tune(told, 4, **QUICK)


def test_compared_on_seeds_apart():
    network = labelled_mixture()
    table = tune(network, 4, **QUICK).table
    rows = compared(network, table, range(16), [i % 3 for i in range(16)], fine_steps=30)
    assert rows[0].solver == "learned" and {r.solver for r in rows[1:]} == {
        "dpmpp_2m",
        "unipc",
        "deis",
    }
    assert all(r.distance > 0.0 for r in rows)


def test_the_command(tmp_path, capsys):
    """On the closed form; its table runs by the same command line."""
    out, report, made = (tmp_path / name for name in ("table.json", "table.csv", "made.npz"))
    few = {"steps": 10, "samples": 8, "fine-steps": 8, "batch": 4, "held": 2, "calls": 2}
    words = [word for name, n in few.items() for word in (f"--{name}", n)]
    run(capsys, "tune", "--model", "exact", "--out", out, "--report", report, *words)
    table = read(out)
    assert (table.calls, table.network, table.family) == (2, "mixture", "bns")
    rows = list(csv.DictReader(report.open()))
    assert rows[0]["solver"] == "learned" and len(rows) == 4
    assert sorted(p.name for p in tmp_path.iterdir()) == ["table.csv", "table.json"]
    own = ("--model", "exact", "--solver", "learned", "--option", f"table={out}")
    run(capsys, "sample", *own, "--n", 1, "--out", made)
    for said, name in (("choose a name ending in .json", "x.txt"), ("does not exist", "a/x.json")):
        assert said in run(capsys, "tune", "--out", tmp_path / name, code=2)[1]
