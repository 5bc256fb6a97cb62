"""Recipes: whatever was asked of a sampler is in them, as plain JSON, and makes the same samples again."""

import json
import math

import pytest
import torch

from diffusion_engine import Decoder, Sampler, ScoreNetwork, with_classifier
from diffusion_engine.processes import VP
from diffusion_engine.sampler.spec import BEFORE, RNG, Recipe, Spec
from diffusion_engine.testing import exact_network, labelled_mixture

SHAPE = (2, 3, 4)
IMAGES = torch.linspace(-1.0, 1.0, 48).reshape(2, *SHAPE)
MASK = (torch.arange(12).view(1, 3, 4) % 3 > 0).float()


def module(x, label, *given, **named):
    out = x * 0.7 + 0.1 * x.abs() - 0.05 * label.view(-1, 1, 1, 1).to(x.dtype)
    for told in (*given, *named.values()):
        out = out + 0.1 * told.to(x.dtype).reshape(len(told), -1).sum(1).view(-1, 1, 1, 1)
    return out


def network(**options):
    return ScoreNetwork(module, VP(), SHAPE, null=10, classes=10, **options)


ASKED = {"condition": [3, 4], "seed": 5}
# How a sampler is made, and what is asked of it.
RUNS = {
    "plain": ({}, {"n": 2}),
    "seeds": ({}, {"seeds": [2**64 - 1, 7]}),
    "classes": ({}, {"condition": [3, 10]}),
    "a solver's options": ({"solver": "ddim", "eta": 0.5, "clipped_eps": False}, {"n": 2}),
    "infinite options": ({"solver": "heun", "s_churn": 3.0, "s_tmax": math.inf}, {"n": 2}),
    "an end": ({"end": "t_min"}, {"n": 2}),
    "levels": ({"sigmas": [30.0, 5.0, 0.7, 0.0]}, {"n": 2}),
    "times": ({"times": [0.9, 0.5, 0.1]}, {"n": 2}),
    "guidance": ({"guidance": 3.0}, ASKED),
    "a scale a sample": ({}, ASKED | {"guidance": [1.0, 4.0]}),
    "an interval": ({"guidance": 3.0, "interval": (0.3, 5.0)}, ASKED),
    "an open interval": ({"guidance": 3.0, "interval": (0.3, math.inf)}, ASKED),
    "a clip": ({"clip": (-0.4, 0.3)}, {"n": 2}),
    "no clip": ({"clip": None}, {"n": 2}),
    "float64": ({"dtype": torch.float64}, {"n": 2}),
    "bfloat16": ({"dtype": torch.bfloat16}, {"n": 2}),
    "composed": ({}, {"compose": [([1, 2], [1.0, 0.5]), (7, -0.5)]}),
    "one composed": ({}, {"compose": [([1, 2], 1.5)]}),
    "a path": ({"solver": "dpmpp_2m_sde"}, {"n": 2, "noise": "brownian"}),
    "an image": ({"solver": "ddpm"}, {"x": IMAGES, "start": 0.4}),
    "a state": ({}, {"x": IMAGES, "noised": True}),
    "a state at a time": ({}, {"x": IMAGES, "noised": True, "start": 0.4}),
    "a region": ({"solver": "ddpm"}, {"n": 2, "mask": MASK, "known": IMAGES}),
    "normals": ({"solver": "ddpm"}, {"n": 2, "noise": torch.ones(6, 1, 2, *SHAPE)}),
    "tensors": ({}, {"condition": torch.ones(2, dtype=torch.int64)}),
    "encoding": ({"solver": "ddim"}, {"x": IMAGES, "encoding": 0}),
    "refined encoding": ({"solver": "ddim"}, {"x": IMAGES, "encoding": 2, "start": 0.05}),
}  # fmt: skip
GIVEN = ("x", "mask", "known")  # which JSON does not hold


