"""Prompts as conditions: what a branch is called with, and recipes that hold them as text."""

import json
import pickle

import pytest
import torch
from guidance_cases import mixture
from text_cases import TOKENS, WIDTH, Letters, attending, codec

from diffusion_engine import Engine, Result, Sampler
from diffusion_engine.networks.condition import ScaleValue

TWO = ["a red heart", "a slice of pizza"]


def made(network, guidance=3.0, **request):
    return Sampler(network, guidance=guidance).sample(**request)


def test_a_prompt_is_the_tensor_that_the_encoder_makes_of_it():
    network = attending()
    told = made(network, condition=TWO)
    assert torch.equal(told.samples, made(network, condition=Letters()(TWO)).samples)
    assert not torch.equal(told.samples[0], made(network, condition=TWO[1]).samples[0])
    both = made(network, n=2, condition=TWO[0])
    assert both.recipe["condition"] == [TWO[0]] * 2
    assert torch.equal(both.samples[:1], made(network, condition=TWO[0]).samples)


def test_an_encoder_reads_each_prompt_once():
    seen = []

    class Counting(Letters):
        def __call__(self, prompts):
            seen.append(list(prompts))
            return super().__call__(prompts)

    made(attending(text=Counting()), condition=["a", "b", "a"], negative="c")
    assert seen == [["a", "b"], ["c"]] or seen == [["c"], ["a", "b"]]


def test_without_a_prompt_the_network_is_unconditional():
    network = attending()
    result = made(network, guidance=1.0, n=2)
    assert (result.recipe["condition"], result.recipe["needs"]) == (None, [])
    none = made(network, guidance=1.0, condition=torch.zeros(2, TOKENS, WIDTH))
    assert torch.equal(result.samples, none.samples)
    assert torch.equal(Sampler.replay(network, result.recipe).samples, result.samples)


def test_a_negative_prompt_is_the_null_of_its_sample():
    network, negative = attending(), ["blue", "a dog"]
    result = made(network, condition=TWO, negative=negative)
    for i, (prompt, other) in enumerate(zip(TWO, negative, strict=True)):
        told = attending(null=Letters().tokens(other))
        alone = made(told, seeds=[i], condition=prompt)
        assert torch.equal(result.samples[i : i + 1], alone.samples)


def test_a_negative_class_is_the_null_of_the_classes():
    network = mixture(null=2, classes=2)
    result = Sampler(network, "ddim", 4, guidance=2.0).sample(condition=[0, 0], negative=[1, 2])
    other = Sampler(mixture(null=1, classes=2), "ddim", 4, guidance=2.0).sample(condition=0)
    assert torch.equal(result.samples[:1], other.samples)
    plain = Sampler(network, "ddim", 4, guidance=2.0).sample(2, condition=0)
    assert torch.equal(result.samples[1:], plain.samples[1:])
    assert result.recipe["negative"] == [1, 2]


def test_composed_prompts_are_the_sum_of_their_scores():
    network = attending()
    result = made(
        network, 1.0, n=2, compose=[("a cat", 1.0), ("something blue", [0.5, 0.0])], negative="red"
    )
    one = made(network, 1.0, n=2, compose=[("a cat", 1.0)])
    assert torch.allclose(result.samples[1], one.samples[1])
    assert not torch.allclose(result.samples[0], one.samples[0])
    assert result.recipe["compose"] == [["a cat", "something blue"]] * 2


@pytest.mark.parametrize(
    "request_",
    [
        {"condition": TWO, "negative": "ugly"},
        {"condition": TWO, "guidance": [1.0, 4.0]},
        {"n": 2, "compose": [(TWO, 1.0), ("blue", 0.5)], "guidance": None, "negative": ["a", "b"]},
        {"n": 3, "condition": "a", "negative": ["a", "b", "c"]},
    ],
    ids=str,
)  # fmt: skip
def test_a_recipe_holds_the_text_and_no_more_is_needed(request_):
    network = attending(decoder=codec())
    sampler = Sampler(network, batch_size=1)
    result = sampler.sample(**{"guidance": 3.0} | request_)
    assert result.samples.shape[1:] == (3, 8, 8) and result.recipe["needs"] == []
    assert result.recipe["origins"] == ["text/letters/1"]
    again = Sampler.replay(network, json.loads(json.dumps(result.recipe)))
    assert torch.equal(again.samples, result.samples) and again.recipe == result.recipe
    parts = list(sampler.chunks(**{"guidance": 3.0} | request_))
    assert Result.join(parts).recipe == result.recipe


def test_a_recipe_of_another_text_encoder_or_of_none_is_refused():
    recipe = made(attending(), condition=TWO).recipe
    other = attending(text=Letters("text/letters/2"))
    with pytest.raises(ValueError, match=r"made of text/letters/1 and is made of text/letters/2"):
        Sampler.replay(other, recipe)
    with pytest.raises(ValueError, match=r"takes tensors and no prompt; got the prompt 'a red"):
        Sampler.replay(attending(text=None), recipe)


