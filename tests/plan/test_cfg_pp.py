"""CFG++: ComfyUI's values, the paper's algorithm, what its rows say, and what it refuses."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from cfg_pp_cases import CASES, LEVELS, network, noise, start

from diffusion_engine import Plan, Sampler, classifier_free, compose
from diffusion_engine.genie import exact_derivative
from diffusion_engine.processes import VP
from diffusion_engine.testing import labelled_mixture as mixture

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "cfg_pp.json").read_text())
SOLVERS = ("euler", "euler_ancestral", "ddim", "dpmpp_2m", "res_multistep", "gradient_estimation")
F64 = {"dtype": torch.float64, "backend": "torch"}


def levels(kind):
    return {"sigmas": LEVELS["ve"]} if kind == "ve" else {"times": [*LEVELS["flow"][:-1], 0.0]}


@pytest.mark.parametrize("name", CASES)
def test_comfyuis_values(name):
    function, kind, _, solver, options, scale = CASES[name]
    own = network(kind)
    sampler = Sampler(own, solver, guidance=scale, cfg_pp=True, **levels(kind), **options, **F64)
    drawn = iter(range(99))
    given = {} if "ancestral" not in function else {"noise": told(drawn)}
    made = sampler.sample(x=start(kind), noised=True, condition=[0, 0], **given).samples
    wanted = torch.tensor(GOLDEN[name], dtype=torch.float64)
    assert (made - wanted).abs().max() < (1e-6 if given else 1e-10)  # noise is float32
    options = {name: value for name, value in options.items() if name != "published"}
    plain = Sampler(own, solver, guidance=scale, **levels(kind), **options, **F64)
    other = plain.sample(x=start(kind), noised=True, condition=[0, 0], **given).samples
    assert (other - wanted).abs().max() > 1e-3  # they tell CFG from CFG++


def told(drawn):
    """The normals of both samples, the same row after row."""
    rows = {}

    def normals(row, m, seeds):
        if row not in rows:
            rows[row] = noise(next(drawn))
        return rows[row]

    return normals


def test_the_papers_algorithm():
    """Algorithm 2 as a loop of its own, with eps of the network itself."""
    own, scale = mixture(), 0.7
    sampler = Sampler(own, "ddim", 5, guidance=scale, cfg_pp=True, **F64)
    x = torch.randn(3, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    made = sampler.sample(x=x, noised=True, condition=[0, 1, 2]).samples
    classes, null = torch.tensor([0, 1, 2]), torch.tensor([3, 3, 3])
    for s, t in zip(sampler.points, sampler.points[1:], strict=False):
        at = torch.full((3,), s.t, dtype=torch.float64)
        eps_u, eps_c = own.module(x, at, null), own.module(x, at, classes)
        x0 = (x - s.sigma * (eps_u + scale * (eps_c - eps_u))) / s.alpha
        x = t.alpha * x0 + t.sigma * eps_u
    assert (made - x).abs().max() < 1e-12


@pytest.mark.parametrize("solver", SOLVERS)
def test_rows(solver):
    """Two branches in every row, at scale 1 too, whose raw is the unconditional one's; saved and read."""
    own = mixture()
    for scale in (1.0, 0.6):
        plan = Sampler(own, solver, 4, guidance=scale, cfg_pp=True).plan()
        for row in plan.rows[1:-1]:
            assert row.unconditional and row.branches == (0, 1)
            assert row.e == pytest.approx((0.0, sum(row.q)))
            assert row.q == pytest.approx((scale * sum(row.q), (1.0 - scale) * sum(row.q)))
        assert "unconditional alone" in str(plan)
        again = Plan.from_json(plan.to_json())
        assert again == plan and again.rows[1].unconditional
    body = json.loads(Sampler(own, solver, 4).plan().to_json())
    assert not any("unconditional" in row for row in body["rows"])  # as before
    last = Sampler(own, solver, 4, guidance=1.0, cfg_pp=True).plan().rows[-1]
    assert last.branches == (0,)  # to clean data no noise is kept


@pytest.mark.parametrize("solver", SOLVERS)
def test_without_guidance_it_is_the_solver(solver):
    """Where both branches say the same; and in calls outside of an interval, which make one."""
    own = mixture()
    how = {"guidance": 0.6, "interval": (0.5, 3.0)}
    plan = Sampler(own, solver, 6, cfg_pp=True, **how).plan()
    for row in plan.rows[1:-1]:
        assert len(row.branches) == 1 + (0.5 < row.call.at.ratio <= 3.0)
    nulls = [3, 3]
    ours = Sampler(own, solver, 6, cfg_pp=True, guidance=0.6, **F64).sample(condition=nulls)
    plain = Sampler(own, solver, 6, **F64).sample(condition=nulls)
    assert (ours.samples - plain.samples).abs().max() < 1e-9


