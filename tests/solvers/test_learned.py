"""Learned tables: what a run of one is, what it keeps, and what is refused."""

import itertools
import json
import math
import pickle

import numpy as np
import pytest
import torch
from analytic import BY_SCHEDULE, network
from oracles import ode
from oracles.learned import learned as oracle
from oracles.problems import SCHEDULES, TM

from diffusion_engine import Sampler, ScoreNetwork
from diffusion_engine.learned import Table, epd, names, read, table_of, write
from diffusion_engine.learned.weights import law_of, weights
from diffusion_engine.processes import EDM, VP, FlowMatching
from diffusion_engine.zoo import load_network

F64 = {"dtype": torch.float64, "backend": "torch"}
X = np.array([0.7, -1.3, 0.1])


def case(schedule, table, **how):
    process = BY_SCHEDULE[schedule]
    return Sampler(
        network(TM, process, label="sigma" if schedule == "edm" else "t"),
        "learned",
        table=table,
        **how,
    )


def end(sampler, x):
    given = torch.as_tensor(
        x, dtype=torch.float64 if sampler.dtype == torch.float64 else torch.float32
    )
    return (
        sampler.sample(x=given[:, None], noised=True, progress=False).samples[:, 0].double().numpy()
    )


def dense(schedule, calls, seed=0, **said):
    """A table of a random number for every call in every row, to clean data."""
    process, draw = BY_SCHEDULE[schedule], np.random.default_rng(seed)
    top = 800.0 if schedule == "ddpm" else process.t_max * 0.99
    times = [
        float(np.round(t)) if top == 800.0 else float(t) for t in top * np.linspace(1.0, 0.1, calls)
    ]
    about = {
        "process": law_of(process).model_dump(),
        "times": [*times, (process.clean.t, 1.0, 0.0)],
        "exact": False,
    }
    b = [[float(v) for v in draw.uniform(-1.0, 1.0, i + 1)] for i in range(calls)]
    a = [float(v) for v in draw.uniform(0.1, 1.0, calls)]
    return about | {"a": a, "b": b} | said


FORMS = [("vp", base, of) for base in ("start", "previous") for of in ("x0", "eps", "v", "flow")]
FORMS += [
    (schedule, "start", of) for schedule, of in (("edm", "eps"), ("flow", "flow"), ("ddpm", "v"))
]


@pytest.mark.parametrize("schedule, base, of", FORMS)
def test_dense_tables_equal_a_loop_that_keeps_all(schedule, base, of):
    for calls in (1, 4, 9):
        table = dense(schedule, calls, of=of, base=base)
        sampler = case(schedule, table, **F64)
        x = X * BY_SCHEDULE[schedule].prior_std(sampler.points[0])
        wanted = oracle(TM.denoiser, None, x, schedule=SCHEDULES[schedule], table=table)
        off = np.abs(end(sampler, x) - wanted).max()
        size = max(
            np.abs(wanted).max(),
            max(abs(w) for r in sampler.plan().rows for u in r.new.values() for _, w in u),
        )
        assert off <= 1e-11 * size
        assert sampler.plan().slots == min(5, max(min(i + 2, calls - i) for i in range(calls)))


@pytest.mark.parametrize(
    "schedule, name, steps, slots",
    [
        ("vp", "ddim", 8, 1), ("edm", "dpmpp_2m", 20, 2), ("flow", "dpmpp_3m", 8, 3), ("vp", "heun", 4, 2),
        ("edm", "heun", 4, 2), ("flow", "dpm_solver_3", 3, 2), ("ddpm", "unipc", 7, 4),
        ("vp", "ipndm", 10, 4),
        ("flow", "unipc", 7, 4), ("flow", "dpmpp_singlestep", 9, 2),
    ],
)  # fmt: skip
def test_solvers_written_as_tables(schedule, name, steps, slots):
    """Their own samples, to 1e-12, from what JSON holds, and in no more slots than the numbers need."""
    process = BY_SCHEDULE[schedule]
    exact = network(TM, process, label="sigma" if schedule == "edm" else "t")
    own = Sampler(exact, name, steps, **F64)
    table = table_of(own.plan(kind="state"), process)
    made = case(schedule, json.loads(table.model_dump_json()), **F64)
    assert made.plan().slots <= slots and made.plan().nfe == own.plan().nfe
    assert [p for p in made.points if p in own.points] == list(own.points)
    x = X * process.prior_std(own.points[0])
    size = max(abs(w) for row in made.plan().rows for new in row.new.values() for _, w in new)
    assert np.abs(end(made, x) - end(own, x)).max() <= 1e-14 * max(100.0, size)
    single = case(schedule, table, backend="cpp")
    assert np.abs(end(single, x) - end(own, x)).max() <= 1e-6 * max(1.0, size)