def test_a_text_encoder_without_an_origin_is_known_by_nothing():
    letters = Letters()
    network = attending(text=lambda prompts: letters(prompts))
    result = made(network, condition=TWO)
    assert result.recipe["origins"] == [] and result.recipe["condition"] == TWO
    assert torch.equal(Sampler.replay(network, result.recipe).samples, result.samples)


def test_latents_are_made_again_as_latents():
    network = attending(decoder=codec())
    recipe = Sampler(network, decoder=None).sample(condition="a cat").recipe
    again = Sampler.replay(network, recipe)
    assert again.samples.shape[1:] == (2, 4, 4) and again.latents is None
    images = Sampler(network).sample(condition="a cat").recipe
    assert Sampler.replay(network, images, {"decoder": None}).samples.shape[1:] == (2, 4, 4)
    with pytest.raises(ValueError, match="decoded with scale_factor=2"):
        Sampler.replay(attending(decoder=codec(scale_factor=3.0)), images)


def test_a_network_that_reads_its_guidance_takes_prompts():
    network = attending(scale_input=ScaleValue())
    result = made(network, 4.0, condition=TWO)
    assert result.evaluations == 2 * 4
    assert torch.equal(Sampler.replay(network, result.recipe).samples, result.samples)
    assert not torch.equal(made(network, 2.0, condition=TWO).samples, result.samples)
    with pytest.raises(ValueError, match="reads its guidance scale, and calls no"):
        made(network, 4.0, condition=TWO, negative="blue")


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        ({"condition": 3}, "the network 'letters' takes prompts, such as 'a red heart'.*; got 3|3"),
        ({"condition": ""}, "is an empty text"),
        ({"condition": "a" * 10_000}, "has 10000 characters"),
        ({"n": 3, "condition": TWO}, "2 prompts for 3 samples"),
        ({"condition": ["a", 3]}, r"condition\[1\]=3: a prompt is a text"),
        ({"condition": "a", "negative": "b", "guidance": 1.0}, "guidance=1 calls no unconditional"),
        ({"n": 2, "condition": "a", "negative": ["a", "b", "c"]}, "3 prompts for 2"),
        ({"condition": "a", "negative": torch.zeros(1, 2, WIDTH)}, "the shape .* null condition"),
    ],
    ids=str,
)  # fmt: skip
def test_what_is_no_prompt_is_refused_in_a_sentence(request_, error):
    with pytest.raises(ValueError, match=error):
        made(attending(), **request_)


def test_a_negative_of_which_the_weights_leave_nothing_is_refused():
    with pytest.raises(ValueError, match="weights of sum 1 leave nothing of the unconditional"):
        made(attending(), 1.0, n=1, compose=[("a", 1.5), ("b", -0.5)], negative="c")


def test_a_prompt_for_another_network_is_refused():
    with pytest.raises(ValueError, match="takes a class, 0 to 1, and no prompt; got the prompt"):
        Sampler(mixture(null=2, classes=2)).sample(condition="a cat")
    with pytest.raises(ValueError, match="has no unconditional branch"):
        made(attending(null=None), 1.0, condition="a", negative="b")
    with pytest.raises(ValueError, match=r"prompts \(text\) or a class"):
        attending(classes=3, null=None)
    with pytest.raises(ValueError, match="text=3: give a function"):
        attending(text=3)


def test_an_engine_takes_prompts():
    network = attending(decoder=codec())
    spec = {"solver": "ddim", "steps": 4, "guidance": 3.0}
    want = Sampler(network, "ddim", 4, guidance=3.0).sample(condition=TWO, negative="blue")
    with Engine(network, capacity=4) as engine:
        handle = engine.submit(spec, condition=TWO, negative="blue")
        composed = engine.submit(
            spec | {"guidance": 1.0}, compose=[("a", 1.0), ("b", 1.0)]
        ).result()
        result = handle.result()
    assert torch.allclose(result.samples, want.samples, atol=1e-5)
    assert result.recipe["condition"] == TWO and result.recipe["negative"] == ["blue"] * 2
    assert composed.recipe["compose"] == [["a", "b"]]


def test_a_sampler_with_prompts_is_pickled_whole():
    sampler = Sampler(attending(decoder=codec()), guidance=3.0)
    again = pickle.loads(pickle.dumps(sampler))
    assert torch.equal(again.sample(condition="a").samples, sampler.sample(condition="a").samples)


@pytest.mark.parametrize(
    "how", [{"executor": "native", "threads": 1}, {"accelerate": True}], ids=str
)
def test_tokens_are_a_condition_of_every_executor(how):
    network = attending()
    want = made(network, condition=TWO, negative="blue").samples
    got = Sampler(network, guidance=3.0, **how).sample(condition=TWO, negative="blue").samples
    assert torch.allclose(got, want, atol=1e-5)


def test_a_plan_guides_away_from_a_negative():
    network = attending()
    sampler = Sampler(network, guidance=3.0)
    want = sampler.sample(condition="a", negative="b").samples
    led = Sampler.from_plan(network, sampler.plan())
    assert torch.equal(led.sample(condition="a", negative="b").samples, want)
    with pytest.raises(ValueError, match="the plan calls no unconditional branch"):
        Sampler.from_plan(network, sampler.plan(1.0)).sample(condition="a", negative="b")