@pytest.mark.parametrize("kind", RUNS)
def test_a_recipe_makes_the_samples_again(kind):
    options, request = RUNS[kind]
    own = network(clip=(-2.0, 2.0))
    made = Sampler(own, steps=4, **options).sample(**request)
    recipe = json.loads(json.dumps(made.recipe, allow_nan=False))
    assert recipe == made.recipe and recipe.keys() == Recipe.model_fields.keys()
    needs = {name: request[name] for name in GIVEN if name in request}
    if isinstance(request.get("noise"), torch.Tensor):
        needs["noise"] = request["noise"]
    assert sorted(recipe["needs"]) == sorted(needs)
    again = Sampler.replay(own, recipe, **needs)
    assert torch.equal(again.samples, made.samples) and again.samples.dtype == made.samples.dtype
    assert (again.recipe, again.seeds, again.nfe) == (made.recipe, made.seeds, made.nfe)
    for name in needs:
        with pytest.raises(ValueError, match=f"the recipe was made with {name}"):
            Sampler.replay(own, recipe, **{n: v for n, v in needs.items() if n != name})


def test_every_run_here_is_another_one():
    """Each of these options has its effect: were one lost, the recipe's samples would be others."""
    own = network(clip=(-2.0, 2.0))
    kinds = [kind for kind in RUNS if not kind.startswith(("infinite", "an open"))]
    made = [
        Sampler(own, steps=4, **RUNS[k][0]).sample(**RUNS[k][1]).samples.double() for k in kinds
    ]
    for i, one in enumerate(made):
        assert not any(torch.equal(one, other) for other in made[:i]), kinds[i]


def test_conditions_that_are_no_classes_are_asked_for():
    text = torch.linspace(-1.0, 1.0, 12).reshape(2, 6)
    for condition in (text, {"text": text}):
        own = ScoreNetwork(module, VP(), SHAPE)
        made = Sampler(own, "ddim", 3).sample(condition=condition)
        assert made.recipe["needs"] == ["condition"] and made.recipe["condition"] is None
        with pytest.raises(ValueError, match="the recipe was made with condition"):
            Sampler.replay(own, made.recipe)
        assert torch.equal(
            Sampler.replay(own, made.recipe, condition=condition).samples, made.samples
        )


def test_a_scale_of_a_classifier():
    own = labelled_mixture(classes=None)
    own = with_classifier(own, own.module.classifier, conditional=False)
    made = Sampler(own, "ddim", 4, classifier_scale=2.5).sample(2, condition=[0, 1])
    assert made.recipe["classifier_scale"] == 2.5
    again = Sampler.replay(own, made.recipe)
    assert torch.equal(again.samples, made.samples)
    other = made.recipe | {"classifier_scale": 0.0}
    assert not torch.equal(Sampler.replay(own, other).samples, made.samples)


def test_what_a_recipe_leaves_open_is_the_callers():
    """backend, batch_size and a decoder: the first two change nothing, the last the images alone."""
    own = network()
    made = Sampler(own, "ddpm", 3, decoder=Decoder(lambda z: 2.0 * z, scale_factor=0.5)).sample(5)
    with pytest.raises(ValueError, match="images that a decoder made: give how="):
        Sampler.replay(own, made.recipe)
    latents = Sampler.replay(
        own, made.recipe, {"decoder": None, "backend": "torch", "batch_size": 2}
    )
    assert torch.equal(latents.samples, made.latents) and latents.latents is None
    calls = []

    def twice(z):
        calls.append(len(z))
        return 2.0 * z

    decoder = Decoder(twice, scale_factor=0.5)
    again = Sampler.replay(own, made.recipe, {"decoder": decoder, "batch_size": 2})
    assert torch.equal(again.samples, made.samples) and sum(calls) == 5
    with pytest.raises(ValueError, match="scale"):
        Sampler.replay(own, made.recipe, {"decoder": Decoder(twice, scale_factor=0.25)})


def test_what_is_said_beside_a_recipe_replaces_it():
    made = Sampler(network(), "ddpm", 3).sample(2, seed=5)
    other = Sampler.replay(network(), made.recipe, seeds=[9, 5])
    assert other.seeds == [9, 5] and torch.equal(other.samples[1], made.samples[0])


def test_the_generator_of_a_recipe():
    """One of the version before drew other normals where an image was given, and the same elsewhere."""
    own = network()
    plain = Sampler(own, "ddpm", 3).sample(2)
    before = plain.recipe | {"rng": BEFORE}
    assert torch.equal(Sampler.replay(own, before).samples, plain.samples)
    given = Sampler(own, "ddpm", 3).sample(x=IMAGES, start=0.4)
    with pytest.raises(ValueError, match="the recipe's rng is 'philox4x32-10/1'"):
        Sampler.replay(own, given.recipe | {"rng": BEFORE}, x=IMAGES)
    assert RNG != BEFORE


