"""EngineScheduler's configuration, whose a run is, and what it refuses before anything has changed."""

import asyncio
import contextvars
import gc
import threading
import weakref
from functools import partial

import numpy as np
import pytest
import torch
from dispatched import Operations
from engine_scheduler_cases import NOISE, SHAPE, loop, net, scheduler_of, seeded
from optional import diffusers

from diffusion_engine.adapters import diffusers as adapter
from diffusion_engine.adapters.diffusers.current import current


def engine():
    return adapter.EngineScheduler


def test_three_lines():
    """Every field of the other class is kept, and the class itself is found where its name is not said."""
    source = diffusers.DDIMScheduler(beta_start=0.0009, clip_sample=False)
    ours = engine().from_config(source.config, solver="dpmpp_2m", options={"variant": "heun"})
    assert {k: ours.config[k] for k in source.config if k[0] != "_"} == {
        k: v for k, v in source.config.items() if k[0] != "_"
    }
    assert ours.config.like == "DDIMScheduler" and ours.config.solver == "dpmpp_2m"
    back = diffusers.DDIMScheduler.from_config(ours.config)
    assert {k: v for k, v in back.config.items() if k in source.config and k[0] != "_"} == {
        k: v for k, v in source.config.items() if k[0] != "_"
    }
    changed = engine().from_config(ours.config, solver="unipc", options={}, beta_start=0.0001)
    assert changed.config.beta_start == 0.0001 and changed.config.clip_sample is False


def test_another_class_between_two_of_these_is_the_one_that_counts():
    """Its configuration has the solver, the seeds and the class of before, which are none of its own."""
    first = engine().from_config(diffusers.DDIMScheduler().config, solver="dpmpp_2m", seeds=[1])
    between = diffusers.EulerDiscreteScheduler.from_config(first.config)
    for given in (between, between.config):
        again = engine().from_config(given)
        assert (again.config.like, again.config.solver) == ("EulerDiscreteScheduler", None)
        assert again.config.seeds is None and again.config.options == {}
        assert adapter.like(given, 5) == adapter.like(diffusers.EulerDiscreteScheduler(), 5)


CLASSES = [
    "DDIM", "DDPM", "PNDM", "EulerDiscrete", "EulerAncestralDiscrete", "HeunDiscrete", "DPMSolverMultistep",
    "DPMSolverSinglestep", "DEISMultistep", "UniPCMultistep", "FlowMatchEulerDiscrete",
    "FlowMatchHeunDiscrete", "EDMEuler", "EDMDPMSolverMultistep",
]  # fmt: skip


@pytest.mark.parametrize("name", CLASSES)
def test_a_configuration_without_a_name_tells_its_class_by_its_fields(name, tmp_path):
    source = getattr(diffusers, f"{name}Scheduler")()
    ours = engine().from_config(source.config, solver="ddim")
    assert ours.config.like == f"{name}Scheduler"
    source.save_pretrained(tmp_path)
    named = engine().from_pretrained(tmp_path, solver="ddim")
    assert named.config.like == f"{name}Scheduler"
    assert engine().from_config(source).config.like == f"{name}Scheduler"
    # What another's configuration leaves in it does not mislead.
    switched = diffusers.DPMSolverMultistepScheduler.from_config(source.config)
    assert engine().from_config(switched.config).config.like == "DPMSolverMultistepScheduler"


def test_classes_of_the_same_fields_are_named():
    for kind in (diffusers.LMSDiscreteScheduler, diffusers.KDPM2DiscreteScheduler):
        with pytest.raises(
            ValueError, match=r"may be of LMSDiscreteScheduler, .*KDPM2Discrete.*like="
        ):
            engine().from_config(kind().config, solver="dpmpp_2m")
        assert engine().from_config(kind().config, like=kind.__name__).config.like == kind.__name__


def test_it_is_saved_and_loaded(tmp_path):
    source = diffusers.EulerDiscreteScheduler(use_karras_sigmas=True, trained_betas=None)
    ours = scheduler_of(source, solver="dpmpp_2m_sde", options={"eta": 0.5}, seeds=[3, 4])
    ours.save_pretrained(tmp_path)
    loaded = engine().from_pretrained(tmp_path)
    told = ("solver", "options", "seeds", "like", *source.config)
    assert all(loaded.config[k] == ours.config[k] for k in told if k[0] != "_")
    assert torch.equal(loop(loaded, 5), loop(ours, 5))
    lent = diffusers.DDIMPipeline(
        diffusers.UNet2DModel(
            sample_size=8,
            block_out_channels=(8,),
            down_block_types=("DownBlock2D",),
            up_block_types=("UpBlock2D",),
            layers_per_block=1,
            norm_num_groups=8,
        ),
        diffusers.DDIMScheduler(),
    )
    lent.scheduler = ours
    lent.save_pretrained(tmp_path / "pipe")
    assert (tmp_path / "pipe/scheduler/scheduler_config.json").exists()


