"""Saved plans: what they make is what the sampler made that they are of, whatever the solver and guidance."""

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diffusion_engine import Decoder, Plan, Sampler, ScoreNetwork, with_classifier
from diffusion_engine.processes import VP
from diffusion_engine.testing import cld_mixture, labelled_mixture

SHAPE = (2, 3, 4)
IMAGES = torch.linspace(-1.0, 1.0, 48).reshape(2, *SHAPE)
MASK = (torch.arange(12).view(1, 3, 4) % 3 > 0).float()


def module(x, label, y=None):
    out = x * 0.7 + 0.1 * x.abs() - 0.05 * label.view(-1, 1, 1, 1).to(x.dtype)
    return out if y is None else out + 0.1 * y.to(x.dtype).view(-1, 1, 1, 1)


def network(**options):
    return ScoreNetwork(module, VP(), SHAPE, **{"null": 10, "classes": 10} | options)


def read(plan):
    return Plan.from_json(plan.to_json())


SOLVERS = ("euler", "ddpm", "dpmpp_2m", "dpmpp_3m_sde", "heun", "unipc", "lms", "plms", "deis")
settings.register_profile("few", max_examples=25, deadline=None)


@settings(settings.get_profile("few"))
@given(
    solver=st.sampled_from(SOLVERS),
    steps=st.integers(1, 5),
    guidance=st.sampled_from((1.0, 3.0, 0.0, -1.5)),
    interval=st.sampled_from(((0.0, 1e9), (0.3, 5.0))),
    clip=st.sampled_from((None, (-0.5, 0.4))),
    seed=st.integers(0, 2**64 - 4),
)
def test_a_saved_plan_makes_the_same_samples(solver, steps, guidance, interval, clip, seed):
    own = network()
    sampler = Sampler(own, solver, steps, guidance=guidance, interval=interval, clip=clip)
    made = sampler.sample(3, seed=seed, condition=[1, 2, 3], progress=False)
    again = Sampler.from_plan(own, read(sampler.plan())).sample(
        3, seed=seed, condition=[1, 2, 3], progress=False
    )
    assert torch.equal(again.samples, made.samples)
    assert (again.nfe, again.evaluations, again.finite) == (made.nfe, made.evaluations, made.finite)


# What is asked, the arguments of Sampler.plan that make the same, and what the saved plan is asked.
ASKED = {
    "an image": ({"x": IMAGES, "start": 0.4}, {"start": 0.4, "kind": "image"}, {"x": IMAGES}),
    "a state": ({"x": IMAGES, "noised": True}, {"kind": "state"}, {"x": IMAGES}),
    "a region": ({"n": 2, "mask": MASK, "known": IMAGES}, {"masked": True}, ...),
    "normals": ({"n": 2, "noise": torch.ones(5, 2, 2, *SHAPE)}, {}, ...),
    "a path": ({"n": 2, "noise": "brownian"}, {}, ...),
}  # fmt: skip


@pytest.mark.parametrize("kind", ASKED)
@pytest.mark.parametrize("solver", ["dpmpp_2m_sde", "heun"])
def test_what_is_given_beside_a_plan(kind, solver):
    asked, planned, given = ASKED[kind]
    given = asked if given is ... else given
    own, sampler = network(), Sampler(network(), solver, 4)
    if solver == "heun" and "noise" in asked:
        given, asked = {"n": 2}, {"n": 2}
    plan = read(sampler.plan(**planned))
    made = Sampler.from_plan(own, plan).sample(**given)
    assert torch.equal(made.samples, sampler.sample(**asked).samples)
    needs = {name: given[name] for name in ("x", "mask", "known") if name in given}
    if isinstance(given.get("noise"), torch.Tensor):
        needs["noise"] = given["noise"]
    recipe = json.loads(json.dumps(made.recipe, allow_nan=False))
    assert recipe["needs"] == ["plan", *needs]
    told = sampler.sample(**asked).recipe
    assert recipe["noised"] == told["noised"] and recipe["start"] in (told["start"], None)
    again = Sampler.replay(own, recipe, plan=plan, **needs)
    assert torch.equal(again.samples, made.samples) and again.recipe == made.recipe
    for name in ("x", "mask", "known"):
        if name in needs:
            left = {k: v for k, v in given.items() if k != name}
            with pytest.raises(ValueError, match=f"the plan needs {name}|needs both"):
                Sampler.from_plan(own, plan).sample(**left)
        elif name != "known":
            with pytest.raises(ValueError, match=f"the plan takes no {name}"):
                Sampler.from_plan(own, plan).sample(**given | {name: IMAGES})


@pytest.mark.parametrize("null", [10, None])
def test_plans_of_several_conditions(null):
    own, pairs = network(null=null), [([1, 2], 1.5), ([7, 3], -0.5)]
    sampler = Sampler(own, "ddim", 4)
    made = sampler.sample(compose=pairs)
    plan = read(sampler._plans.of((1.5, -0.5), None))
    saved = Sampler.from_plan(own, plan)
    again = saved.sample(compose=[y for y, _ in pairs])
    assert torch.equal(again.samples, made.samples)
    replayed = Sampler.replay(own, again.recipe, plan=plan)
    assert torch.equal(replayed.samples, made.samples) and replayed.recipe == again.recipe
    for asked in ({"condition": [1, 2]}, {"compose": [[1, 2]]}, {"n": 2}):
        with pytest.raises(ValueError, match=r"follows 2 conditions, .* compose=\[0, 1\]"):
            saved.sample(**asked)


