"""Inverse problems in samplers and engines: bits, guidance, recipes, and a sentence for what cannot be."""

import pytest
import torch
from inverse_cases import Y, matrix, network

from diffusion_engine import Engine, Sampler, ScoreNetwork, with_classifier
from diffusion_engine.drivers import DRIVERS, driver
from diffusion_engine.drivers.dps import DPS
from diffusion_engine.drivers.mmps import MMPS
from diffusion_engine.drivers.operators import Operator
from diffusion_engine.processes import VP
from diffusion_engine.testing import Mixture, cld_mixture, labelled_mixture
from diffusion_engine.testing.exact_networks import generator
from diffusion_engine.zoo import load_network

NAMES = ("dps", "pgdm", "mmps", "diffpir", "flowdps")
SHAPE = (1, 4, 6)
A = {"name": "deblurring", "size": 3}
MEASURED = torch.randn(5, *SHAPE, generator=torch.Generator().manual_seed(3))


def made(name, network, solver="ddim", steps=6, **options):
    about = {"name": name, "options": {"operator": A}}
    return Sampler(network, solver, steps, driver=about, **options)


@pytest.mark.parametrize("backend", ["torch", "cpp"])
@pytest.mark.parametrize("name", NAMES)
def test_bits_are_the_same_alone_and_in_a_batch(name, backend):
    run = made(name, Mixture().network(VP(), SHAPE), "dpmpp_2m_sde", backend=backend)
    together = run.sample(measurement=MEASURED, seed=7)
    assert all(together.finite)
    parts = run.sample(measurement=MEASURED, seed=7, batch_size=2)
    assert torch.equal(parts.samples, together.samples)
    for i in (0, 4):
        alone = run.sample(measurement=MEASURED[i : i + 1], seeds=[7 + i])
        assert torch.equal(alone.samples[0], together.samples[i])
    assert not torch.equal(
        run.sample(5, measurement=MEASURED[0], seed=7).samples[4], together.samples[4]
    )


@pytest.mark.parametrize("name", NAMES)
def test_bits_are_those_of_an_engine_beside_other_samples(name):
    network = Mixture().network(VP(), SHAPE)
    run = made(name, network)
    with Engine(network, capacity=4) as engine:
        others = engine.submit("ddim", 3)
        handle = engine.submit(run.spec, measurement=MEASURED[:2], seed=7)
        found = handle.result(60).samples
        others.result(60)
    assert torch.equal(found, run.sample(measurement=MEASURED[:2], seed=7).samples)