KINDS = {"object", "array", "string", "number", "integer", "boolean", "null"}


def sound(schema):
    """Whether a schema is strict JSON of known types, whose references and required names are there."""
    json.dumps(schema, allow_nan=False)
    waiting = [schema]
    while waiting:
        part = waiting.pop()
        if isinstance(part, list):
            waiting += part
        if not isinstance(part, dict):
            continue
        waiting += part.values()
        if isinstance(part.get("properties"), dict):
            assert part["additionalProperties"] is False
            assert {*part.get("required", ())} <= part["properties"].keys()
        if isinstance(part.get("type"), str):
            assert part["type"] in KINDS
        if "$ref" in part:
            assert part["$ref"].removeprefix("#/$defs/") in schema["$defs"]
    return True


def test_the_schema_says_what_recipes_are():
    """One JSON schema, valid itself, whose keys are a recipe's; a recipe goes through the model unchanged."""
    schema = Recipe.model_json_schema()
    assert sound(schema) and sound(asked := Spec.model_json_schema())
    assert asked["properties"]["interval"]["default"] == [0.0, 1e308]
    assert schema["additionalProperties"] is False
    recipe = Sampler(network(), "heun", 3, s_tmax=math.inf).sample(2, condition=[3, 4]).recipe
    assert schema["properties"].keys() == recipe.keys()
    made = Recipe.model_validate_json(json.dumps(recipe))
    assert made.model_dump(mode="json") == recipe and Recipe(**recipe) == made
    assert Recipe.model_validate(made) == made
    again = Sampler.replay(network(), made)
    assert again.recipe == recipe
    with pytest.raises(ValueError, match="frozen"):
        made.start = 0.5


def test_a_spec_is_what_a_sampler_is_asked():
    """By name, from JSON, or of a sampler, whose own has its points for times."""
    told = {
        "solver": "heun",
        "steps": 4,
        "guidance": 2.0,
        "interval": (0.3, math.inf),
        "clip": None,
    }
    spec = Spec.model_validate_json(json.dumps(told | {"interval": [0.3, 1e308]}))
    assert spec == Spec(**told)
    assert Spec.model_validate_json(spec.model_dump_json()) == spec
    made = Sampler(network(), spec.solver.name, **spec.arguments())
    assert made.recipe() == Sampler(network(), **told).recipe()
    own = Sampler(network(), made.spec.solver.name, **made.spec.arguments())
    assert own.points == made.points and own.recipe() == made.recipe()
    asked = Spec(
        solver="ddim", encoding=2, start=0.3, dtype=torch.float64, times=[0.9, own.points[1]]
    )
    assert asked.request() == {"start": 0.3, "noised": False, "encoding": 2, "noise": None}
    assert asked.arguments()["times"] == [0.9, own.points[1]]
    assert asked.arguments()["dtype"] is torch.float64


def test_results_do_not_share_their_recipes():
    sampler = Sampler(network(), "heun", 3)
    first, before = sampler.sample(1).recipe, json.dumps(sampler.recipe())
    first["points"][0][0], first["solver"]["options"]["s_churn"] = 7.0, 3.0
    assert json.dumps(sampler.recipe()) == before


@pytest.mark.parametrize(
    "given, message",
    [
        ({"stepz": 3}, "a spec has no stepz; did you mean steps"),
        ({"steps": 0}, "steps=0: a run has a whole number of steps, 1 or more"),
        ({"grid": 3}, "grid=3: input should be a valid string"),
        ({"times": [0.9, "a"]}, "times='a': give a finite number"),
        ({"sigmas": 3.0}, "sigmas=3.0: input should be a valid tuple"),
        ({"guidance": "x"}, "guidance='x': give one number"),
        ({"interval": (3.0, 1.0)}, r"interval=\(3.0, 1.0\): give two noise-to-signal"),
        ({"classifier_scale": None}, "classifier_scale=None: the scale is a finite number"),
        ({"clip": 3}, "clip=3: give a range"),
        ({"dtype": "int8"}, "dtype='int8': input should be 'float16', 'bfloat16'"),
        ({"start": "now"}, "start='now': give a time t"),
        ({"noised": 1}, "noised=1: give True or False"),
        ({"encoding": -1}, "refine=-1: a whole number of iterations a step"),
        ({"noise": "pink"}, "noise='pink': give 'brownian'"),
        ({"solver": {"name": "heun"}}, "options is missing"),
        ({"solver": 3}, "solver=3: input should be a valid dictionary"),
    ],
)  # fmt: skip
def test_specs_that_are_refused(given, message):
    for made in (lambda told: Spec(**told), Spec.model_validate):
        with pytest.raises(ValueError, match=message) as error:
            made({"solver": "ddim"} | given)
        assert "\n" not in str(error.value) and "pydantic" not in str(error.value)
    with pytest.raises(ValueError, match="spec=3: input should be a valid dictionary"):
        Spec.model_validate(3)
    with pytest.raises(ValueError, match="this spec is no JSON"):
        Spec.model_validate_json("{")