def test_other_predictions_and_float32():
    """The same values whatever the network predicts; float32 and the compiled step follow."""
    made = {}
    for kind in ("eps", "x0"):
        own = mixture(VP(t_max=0.9))
        if kind == "x0":
            eps = own.module

            def x0(x, t, y, eps=eps, process=own.process):
                at = [process.at(float(each)) for each in t]
                a, s = (
                    torch.tensor([[getattr(p, n)] for p in at], dtype=x.dtype)
                    for n in ("alpha", "sigma")
                )
                return (x - s * eps(x, t, y)) / a

            own = own.with_module(x0, prediction="x0")
        sampler = Sampler(own, "dpmpp_2m", 6, guidance=0.8, cfg_pp=True, **F64)
        made[kind] = sampler.sample(3, condition=[0, 1, 2]).samples
    assert (made["eps"] - made["x0"]).abs().max() < 1e-9
    single = Sampler(mixture(VP(t_max=0.9)), "dpmpp_2m", 6, guidance=0.8, cfg_pp=True)
    assert (single.sample(3, condition=[0, 1, 2]).samples - made["eps"]).abs().max() < 1e-4


def test_refusals():
    own = mixture()
    bare = mixture(null=None)
    with pytest.raises(
        ValueError, match="the network has no such branch; give ScoreNetwork its null"
    ):
        Sampler(bare, "euler", 4, cfg_pp=True)
    told = own.with_module(own.module, null=None, scale_input=lambda s: {"s": s})
    with pytest.raises(ValueError, match="this network, guided within"):
        Sampler(told, "dpmpp_2m", 4, cfg_pp=True)
    with pytest.raises(ValueError, match="this network, guided within"):
        Sampler(exact_derivative(own, guidance=2.0), "ddim", 4, cfg_pp=True)
    for guider in ("apg", "rescale", "tcfg", "cfg_zero"):
        with pytest.raises(ValueError, match="leave out cfg_pp or the guider"):
            Sampler(own, "ddim", 4, cfg_pp=True, guider=guider, guidance=0.5)
    with pytest.raises(ValueError, match="leave out cfg_pp or compose"):
        Sampler(own, "ddim", 4, cfg_pp=True).sample(compose=[(0, 0.5), (1, 0.5)])
    with pytest.raises(ValueError, match="leave out call_before_noise"):
        Sampler(own, "euler", 4, cfg_pp=True, call_before_noise=True)
    with pytest.raises(ValueError, match="guided already"):
        classifier_free(classifier_free(Sampler(own, "ddim", 4, cfg_pp=True).plan(), 0.5), 0.5)
    with pytest.raises(ValueError, match="no option cfg_pp"):
        Sampler(own, "dpm_solver_2m", 4, cfg_pp=True)


def test_a_row_that_says_so_wrongly():
    plan = Sampler(mixture(), "ddim", 4, guidance=0.6, cfg_pp=True).plan()
    row = plan.rows[1]
    for wrong, why in (
        ({"e": row.q}, "is made of 2 outputs"),
        ({"e": row.e[::-1]}, "is made of 1 outputs"),
        ({"e": (0.0, 2.0 * row.e[1])}, "in denoised"),
    ):
        with pytest.raises(ValueError, match=why):
            plan.replace_rows([plan.rows[0], replace(row, **wrong), *plan.rows[2:]])
    with pytest.raises(ValueError, match="leave out cfg_pp or compose"):
        compose(
            Sampler(mixture(), "ddim", 4, cfg_pp=True)._plans.solver.plan(
                mixture().parameterisation, Sampler(mixture(), "ddim", 4).points
            ),
            (0.5, 0.5),
        )


def test_encoding_and_replay():
    """Up along the guided noise of the unconditional estimate, and down again."""
    own, x = mixture(), torch.tensor([[-0.8], [0.2]])
    sampler = Sampler(own, "ddim", 10, guidance=0.6, cfg_pp=True, end="t_min", **F64)
    for refine, limit in ((0, 0.15), (40, 1e-6)):
        latents = sampler.encode(x, condition=[0, 1], refine=refine).samples
        back = sampler.sample(x=latents, noised=True, condition=[0, 1])
        assert (back.samples - x).abs().max() < limit
    again = Sampler.replay(own, back.recipe, how={"backend": "torch"}, x=latents)
    assert torch.equal(again.samples, back.samples)
    with pytest.raises(ValueError, match="encode with 'ddim'"):
        Sampler(own, "dpmpp_2m", 4, cfg_pp=True).encode(x, condition=[0, 1])
