"""What `like` is given beside a scheduler of diffusers: a network, a strength, a shift that was set, and an
EngineScheduler."""

import dataclasses

import pytest
import torch
from optional import diffusers, needs
from scheduler_cases import SHAPE, Net, difference, made
from scheduler_fate import EQUAL

from diffusion_engine import ScoreNetwork, from_diffusers, solvers
from diffusion_engine.adapters.diffusers import EngineScheduler, like
from diffusion_engine.processes import FlowMatching

needs("diffusers")


def unet():
    return diffusers.UNet2DModel(
        sample_size=8,
        in_channels=2,
        out_channels=2,
        block_out_channels=(8,),
        layers_per_block=1,
        down_block_types=("DownBlock2D",),
        up_block_types=("UpBlock2D",),
        norm_num_groups=8,
    )


def test_it_takes_the_network_too():
    """A network, or the module that one is made of: what `sampler` is else given."""
    scheduler, module = made("DDIMScheduler", {}), Net("epsilon", 1000.0)
    network = ScoreNetwork(module, like(scheduler, 5).process, SHAPE, "eps")
    same = like(scheduler, network, 5)
    assert same.network is network and same == like(scheduler, network=network, steps=5)
    assert dataclasses.replace(same, network=None) == like(scheduler, 5)
    a, b = same.sampler(), like(scheduler, 5).sampler(network)
    assert torch.equal(a.sample(2, seed=3).samples, b.sample(2, seed=3).samples)
    net = unet()
    x = like(scheduler, net, 3).sampler().sample(2, seed=3).samples
    sampler = like(scheduler, 3).sampler(from_diffusers(net, scheduler))
    assert torch.equal(x, sampler.sample(2, seed=3).samples)
    v = made("DDIMScheduler", {"prediction_type": "v_prediction"})
    with pytest.raises(ValueError, match="has prediction='eps' and DDIMScheduler says 'v'"):
        like(v, network, 5)
    with pytest.raises(ValueError, match="network='net': give from_diffusers"):
        like(scheduler, "net", 5)
    with pytest.raises(ValueError, match="network=None: give from_diffusers"):
        like(scheduler, 5).sampler()


@pytest.mark.parametrize("published", [True, False])
def test_image_to_image_of_stable_diffusions_own_scheduler(published):
    """PNDM without Runge-Kutta has its second timestep twice, which a pipeline cuts off with the first."""
    config = {"skip_prk_steps": True, "steps_offset": 1}
    off, same = difference(
        "PNDMScheduler", config, 10, torch.float64, strength=0.6, published=published
    )
    assert (off < EQUAL) == published, off
    assert same.points == like(made("PNDMScheduler", config), 10).points[3:]
    assert same.sampler(ScoreNetwork(Net("epsilon", 1000.0), same.process, SHAPE)).plan().nfe == 7
    assert "published=False makes each once" in same.notes[0]


@pytest.mark.parametrize("name", ["FlowMatchEulerDiscreteScheduler", "FlowMatchLCMScheduler"])
def test_a_shift_that_was_set_is_read(name):
    """set_shift moves levels between the ends that a scheduler was made with."""
    scheduler = made(name, {"shift": 2.0})
    before = like(scheduler, 6).points
    scheduler.set_shift(5.0)
    scheduler.set_timesteps(6)
    wanted = [float(sigma) for sigma in scheduler.sigmas]
    assert [at.sigma for at in like(scheduler, 6).points] == pytest.approx(wanted, abs=1e-6)
    grid = from_diffusers(unet(), scheduler).parameterisation.grid
    assert [at.sigma for at in grid(FlowMatching(), 6)] == pytest.approx(wanted, abs=1e-6)
    assert like(scheduler.config | {"_class_name": name}, 6).points == before


@pytest.mark.parametrize(
    "solver, options", [(None, {}), ("dpmpp_2m", {"variant": "heun"}), ("ddim", {})]
)
def test_an_engine_scheduler_is_one_too(solver, options):
    """Its solver on the levels of the class that it is like, whether it is given, or what was saved of it."""
    source = made("DDIMScheduler", {"beta_schedule": "scaled_linear"})
    engine = EngineScheduler.from_config(source, solver=solver, options=options)
    own = like(source, 6)
    for given in (engine, engine.config, {**engine.config, "_class_name": "EngineScheduler"}):
        same = like(given, 6)
        assert (same.name, same.points) == ("DDIMScheduler", own.points)
        assert same.solver == (own.solver if solver is None else solvers.solver(solver, **options))
    if solver in (None, "ddim"):
        assert like(engine, 6, eta=0.5).solver == dataclasses.replace(
            like(engine, 6).solver, eta=0.5
        )
    else:
        with pytest.raises(ValueError, match=r"eta=0\.5, which is of solver 'ddim'"):
            like(engine, 6, eta=0.5)
    with pytest.raises(ValueError, match="s_churn"):
        like(engine, 6, s_churn=0.5)
    net = unet()
    assert (
        from_diffusers(net, engine).parameterisation == from_diffusers(net, source).parameterisation
    )


def test_what_an_engine_scheduler_leaves_in_a_configuration_is_not_read():
    engine = EngineScheduler.from_config(
        made("DDIMScheduler", {}), solver="unipc", options={"max_order": 3}
    )
    back = diffusers.DDIMScheduler.from_config(engine.config)
    assert back.config["solver"] == "unipc"
    assert like(back, 6) == like(made("DDIMScheduler", {}), 6)
    assert from_diffusers(unet(), back).process == like(back, 6).process