LEVELS = [[900, 700, 500, 300, 100], [999, 600, 400, 200, 5], [800, 640, 480, 320, 160]]


def run(scheduler, levels, seed, network=net):
    scheduler.set_timesteps(timesteps=levels)
    return loop(scheduler, generator=seeded(seed), network=network)


def test_threads_share_one_scheduler():
    """Each has its timesteps, history and noise, though their steps take turns."""
    ours = scheduler_of(
        diffusers.DPMSolverMultistepScheduler(), solver="dpmpp_2m_sde", options={"eta": 0.5}
    )
    want = [run(ours, levels, seed) for seed, levels in enumerate(LEVELS)]
    turns, got = threading.Barrier(len(LEVELS)), {}

    def in_turn(x, t):
        turns.wait(20)
        return net(x, t)

    def work(seed):
        got[seed] = run(ours, LEVELS[seed], seed, in_turn)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(len(LEVELS))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert all(torch.equal(got[seed], want[seed]) for seed in range(len(LEVELS)))
    assert not torch.equal(want[0], want[1])
    assert ours.timesteps.tolist() == LEVELS[-1], "this thread has the run it began itself"


def test_tasks_of_one_thread_have_runs_of_their_own():
    ours = scheduler_of(diffusers.DDPMScheduler(), solver="dpmpp_2m")
    want = [run(ours, levels, 0) for levels in LEVELS]

    async def work(levels):
        ours.set_timesteps(timesteps=levels)
        x = NOISE
        for t in ours.timesteps:
            await asyncio.sleep(0)
            x = ours.step(net(x, t), t, x).prev_sample
        return x

    async def all_of():
        return await asyncio.gather(*map(work, LEVELS))

    assert all(map(torch.equal, asyncio.run(all_of()), want))


def test_two_runs_that_take_turns_need_two_schedulers():
    one = scheduler_of(diffusers.DDIMScheduler())
    two = scheduler_of(diffusers.DDIMScheduler())
    want, x, y = loop(one, 4), NOISE, NOISE
    one.set_timesteps(4)
    two.set_timesteps(4)
    for s, t in zip(one.timesteps, two.timesteps, strict=True):
        x, y = one.step(net(x, s), s, x)[0], two.step(net(y, t), t, y)[0]
    assert torch.equal(x, want) and torch.equal(y, want)
    one.set_timesteps(4)
    t = one.timesteps[0]
    one.step(net(x, t), t, x)
    with pytest.raises(ValueError, match=r"out of order.*two runs side by side in one thread need"):
        one.step(net(x, t), t, x)


@pytest.mark.parametrize("solver", ["dpmpp_2m", "heun", "ddpm", "unipc"])
def test_the_slots_of_a_run_that_ended_serve_the_next(solver):
    """Of its like; what it left in them is not read, and of two runs at a time only one takes them."""
    ours = scheduler_of(diffusers.DDIMScheduler(), solver=solver)
    want = loop(ours, 5, generator=seeded())
    loop(ours, 5, x=NOISE * np.nan)
    with Operations() as ran:
        assert torch.equal(loop(ours, 5, generator=seeded()), want)
    assert "zeros" not in ran.names and ran.names.count("fill_") == 1
    for x in (NOISE[:1], NOISE.double(), NOISE):
        with Operations() as ran:
            loop(ours, 5, x=x)
        assert ("zeros" in ran.names) == (x is not NOISE)
    contexts = contextvars.copy_context(), contextvars.copy_context()
    noise, made = [seeded(), seeded()], [NOISE, NOISE]
    for context in contexts:
        context.run(ours.set_timesteps, 5)
    times = [context.run(lambda: ours.timesteps) for context in contexts]
    for pair in zip(*times, strict=True):
        for k, t in enumerate(pair):
            step = partial(ours.step, net(made[k], t), t, made[k], generator=noise[k])
            made[k] = contexts[k].run(step).prev_sample
    assert torch.equal(made[0], want) and torch.equal(made[1], want)