@pytest.mark.parametrize("name", NAMES)
def test_guidance_follows_the_conditions_posterior(name):
    """Of a network without a difference between its branches any scale is none; of another it acts."""
    labelled = labelled_mixture(shape=SHAPE)
    run = made(name, labelled, dtype=torch.float64, backend="torch")
    asked = {"measurement": MEASURED[:2], "seed": 1}
    plain = run.sample(condition=[0, 1], **asked).samples
    assert torch.equal(run.sample(condition=[0, 1], guidance=1.0, **asked).samples, plain)
    guided = run.sample(condition=[0, 1], guidance=[1.0, 1.5], **asked)
    assert torch.equal(guided.samples[0], plain[0]) and not torch.equal(guided.samples[1], plain[1])
    none = run.sample(condition=[3, 3], **asked).samples  # the null class
    assert torch.allclose(run.sample(2, **asked).samples, none)
    assert torch.allclose(
        run.sample(condition=[3, 3], guidance=3.0, **asked).samples, none, atol=1e-8
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_makes_them_again(name):
    network = Mixture().network(VP(), SHAPE)
    result = made(name, network).sample(measurement=MEASURED, seed=2)
    assert result.recipe["driver"]["options"]["operator"] == A
    assert result.recipe["needs"] == ["measurement"]
    again = Sampler.replay(network, result.recipe, measurement=MEASURED)
    assert torch.equal(again.samples, result.samples)
    with pytest.raises(ValueError, match="was made with measurement; give them again"):
        Sampler.replay(network, result.recipe)


def test_an_operator_of_the_users_is_given_again():
    rule, y = MMPS(operator=matrix(), iterations=4), torch.from_numpy(Y)
    result = Sampler(network(), "ddim", 5, driver=rule).sample(measurement=y)
    assert result.recipe["needs"] == ["measurement", "driver"]
    again = Sampler.replay(network(), result.recipe, {"driver": rule}, measurement=y)
    assert torch.equal(again.samples, result.samples)


@pytest.mark.parametrize("name", NAMES)
def test_a_network_of_weights_follows_a_measurement(name):
    """The digits, in half precision too: nearer to the measurement than the solver's own samples."""
    digits, seeds = load_network("digits"), {"condition": [3, 7], "seed": 5}
    rule = driver(name, operator="super_resolution", **({"zeta": 3.0} if name == "dps" else {}))
    a = rule.made
    y = a.apply(Sampler(digits, "ddim", 10).sample(condition=[3, 7], seed=90).samples)

    def apart(samples):
        return float((a.apply(samples.float()) - y).square().mean().sqrt())

    free = apart(Sampler(digits, "ddim", 10).sample(**seeds).samples)
    for dtype in (torch.float32, torch.bfloat16):
        run = Sampler(digits, "ddim", 10, driver=rule, dtype=dtype, clip=(-1.0, 1.0))
        assert apart(run.sample(measurement=y, **seeds).samples) < 0.4 * free
    assert digits.module(
        torch.zeros(1, *digits.shape), torch.ones(1), torch.tensor([1])
    ).requires_grad


def test_a_discrete_process_and_labels_that_are_whole():
    from diffusion_engine.processes import Discrete

    chain = Discrete.linear()
    exact = Mixture().network(chain, SHAPE)
    told = []

    def module(x, label):
        told.append(label)
        at = chain.alpha(label.numpy()), chain.sigma(label.numpy())
        alpha, sigma = (torch.from_numpy(v).view(-1, 1, 1, 1) for v in at)
        return Mixture().denoised(x.double(), alpha, sigma).to(x.dtype)

    whole = ScoreNetwork(module, chain, SHAPE, prediction="x0", label_dtype=torch.int64)
    ends = [
        made("mmps", n, grid="leading").sample(measurement=MEASURED).samples for n in (whole, exact)
    ]
    assert told[0].dtype == torch.int64
    assert torch.allclose(*ends, atol=1e-4)


def own(**options):
    return Mixture().network(VP(), SHAPE, **options)


def sampled(name="mmps", net=None, **asked):
    return made(name, net or own(), steps=3).sample(**asked)


def detached(x, label):
    return x.detach().clone()


BASE = labelled_mixture(shape=SHAPE)
WRONG = {
    "no operator": (lambda: driver("dps"), "driver 'dps' needs operator=: give an Operator(apply"),
    "unknown operator": (lambda: driver("dps", operator="x"), "operator='x': choose inpainting"),
    "zeta": (lambda: driver("dps", operator=A, zeta=-1.0), "zeta=-1: the step goes down"),
    "sigma_y": (
        lambda: driver("mmps", operator=A, sigma_y=-0.1),
        "sigma_y=-0.1: a standard deviation",
    ),
    "sigma_data": (lambda: driver("pgdm", operator=A, sigma_data=0.0), "sigma_data=0: a standard"),
    "iterations": (
        lambda: driver("mmps", operator=A, iterations=0),
        "iterations=0: conjugate gradients",
    ),
    "flowdps's": (lambda: driver("flowdps", operator=A, iterations=0), "iterations=0: conjugate"),
    "lam": (lambda: driver("diffpir", operator=A, lam=0.0), "lam=0: the weight of the network's"),
    "option": (
        lambda: driver("dps", operator=A, zetta=1),
        "driver 'dps' takes no zetta; did you mean zeta",
    ),
    "adjoint": (
        lambda: DPS(Operator(lambda x: x, lambda y: 2.0 * y)).network(own()),
        "the adjoint of 'operator' is not the transpose",
    ),
    "no measurement": (
        lambda: sampled(n=2),
        "this sampler follows a measurement: give measurement= [2, 1, 4, 6], or one for all samples",
    ),
    "another shape": (
        lambda: sampled(measurement=torch.zeros(2, 1, 4, 5)),
        "measurement has shape [2, 1, 4, 5]; it has to fit [2, 1, 4, 6]",
    ),
    "another number": (
        lambda: sampled(n=3, measurement=torch.zeros(2, 1, 4, 6)),
        "measurement",
    ),
    "whole numbers": (
        lambda: sampled(measurement=torch.zeros(2, 1, 4, 6, dtype=torch.uint8)),
        "measurement holds torch.uint8, and a network's data are floating-point",
    ),
    "no driver": (
        lambda: Sampler(own(), "ddim", 3).sample(2, measurement=torch.zeros(2, 1, 4, 6)),
        "measurement= is what a driver of inverse problems follows",
    ),
    "CLD": (
        lambda: made("dps", cld_mixture(shape=SHAPE), "cld_ode"),
        "it follows x alone, and the network's state is [x, v]; give a network of x",
    ),
    "a generator": (
        lambda: made("dps", generator(SHAPE), "ddgan"),
        "it is a generator that reads a latent",
    ),
    "a classifier": (
        lambda: made("dps", with_classifier(BASE, BASE.module.classifier)),
        "it has a classifier, whose gradient would be left out",
    ),
    "no derivative": (
        lambda: sampled(
            "dps", ScoreNetwork(detached, VP(), SHAPE, prediction="x0"), measurement=MEASURED
        ),
        "driver 'dps' differentiates the network, whose output has no derivative by its input",
    ),
    "a rule of floats": (
        lambda: made("mmps", own(label=lambda at: float(at.t))),
        "the function behind label= has to take tensors",
    ),
    "a level that is no time's": (
        lambda: Sampler(own(), "ddim", sigmas=[500.0, 1.0], driver=driver("dps", operator=A)),
        "sigma / alpha = 500 is not that of VP at t=1",
    ),
    "recorded": (
        lambda: Sampler(
            load_network("digits"), "ddim", 2, driver=DPS("super_resolution"), executor="native"
        ).sample(condition=[3], measurement=torch.zeros(1, 16, 16)),
        "driver 'dps' corrects the network's estimate in Python, which no recording holds",
    ),
    "eps beside": (
        lambda: made("dps", own(), clipped_eps=False),
        "reads the network's outputs beside the estimate of x0",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_sentence_for(case):
    run, said = WRONG[case]
    with pytest.raises(ValueError) as error:
        run()
    assert said in str(error.value)


def test_they_are_drivers_by_name():
    assert set(NAMES) <= set(DRIVERS)
    for name in NAMES:
        rule = driver(name, operator="super_resolution")
        assert rule.name == name and rule.source and not rule.leads