def runge_kutta_4(process, n):
    """The classical method on x / alpha and g = sigma / alpha (Kutta 1901), in n steps, as a table."""
    g = np.geomspace(20.0, 0.2, n + 1)
    sigmas, vectors = [], [np.eye(4 * n + 1)[0]]

    def slope(state, at):
        """(x - D) / g of the next call."""
        sigmas.append(at)
        return (state - np.eye(4 * n + 1)[len(sigmas)]) / at

    x = vectors[0]
    for s, t in itertools.pairwise(g):
        h, middle = t - s, 0.5 * (s + t)
        k1 = slope(x, s)
        vectors.append(x + 0.5 * h * k1)
        k2 = slope(vectors[-1], middle)
        vectors.append(x + 0.5 * h * k2)
        k3 = slope(vectors[-1], middle)
        vectors.append(x + h * k3)
        x = x + h / 6.0 * (k1 + 2.0 * k2 + 2.0 * k3 + slope(vectors[-1], t))
        vectors.append(x)
    points = [process.at_ratio(v) for v in (*sigmas, g[-1])]
    scaled = [p.alpha * v for p, v in zip(points, vectors, strict=True)]
    return {
        "process": law_of(process), "sigmas": [*sigmas, g[-1]],
        "a": [v[0] / points[0].alpha for v in scaled[1:]],
        "b": [v[1 : i + 1].tolist() for i, v in enumerate(scaled[1:], 1)],
    }  # fmt: skip


@pytest.mark.parametrize("process", [VP(), EDM(), FlowMatching()], ids=["vp", "edm", "flow"])
def test_the_classical_runge_kutta_method_has_order_4(process):
    errors = []
    for n in (4, 8, 16):
        sampler = Sampler(
            network(TM, process, label="sigma"), "learned", table=runge_kutta_4(process, n), **F64
        )
        assert (sampler.plan().nfe, sampler.plan().slots) == (4 * n, 3)
        first, last = sampler.points[0], sampler.points[-1]
        x = X * math.hypot(first.alpha, first.sigma)
        errors.append(np.abs(end(sampler, x) - ode.end(TM, x, first, last)).max())
    assert math.log2(errors[1] / errors[2]) == pytest.approx(4.0, abs=0.15)


def test_nulls_are_what_keeps_x0():
    """DDIM's weights are all of one call, and so those of a table that gives none."""
    times = [0.9, 0.5, 0.2, 0.0]
    about = {
        "process": law_of(VP()).model_dump(),
        "times": times,
        "b": [[None], [0.0, None], [0.0, 0.0, None]],
    }
    for base in ("start", "previous"):
        made = weights(Table.model_validate(about | {"base": base}), VP())
        for i in (1, 2, 3):
            assert made.states[i, 0] == pytest.approx(
                made.points[i].sigma / made.points[0].sigma, abs=1e-15
            )
            assert made.states[i, 0] * made.points[0].alpha + made.states[
                i, 1:
            ].sum() == pytest.approx(made.points[i].alpha, abs=1e-14)
    short = about | {"base": "previous", "b": [[None]] * 3}
    ddim = Sampler(network(TM, VP()), "ddim", times=times, **F64).plan()
    for ours, theirs in zip(case("vp", short, **F64).plan().rows, ddim.rows, strict=True):
        for symbol in ("S0", "D"):
            assert ours.new[0][symbol] == pytest.approx(theirs.new[0][symbol], abs=1e-14)


def test_any_length_of_short_rows():
    """64 calls, each of three; one call more is refused, and so is a tenth in rows of all."""
    times = [*np.linspace(0.99, 0.02, 64), 0.0]
    rows = [[-0.1, 0.2, None][-min(i + 1, 3) :] for i in range(64)]
    about = {"process": law_of(VP()).model_dump(), "base": "previous", "b": rows, "times": times}
    assert case("vp", about).plan().slots == 3
    longer = about | {"times": [0.995, *times], "b": [[None], *rows[:1], *rows[1:]]}
    with pytest.raises(ValueError, match=r"at most 65 items|at most 64 items"):
        case("vp", longer)
    case("vp", dense("vp", 9))
    with pytest.raises(ValueError, match=r"needs 6 slots and a run has 5.*9 calls at most"):
        case("vp", dense("vp", 10))