def test_a_run_goes_with_its_scheduler():
    ours = scheduler_of(diffusers.DDIMScheduler())
    loop(ours, 3)
    held = weakref.ref(ours.timesteps)
    ours.set_timesteps(3)
    state = weakref.ref(current(ours))
    del ours
    gc.collect()
    assert state() is None and held() is None


def begun(**how):
    ours = scheduler_of(diffusers.DDIMScheduler(), **how)
    ours.set_timesteps(5)
    return ours


def test_a_step_out_of_order_is_refused_and_changes_nothing():
    ours, want = begun(solver="dpmpp_2m"), loop(begun(solver="dpmpp_2m"), 5)
    x, times = NOISE, ours.timesteps
    for i, t in enumerate(times):
        out = net(x, t)
        wrong = [
            (out, times[i - 1 if i else 3], x) if i else (out, 7, x),
            (out, 7.5, x),
            (out[:, :2], t, x),
            (out[:1], t, x),
            (out, t, x[:1]) if i else (out[:1], t, x),
            (out[:, :, :4], t, x),
        ]
        for bad in wrong:
            with pytest.raises(ValueError, match=r"timestep=|model_output is|sample is"):
                ours.step(*bad)
        x = ours.step(out, (t, float(t), t.clone())[i % 3], x).prev_sample
        assert ours.step_index == i + 1
    assert torch.equal(x, want)
    with pytest.raises(ValueError, match="5 timesteps is at its end"):
        ours.step(net(x, 0), 0, x)


@pytest.mark.parametrize("config, sentence", [
    ({"prediction_type": "noise"}, "prediction_type='noise' is none of epsilon"),
    ({"solver": "dpmpp2m"}, "unknown solver 'dpmpp2m'.*did you mean dpmpp_2m"),
    ({"solver": "ddim", "options": {"etta": 1.0}}, "no option etta.*did you mean eta"),
    ({"options": {"eta": 1.0}}, "options=.*none is named: give solver="),
    ({"use_karras_sigmas": True, "use_exponential_sigmas": True}, "use_karras_sigmas and use_exp"),
    ({"like": "PNDM"}, "of the class PNDM is not understood"),
    ({"like": "VQDiffusionScheduler"}, "VQDiffusionScheduler is not understood"),
    ({"of_a_later_release": 1}, "asks for of_a_later_release=1"),
    ({"seeds": [-1]}, "seeds=-1"),
    ({"seeds": 5}, "seeds=5: give a list"),
    ({"seeds": []}, r"seeds=\[\]: give a list"),
])  # fmt: skip
def test_contradictions_are_refused_when_it_is_made(config, sentence):
    with pytest.raises(ValueError, match=sentence):
        engine()(**{"like": "EulerDiscreteScheduler", **config})


def test_what_is_no_configuration_is_refused():
    for given in ("stable-diffusion", None, 5):
        with pytest.raises(ValueError, match=r"config=.*give the config of a scheduler"):
            engine().from_config(given)
    with pytest.raises(ValueError, match=r"no _class_name.*of no class that is understood"):
        engine().from_config({"num_train_timesteps": 1000})
    with pytest.raises(ValueError, match="of the class MyScheduler is not understood"):
        engine().from_config({"_class_name": "MyScheduler"})


@pytest.mark.parametrize("asked, sentence", [
    ({}, "num_inference_steps, timesteps and sigmas are all None"),
    ({"num_inference_steps": 0}, "num_inference_steps=0"),
    ({"num_inference_steps": 2.5}, "num_inference_steps=2.5"),
    ({"num_inference_steps": 1001}, "1001 steps"),
    ({"timesteps": [100, 500]}, "timesteps=.*have to fall"),
    ({"sigmas": [1.0, 2.0, 0.0]}, "sigmas=.*have to fall"),
    ({"sigmas": 3.0}, "sigmas=3.0: give a list"),
    ({"num_inference_steps": 4, "seeds": [1.5]}, "seeds=1.5"),
])  # fmt: skip
def test_levels_that_are_no_run_are_refused_and_the_run_stays(asked, sentence):
    ours = scheduler_of(diffusers.EulerDiscreteScheduler())
    ours.set_timesteps(3)
    before = ours.timesteps
    with pytest.raises(ValueError, match=sentence):
        ours.set_timesteps(**asked)
    assert ours.timesteps is before