OF_THE_FIRST_FORMAT = """{
    "format": "diffusion-engine-recipe/1", "rng": "philox4x32-10/2", "network": "mixture",
    "solver": {
        "name": "unipc",
        "options": {"order": 2, "variant": "bh2", "corrector": true, "lower_order_final": true}
    },
    "points": [
        [0.75, 0.05866350301188082, 0.9982778137444381], [0.5, 0.2811828807967524, 0.9596542020680363],
        [0.25, 0.7236571850830864, 0.6901596036263088], [0.0, 1.0, 0.0]
    ],
    "interval": [0.0, 1e+308], "classifier_scale": 1.0, "clip": null, "dtype": "float32", "decoder": null,
    "seeds": [5, 6], "condition": null, "compose": null, "guidance": [1.0, 1.0], "start": null,
    "noised": false, "encoding": null, "noise": null, "needs": []
}"""


def test_a_recipe_of_the_first_format():
    """It says `order` for max_order; the samples are those that it was written with."""
    network = exact_network("unipc")
    again = Sampler.replay(network, json.loads(OF_THE_FIRST_FORMAT))
    assert again.samples.flatten().tolist() == pytest.approx([0.1855, -0.6292], abs=1e-4)
    fresh = Sampler(network, "unipc", times=[0.75, 0.5, 0.25, 0.0], max_order=2).sample(
        seeds=[5, 6]
    )
    assert torch.equal(again.samples, fresh.samples) and again.recipe == fresh.recipe
    assert again.recipe["format"] == "diffusion-engine-recipe/2"


def test_a_recipe_whose_start_was_beside_a_point():
    """The first format's runs then began with a step that went nowhere."""
    network = exact_network("euler")
    own = Sampler(network, "euler", 4, grid="karras")
    for k, kept in ((0, True), (1, False)):  # the first point is the process's, made of its time
        made = own.sample(x=torch.zeros(2, 1), start=own.points[k].t)
        old = made.recipe | {"format": "diffusion-engine-recipe/1"}
        again = Sampler.replay(network, made.recipe, x=torch.zeros(2, 1))
        assert torch.equal(again.samples, made.samples)
        if kept:
            assert torch.equal(
                Sampler.replay(network, old, x=torch.zeros(2, 1)).samples, made.samples
            )
            continue
        with pytest.raises(ValueError, match=r"a start at t=0\.\d+, beside a point of the run"):
            Sampler.replay(network, old, x=torch.zeros(2, 1))


def test_a_recipe_whose_noise_was_another():
    """dpmpp_sde's half step had noise of its own; without noise nothing has changed."""
    recipe = Sampler(exact_network("dpmpp_sde"), "dpmpp_sde", 3).sample(1).recipe
    old = recipe | {"format": "diffusion-engine-recipe/1"}
    with pytest.raises(ValueError, match=r"recipe/1', in which dpmpp_sde drew other noise"):
        Sampler.replay(exact_network("dpmpp_sde"), old)
    old["solver"] = {"name": "dpmpp_sde", "options": {"eta": "x"}}
    with pytest.raises(ValueError, match="eta='x'"):
        Sampler.replay(exact_network("dpmpp_sde"), old)
    old["solver"] = {"name": "dpmpp_sde", "options": {"eta": 0.0, "s_noise": 1.0}}
    assert Sampler.replay(exact_network("dpmpp_sde"), old).finite == [True]