def test_a_table_goes_wherever_a_spec_goes(tmp_path):
    table = table_of(
        Sampler(network(TM, VP()), "dpmpp_2m", 5).plan(kind="state"), VP(), network="analytic"
    )
    write(table, tmp_path / "table.json")
    assert [p.name for p in tmp_path.iterdir()] == ["table.json"]
    assert read(tmp_path / "table.json") == table
    given = [table, tmp_path / "table.json", json.loads((tmp_path / "table.json").read_text())]
    made = [case("vp", each).sample(3, seed=2, progress=False) for each in given]
    assert all(torch.equal(each.samples, made[0].samples) for each in made)
    recipe = json.loads(json.dumps(made[1].recipe))
    assert torch.equal(Sampler.replay(network(TM, VP()), recipe).samples, made[0].samples)
    rule = pickle.loads(pickle.dumps(case("vp", table).solver))
    assert rule == case("vp", given[2]).solver and hash(rule) == hash(case("vp", table).solver)


@pytest.mark.parametrize("name", names())
def test_tables_that_ship(name):
    """Each runs its network in so many calls, and a recipe holds it whole, whatever ships later."""
    digits, calls = load_network("digits"), int(name.rpartition("-")[2])
    sampler = Sampler(digits, "learned", table=name)
    assert sampler.plan().nfe == calls and sampler.solver.table.network == "digits"
    assert sampler.recipe()["solver"]["options"]["table"]["b"]


GOOD = {"process": {"name": "VP"}, "times": [0.9, 0.4, 0.0], "b": [[None], [0.1, None]]}


@pytest.mark.parametrize(
    "change, said",
    [
        ({"bb": 1}, "a learned table has no bb; did you mean b"),
        ({"format": "diffusion-engine-learned/2"}, "format="),
        ({"times": None}, "has its levels once, as times, sigmas or lams; this one has none"),
        ({"sigmas": [9.0, 1.0, 0.0]}, "this one has times and sigmas"),
        ({"times": [0.9, 0.0]}, "times has 2 levels and b 2 rows"),
        ({"times": [0.9, 0.4, 0.5]}, "the last level of a table is that of its sample, and the cleanest"),
        ({"times": [1.9, 0.4, 0.0]}, "t=1.9 is no time of VP"),
        ({"times": [0.9, [0.4, 0.5, 0.5], 0.0]}, "is none of VP, which at t=0.4 has"),
        ({"times": None, "lams": [-2.0, None, None]}, "null is clean data, where a run ends"),
        ({"times": [0.9, float("nan"), 0.0]}, "nan"),
        ({"times": ["0.9", 0.4, 0.0]}, "0.9"),
        ({"b": [[None], [0.1, float("inf")]]}, "b=inf: give a finite number"),
        ({"b": [[None], [0.1, 1e7]]}, "numbers of a table are within 1e.06"),
        ({"b": [[None], [None, 0.1]]}, "has a null before its last number"),
        ({"b": [[None], [0.1, 0.2, 0.3]]}, r"b\[1\] has 3 numbers; x_2 is made of 1 to 2 calls"),
        ({"b": [[None], []]}, r"b\[1\] has 0 numbers"),
        ({"b": []}, "at least 1 item"),
        ({"a": [1.0]}, "a has 1 numbers for 2 rows"),
        ({"exact": False}, "nothing says what a null in b"),
        ({"exact": 1}, "exact=1: give True or False"),
        ({"b": [[0.5], [0.1, 0.2]], "a": [0.5, 0.0]}, 'x_1 of the table has .* or say "exact": false'),
        ({"b": [[None], [0.0, 0.0]], "a": [0.5, 0.0], "exact": True}, "x_2 of the table is made of nothing"),
        ({"process": {"name": "EDM"}}, "was learned on EDM.*the network's process is VP"),
        ({"process": {"name": "VP", "numbers": {"beta_max": 19.0}}}, "learned on VP.beta_max=19"),
        ({"process": {"name": "VP", "numbers": {"gamma": 1.0}}}, "learned on VP.gamma=1"),
        ({"note": "x" * 201}, "at most 200"),
    ],
)  # fmt: skip
def test_bad_tables(change, said):
    with pytest.raises(ValueError, match=said):
        case("vp", GOOD | change)