def test_a_step_before_set_timesteps_is_refused():
    ours = scheduler_of(diffusers.DDIMScheduler())
    for call in (
        lambda: ours.step(NOISE, 999, NOISE),
        lambda: ours.set_begin_index(0),
        lambda: ours.sigmas,
    ):
        with pytest.raises(ValueError, match="before set_timesteps: call set_timesteps"):
            call()
    assert ours.timesteps[0] == 999 and ours.num_inference_steps is ours.step_index is None
    assert ours.init_noise_sigma == 1.0 and ours.order == 1


def test_where_a_run_begins():
    ours = scheduler_of(diffusers.DDIMScheduler(), solver="heun")
    ours.set_timesteps(5)
    assert ours.order == 2 and len(ours.timesteps) == 9
    for index in (9, -1, 1.5):
        with pytest.raises(ValueError, match=f"begin_index={index}: an index of the run's 9"):
            ours.set_begin_index(index)
    ours.set_begin_index(1)
    with pytest.raises(
        ValueError, match=r"begin_index=1 is within a step of 'heun'.*0, 2, 4, 6, 8"
    ):
        ours.step(NOISE, ours.timesteps[1], NOISE)
    ours.set_begin_index(2)
    with pytest.raises(ValueError, match=r"timestep=.* is out of order"):
        ours.step(NOISE, ours.timesteps[4], NOISE)
    ours.step(NOISE, ours.timesteps[2], NOISE)
    assert (ours.begin_index, ours.step_index) == (2, 3)
    with pytest.raises(ValueError, match="begin_index=4: the run has made steps already"):
        ours.set_begin_index(4)


def test_what_a_step_is_given():
    ours = begun(solver="dpmpp_2m")
    t = ours.timesteps[0]
    for how, sentence in (
        ({"eta": 0.5}, "eta=0.5, which is of solver 'ddim'.*'dpmpp_2m'"),
        ({"use_clipped_model_output": True}, "use_clipped_model_output=True, which is of solver"),
        ({"eta": seeded()}, "eta=.*a generator is generator="),
    ):
        with pytest.raises(ValueError, match=sentence):
            ours.step(NOISE, t, NOISE, **how)
    noisy = begun(solver="ddpm")
    t = noisy.timesteps[0]
    for how, sentence in (
        ({"generator": [seeded()] * 3}, "generator has 3 entries and sample 2"),
        ({"variance_noise": NOISE[:1]}, r"variance_noise is \[1, 4, 8, 8\]"),
    ):
        with pytest.raises(ValueError, match=sentence):
            noisy.step(NOISE, t, NOISE, **how)
    with pytest.raises(ValueError, match="model_output requires a derivative"):
        noisy.step(NOISE.clone().requires_grad_(), t, NOISE)
    with pytest.raises(ValueError, match="seeds has 3 entries and sample 2"):
        noisy.set_timesteps(5, seeds=[1, 2, 3])
        noisy.step(NOISE, t, NOISE)
    ddim = begun()
    ddim.step(NOISE, ddim.timesteps[0], NOISE, eta=0.5)
    with pytest.raises(ValueError, match=r"began with ..eta.: 0.5.*the same eta"):
        ddim.step(NOISE, ddim.timesteps[1], NOISE, eta=0.6)
    learned = scheduler_of(diffusers.DDPMScheduler(variance_type="learned_range"))
    learned.set_timesteps(5)
    with pytest.raises(ValueError, match="reads a learned variance, and model_output has 4"):
        learned.step(NOISE, learned.timesteps[0], NOISE)


def test_timesteps_to_noise_to_are_those_of_training():
    ours = scheduler_of(diffusers.DDIMScheduler())
    for t in (-1, 1000):
        with pytest.raises(ValueError, match=r"timesteps=\[-?\d+\]: they go from 0 to 999"):
            ours.add_noise(NOISE, NOISE, torch.tensor([t]))
    assert np.isfinite(ours.add_noise(NOISE, NOISE, torch.tensor([0, 999])).numpy()).all()
    assert ours.add_noise(NOISE, NOISE, torch.tensor(3)).shape == SHAPE


def test_a_field_that_is_written_over_is_of_the_next_run():
    """Pipelines write into the configuration of a scheduler that has run."""
    made = engine().from_config(diffusers.FlowMatchEulerDiscreteScheduler(shift=1.0).config)
    made.set_timesteps(4)
    made.register_to_config(shift=3.0)
    made.set_timesteps(4)
    theirs = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    theirs.set_timesteps(4)
    assert torch.allclose(made.timesteps, theirs.timesteps)