def test_plans_that_encode():
    own = cld_mixture(shape=SHAPE)
    sampler = Sampler(own, "cld_exp", 4)
    made = sampler.encode(IMAGES)
    saved = Sampler.from_plan(own, read(sampler.plan(kind="state", refine=0)))
    again = saved.encode(IMAGES)
    assert torch.equal(again.samples, made.samples) and again.samples.shape[1] == 4
    with pytest.raises(ValueError, match=r"the plan encodes; call encode\(\)"):
        saved.sample(x=IMAGES)
    with pytest.raises(ValueError, match="says refine itself"):
        saved.encode(IMAGES, refine=2)
    with pytest.raises(ValueError, match=r"makes samples; call sample\(\)"):
        Sampler.from_plan(own, sampler.plan()).encode(IMAGES)


def test_a_plan_with_a_classifier_and_a_decoder():
    own = labelled_mixture(classes=None, shape=SHAPE)
    own = with_classifier(own, own.module.classifier, conditional=False)
    sampler = Sampler(own, "ddim", 4, classifier_scale=2.5)
    how = {"decoder": Decoder(lambda z: 2.0 * z), "backend": "torch", "batch_size": 1}
    saved = Sampler.from_plan(own, read(sampler.plan()), **how)
    made, again = (one.sample(2, condition=[0, 1]) for one in (sampler, saved))
    assert torch.equal(again.latents, made.samples)
    assert torch.equal(again.samples, 2.0 * made.samples)
    with pytest.raises(ValueError, match="the plan guides to a condition; give condition="):
        saved.sample(2)


def test_a_network_that_reads_its_scale_is_asked_for_it():
    own = ScoreNetwork(module, VP(), SHAPE, scale_input=lambda w: {"y": w})
    sampler = Sampler(own, "ddim", 3)
    saved = Sampler.from_plan(own, read(sampler.plan()))
    made = saved.sample(2, guidance=[2.0, 5.0])
    assert torch.equal(made.samples, sampler.sample(2, guidance=[2.0, 5.0]).samples)
    again = Sampler.replay(own, made.recipe, plan=saved.plan())
    assert torch.equal(again.samples, made.samples)


PLAN = Sampler(network(), "ddim", 3, guidance=2.0).plan()


@pytest.mark.parametrize(
    "other, message",
    [
        (network(null=None), r"row 1 calls it without a condition; give ScoreNetwork its null"),
        (network(label="999t"), "row 1 has the label 1 at t=1, and this network's is 999"),
        (network(scale="sigma"), "row 1 has the input scale 1 at t=1, and this network's is 152"),
        (network(prediction="x0"), "row 1 has the weight of its output -152"),
        (cld_mixture(shape=SHAPE), "row 1 gives it 1 parts of a state, and it reads 2"),
        (network(scale_input=lambda w: {"y": w}), "row 1 guides it, and it reads its guidance scale"),
    ],
)  # fmt: skip
def test_a_plan_of_another_network(other, message):
    with pytest.raises(ValueError, match=f"'ddim' does not suit the network '.*': {message}"):
        Sampler.from_plan(other, PLAN)


def test_a_plan_that_reads_what_the_network_lacks():
    learned = ScoreNetwork(lambda x, label: torch.cat([x, x], 1), VP(), SHAPE, variance="learned")
    plan = Sampler(learned, "ddpm", 3, variance="learned").plan()
    with pytest.raises(
        ValueError, match="reads its channel block 1, and it has 1: a derivative, a"
    ):
        Sampler.from_plan(network(), plan)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda own: Sampler.from_plan(own, PLAN.to_json()), "give a Plan; Plan.from_json"),
        (lambda own: Sampler.from_plan(module, PLAN), "network=function: wrap the module"),
        (lambda own: Sampler.from_plan(own, PLAN, steps=3), "from_plan takes no steps"),
        (lambda own: Sampler.from_plan(own, PLAN, device="gpu7"), "gpu7"),
        (lambda own: Sampler.from_plan(own, PLAN).sample(guidance=2.0, condition=3), "says guidance"),
        (lambda own: Sampler.from_plan(own, PLAN).sample(start=0.5, condition=3), "says start"),
        (lambda own: Sampler.from_plan(own, PLAN).sample(compose=[3]), "follows one condition"),
        (lambda own: Sampler.from_plan(own, PLAN).sample(2), "guides to a condition"),
        (lambda own: Sampler.from_plan(own, PLAN).plan(2.0), "runs a saved plan as it is"),
    ],
)  # fmt: skip
def test_what_a_plan_says_itself(call, message):
    with pytest.raises(ValueError, match=message):
        call(network())


def test_a_recipe_is_replayed_with_its_plan():
    made = Sampler.from_plan(network(), PLAN).sample(condition=[3, 4])
    with pytest.raises(ValueError, match="the recipe was made with plan; give them again"):
        Sampler.replay(network(), made.recipe)
    other = Sampler(network(), "ddim", 3, guidance=2.5).plan()
    with pytest.raises(ValueError, match=r"made with the plan ddim\(plan='.*'\) and ddim"):
        Sampler.replay(network(), made.recipe, plan=other)
    cast = Sampler.replay(network(), made.recipe | {"dtype": "float64"}, plan=PLAN)
    assert cast.samples.dtype == torch.float64