def test_what_a_run_of_one_refuses(tmp_path):
    exact = network(TM, VP())
    with pytest.raises(ValueError, match="has no coefficients; give a table"):
        Sampler(exact, "learned")
    with pytest.raises(ValueError, match=r"give a table as learned\.read"):
        Sampler(exact, "learned", table=str(tmp_path / "table.json"))  # text opens no file
    for other in ({"grid": "karras"}, {"times": [0.9, 0.0]}, {"end": "t_min"}):
        with pytest.raises(ValueError, match="its table was learned for the 3 levels that it has"):
            Sampler(exact, "learned", table=GOOD, **other)
    sampler = Sampler(exact, "learned", table=GOOD)
    with pytest.raises(ValueError, match="encode with another solver"):
        sampler.encode(torch.zeros(1, 1))
    with pytest.raises(ValueError, match="for the way down alone"):
        sampler.sample(x=torch.zeros(1, 1), start=0.5)
    noisy = Sampler(exact, "ddpm", 3).plan()
    with pytest.raises(
        ValueError, match="the plan of 'ddpm' draws noise, and a learned table has none"
    ):
        table_of(noisy, VP())


@pytest.mark.parametrize(
    "text, said",
    [
        ('{"format": NaN}', "NaN is no number"), ('{"b": 1, "b": 2}', "the key 'b' is there twice"),
        ("[1]", "says no format"), ("{", "is no JSON of a learned table"), ("[" * 100000, "is no JSON"),
        (" " * (1 << 20) + "{}", "has more than"),
    ],
)  # fmt: skip
def test_bad_files(tmp_path, text, said):
    (tmp_path / "table.json").write_text(text)
    with pytest.raises(ValueError, match=said):
        read(tmp_path / "table.json")


# Of a predictor and a network written here, by the published epd_sampler (github.com/BeierZhu/EPD, 88a91f0).
PREDICTOR = {
    "r_params": [[0.4, -0.3], [0.1, 0.9], [-1.2, 0.5]],
    "scale_dir_params": [[0.5, -0.2], [0.3, 0.8], [-0.4, 0.6]],
    "scale_time_params": [[-0.6, 0.1], [0.2, 0.7], [0.9, -0.5]],
    "weight_s": [[0.3, -0.1], [-0.7, 0.2], [0.0, 0.4]],
}
FACTORS = {"scale_dir": 0.05, "scale_time": 0.1, "fcn": True}
LATENTS = torch.tensor([[-1.1], [0.2], [0.9]], dtype=torch.float64)


def of_edm(x, sigma):
    g = sigma.view(-1, 1)
    return torch.tanh(0.7 * x / (1 + g)) - 0.1 * torch.cos(g) * x / (1 + g * g)


def of_flow(x, t):
    return torch.tanh(x) + 0.3 * t.view(-1, 1)


@pytest.mark.parametrize(
    "process, sigmas, denoise, wanted",
    [
        (
            EDM(),
            [80.0, 10.0, 1.25, 0.125],
            False,
            [-0.23353579451480355, 0.048499985935415796, 0.19782058909857825],
        ),
        (
            VP(),
            [80.0, 10.0, 1.25, 0.125],
            False,
            [-0.23353579451480355, 0.048499985935415796, 0.19782058909857825],
        ),
        (
            EDM(),
            [80.0, 10.0, 1.25, 0.125],
            True,
            [-0.1214820772075661, 0.025430487318848047, 0.10314473608226524],
        ),
        (
            FlowMatching(),
            [1.0, 0.7, 0.3, 0.05],
            False,
            [-0.5950783982821011, 0.025816825498827328, 0.3373225220120276],
        ),
    ],
)
def test_epd_equals_the_published_sampler(process, sigmas, denoise, wanted):
    told = {"label_dtype": torch.float64}
    exact = (
        ScoreNetwork(of_flow, process, (1,), prediction="flow", **told)
        if isinstance(process, FlowMatching)
        else ScoreNetwork.from_denoiser(of_edm, (1,), process, **told)
    )
    table = epd(PREDICTOR, process, sigmas, **FACTORS, denoise=denoise)
    sampler = Sampler(exact, "learned", table=table, **F64)
    assert sampler.plan().nfe == 9 + denoise and sampler.plan().slots == 2
    first, last = sampler.points[0], sampler.points[-1]
    bar = last.alpha if isinstance(process, VP) else 1.0  # theirs is x / alpha
    made = sampler.sample(x=LATENTS * first.sigma, noised=True).samples / bar
    assert made.flatten().tolist() == pytest.approx(wanted, abs=1e-12)


@pytest.mark.parametrize(
    "predictor, said",
    [
        ({}, "the predictor has no r_params"),
        (PREDICTOR | {"weight_s": [[0.1, 0.2]]}, r"weight_s is \[1, 2\] for 4 sigmas"),
        (PREDICTOR | {"r_params": [[float("nan")]] * 3}, "give finite numbers"),
    ],
)
def test_bad_predictors(predictor, said):
    with pytest.raises(ValueError, match=said):
        epd(predictor, EDM(), [80.0, 10.0, 1.25, 0.125])
