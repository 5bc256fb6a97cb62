"""diffusers' pipelines with the engine's loop, against their own."""

import threading

import pytest
import torch
from optional import needs

from diffusion_engine import _cpu
from diffusion_engine.adapters.diffusers import EngineScheduler
from diffusion_engine.adapters.diffusers.pipelines import accelerate_pipeline, run
from diffusion_engine.backends import machine

needs("diffusers")
needs("transformers")
small = needs("benchmarks.runs.networks.pipelines")
scheduler, stable = small.scheduler, small.stable
BOTH, IMAGE, MASK, PIXELS = small.BOTH, small.IMAGE, small.MASK, small.PIXELS
POOLED, SIZE, TEXT = small.POOLED, small.SIZE, small.TEXT
WITHIN = 5e-5  # of the largest element, float32

SCHEDULERS = {
    "EulerDiscreteScheduler": {},
    "EulerAncestralDiscreteScheduler": {},
    "HeunDiscreteScheduler": {},
    "LMSDiscreteScheduler": {},
    "KDPM2DiscreteScheduler": {},
    "DDPMScheduler": {"clip_sample": False},
    "PNDMScheduler": {"skip_prk_steps": True},
    "DPMSolverMultistepScheduler": {},
    "UniPCMultistepScheduler": {},
    "DEISMultistepScheduler": {},
}


def noised(name, **more):
    return stable(noise=scheduler(name, **small.SCHEDULE, **more))


CASES = {
    **{
        name: (lambda name=name, more=more: noised(name, **more), BOTH | SIZE)
        for name, more in SCHEDULERS.items()
    },
    "Stable Diffusion": (stable, BOTH | SIZE),
    "its guidance of 1": (stable, TEXT | SIZE | {"guidance_scale": 1.0}),
    "DDIM's eta": (stable, BOTH | SIZE | {"eta": 0.7}),
    "SDE-DPM++": (
        lambda: noised("DPMSolverMultistepScheduler", algorithm_type="sde-dpmsolver++"), BOTH | SIZE
    ),
    "image to image": (
        lambda: stable("StableDiffusionImg2ImgPipeline"), BOTH | IMAGE | {"strength": 0.7}
    ),
    "image to image, Heun": (
        lambda: stable("StableDiffusionImg2ImgPipeline", scheduler("HeunDiscreteScheduler", steps_offset=1)),
        BOTH | IMAGE | {"strength": 0.5},
    ),
    "inpainting": (
        lambda: stable("StableDiffusionInpaintPipeline"), BOTH | SIZE | IMAGE | MASK | {"strength": 1.0}
    ),
    "inpainting, a part": (
        lambda: stable("StableDiffusionInpaintPipeline"), BOTH | SIZE | IMAGE | MASK | {"strength": 0.6}
    ),
    "inpainting, by channels": (
        lambda: stable("StableDiffusionInpaintPipeline", in_channels=9, out_channels=4),
        BOTH | SIZE | IMAGE | MASK | {"strength": 1.0},
    ),
    "SDXL": (small.sdxl, BOTH | POOLED | SIZE),
    "SD3": (small.sd3, BOTH | POOLED | SIZE),
    "Flux": (small.flux, TEXT | SIZE | {"pooled_prompt_embeds": POOLED["pooled_prompt_embeds"]}),
    "SDXL, its first part": (small.sdxl, BOTH | POOLED | SIZE | {"denoising_end": 0.6}),
    "LCM": (small.consistency, TEXT | SIZE | {"num_inference_steps": 4}),
    "DiT": (small.dit, PIXELS | {"class_labels": [1, 2]}),
    "DiT, guidance of 1": (small.dit, PIXELS | {"class_labels": [1, 2], "guidance_scale": 1.0}),
    "DDPM": (
        lambda: small.unconditional("DDPMPipeline", scheduler("DDPMScheduler")), PIXELS | {"batch_size": 2}
    ),
    "DDPM, learned": (
        lambda: small.unconditional(
            "DDPMPipeline", scheduler("DDPMScheduler", variance_type="learned_range"), out_channels=6
        ),
        PIXELS | {"batch_size": 2},
    ),
    "DDIM": (
        lambda: small.unconditional("DDIMPipeline", scheduler("DDIMScheduler")), PIXELS | {"batch_size": 2}
    ),
    "DDIM, clipped": (
        lambda: small.unconditional("DDIMPipeline", scheduler("DDIMScheduler")),
        PIXELS | {"batch_size": 2, "use_clipped_model_output": True, "eta": 0.5},
    ),
}  # fmt: skip


def called(pipe, given, **more):
    return torch.as_tensor(pipe(**given, **more, generator=small.generator()).images)


def close(a, b, within=WITHIN):
    return a.shape == b.shape and float((a - b).abs().max() / b.abs().max()) <= within


@pytest.mark.parametrize("name", CASES)
def test_images_are_those_of_the_pipeline(name):
    make, given = CASES[name]
    pipe = make()
    assert close(called(accelerate_pipeline(pipe), given), called(pipe, given))


def test_run_takes_the_arguments_of_the_pipeline():
    pipe = stable()
    given = BOTH | SIZE
    own = called(pipe, given)
    made = run(pipe, **given, generator=small.generator(), return_dict=False)[0]
    assert close(made, own)
    named = run(pipe, **given, generator=small.generator(), solver="dpmpp_2m").images
    assert not close(named, own, 1e-3)
    assert close(run(pipe, **given, generator=small.generator(), solver="ddim").images, own)


def test_generators_one_a_sample_and_none():
    pipe, given = stable(noise=scheduler("DDPMScheduler", clip_sample=False)), BOTH | SIZE
    each = [pipe, accelerate_pipeline(pipe)]
    made = [p(**given, generator=[small.generator(1), small.generator(2)]).images for p in each]
    assert close(*made[::-1])
    seeded = []
    for p in each:
        torch.manual_seed(3)
        seeded.append(p(**given).images)
    assert close(*seeded[::-1])


def test_the_pipeline_is_left_as_it_was():
    pipe = stable("StableDiffusionInpaintPipeline")
    before, state = dict(vars(pipe)), dict(vars(pipe.scheduler))
    fast = accelerate_pipeline(pipe, tile=4)
    fast(**BOTH, **SIZE, **IMAGE, **MASK, strength=1.0, generator=small.generator())
    assert {n: v for n, v in vars(pipe).items() if not n.startswith("_") or n in before} == before
    assert (fast.num_timesteps, pipe.guidance_scale, pipe.interrupt) == (6, 5.0, False)
    assert all(vars(pipe.scheduler)[name] is value for name, value in state.items())


def test_a_recorded_network():
    pipe, given = stable(), BOTH | SIZE
    fast = accelerate_pipeline(pipe, executor="native")
    assert close(called(fast, given), called(pipe, given))
    more = given | {"num_inference_steps": 9}
    assert close(called(fast, more), called(pipe, more))


PIPES = {
    "Stable Diffusion": (stable, BOTH | SIZE),
    "Flux": (small.flux, TEXT | SIZE | {"pooled_prompt_embeds": POOLED["pooled_prompt_embeds"]}),
}


@pytest.mark.parametrize("name", [pytest.param("Stable Diffusion", marks=pytest.mark.slow), "Flux"])
def test_a_pipeline_in_bfloat16(name, monkeypatch):
    """Its network is what it was asked to be, as a sampler's is; its latents stay what they are."""
    make, given = PIPES[name]
    pipe, half = make(), torch.bfloat16
    own = called(pipe, given)
    pipe.to(half)
    given = {n: v.to(half) if isinstance(v, torch.Tensor) else v for n, v in given.items()}
    monkeypatch.setattr(machine, "bf16", lambda: machine.Bf16("amx", 1.0, "it has AMX"))
    _cpu.set_bf16("emulated")
    for dtype, kinds in {
        torch.float32: (None, torch.float32),
        None: (half, half),
        "auto": (half, half),
    }.items():
        fast = accelerate_pipeline(pipe, executor="native", dtype=dtype)
        made = called(fast, given)
        (sampler,) = [sampler for _, sampler in fast._samplers]
        assert (fast.executor.precision, sampler.dtype) == kinds
        assert made.dtype == half and close(made.float(), own, 0.05)


def test_what_a_network_is_computed_in_is_settled_at_each_call(monkeypatch):
    pipe, given = stable(), BOTH | SIZE
    monkeypatch.setattr(machine, "bf16", lambda: machine.Bf16("", 5.0, "it has neither"))
    with pytest.raises(ValueError, match=r"executor='native' in torch.bfloat16: it has neither"):
        accelerate_pipeline(pipe, executor="native", dtype=torch.bfloat16)
    fast = accelerate_pipeline(pipe, executor="native", dtype="auto")
    first, own = fast.executor, called(pipe, given)
    assert fast.executor is first and first.precision is None and close(called(fast, given), own)
    monkeypatch.setattr(machine, "bf16", lambda: machine.Bf16("amx", 1.0, "it has AMX"))
    plain = accelerate_pipeline(pipe, executor="native")
    pipe.unet.to(torch.bfloat16)
    assert plain.executor.precision == torch.bfloat16
    pipe.unet.to(torch.float32)
    assert plain.executor.precision is None


def test_fused_ops_and_tiles():
    pipe, given = stable(), BOTH | SIZE | {"output_type": "np"}
    own = called(pipe, given)
    assert close(called(accelerate_pipeline(pipe, accelerate=True), given), own, 1e-4)
    tiled = called(accelerate_pipeline(pipe, tile=6), given)
    assert tiled.shape == own.shape and close(tiled, own, 0.5)  # group norms see a tile


class Seen:
    def __init__(self, answer=lambda given: given):
        self.steps, self.answer = [], answer

    def __call__(self, pipe, i, t, given):
        self.steps.append((i, float(t), given["latents"].clone()))
        return self.answer(given)


@pytest.mark.parametrize("name", ["DDIMScheduler", "EulerDiscreteScheduler"])
def test_callbacks_see_what_those_of_the_pipeline_see(name):
    pipe = stable(noise=scheduler(name, **small.SCHEDULE))
    theirs, ours = Seen(), Seen()
    called(pipe, BOTH | SIZE, callback_on_step_end=theirs)
    called(accelerate_pipeline(pipe), BOTH | SIZE, callback_on_step_end=ours)
    assert [step[:2] for step in ours.steps] == [step[:2] for step in theirs.steps]
    assert all(close(a[2], b[2]) for a, b in zip(ours.steps, theirs.steps, strict=True))


def test_callbacks_are_given_what_they_name():
    seen = []

    def callback(pipe, i, t, given):
        seen.append({name: tensor.clone() for name, tensor in given.items()})
        return given

    pipe, named = stable(), ["latents", "prompt_embeds"]
    given = BOTH | SIZE | {"callback_on_step_end_tensor_inputs": named}
    for each in (pipe, accelerate_pipeline(pipe)):
        called(each, given, callback_on_step_end=callback)
    theirs, ours = seen[: len(seen) // 2], seen[len(seen) // 2 :]
    for a, b in zip(ours, theirs, strict=True):
        assert list(a) == list(b) and torch.equal(a["prompt_embeds"], b["prompt_embeds"])


INPAINT = BOTH | SIZE | IMAGE | MASK | {"strength": 1.0}
STOPPED = {
    "Stable Diffusion": (stable, BOTH | SIZE),
    "inpainting": (lambda: stable("StableDiffusionInpaintPipeline"), INPAINT),
}


@pytest.mark.parametrize("name", STOPPED)
def test_a_callback_may_stop_the_run(name):
    make, given = STOPPED[name]
    pipe = make()

    def stop(pipe, i, t, given):
        pipe._interrupt = i == 2
        return given

    own = called(pipe, given, callback_on_step_end=stop)
    assert close(called(accelerate_pipeline(pipe), given, callback_on_step_end=stop), own)


def test_a_callback_may_rewrite_the_last_latents():
    pipe = stable()

    def rewrite(pipe, i, t, given):
        return {"latents": given["latents"] / (2.0 if i == pipe.num_timesteps - 1 else 1.0)}

    def keep(pipe, i, t, given):
        return rewrite(pipe, i, t, given) if i == pipe.num_timesteps - 1 else given

    given = BOTH | SIZE | {"callback_on_step_end": keep}
    assert close(called(accelerate_pipeline(pipe), given), called(pipe, given))
    with pytest.raises(ValueError, match="callback_on_step_end returned other latents"):
        called(accelerate_pipeline(pipe), given | {"callback_on_step_end": rewrite})


def written(pipe, i, t, given):
    given["latents"].mul_(2.0)
    return given


def guided(pipe, i, t, given):
    pipe._guidance_scale += 1.0
    return given


REWRITES = [
    (written, "returned other latents"),
    (guided, "returned other guidance_scale"),
    (lambda *_: None, "returned NoneType"),
]


@pytest.mark.parametrize("callback, said", REWRITES, ids=["written", "guided", "none"])
def test_what_a_callback_changes_is_never_passed_over(callback, said):
    with pytest.raises(ValueError, match=said):
        called(accelerate_pipeline(stable()), BOTH | SIZE, callback_on_step_end=callback)


ENGINE = [{}, {"solver": "dpmpp_2m"}, {"solver": "dpmpp_2m_sde", "seeds": [3, 4]}]


@pytest.mark.parametrize("how", ENGINE, ids=str)
@pytest.mark.parametrize("name", ["DDIMScheduler", "EulerDiscreteScheduler"])
def test_an_engine_scheduler(name, how):
    pipe = noised(name)
    pipe.scheduler = EngineScheduler.from_config(pipe.scheduler, **how)
    given = BOTH | SIZE
    assert close(called(accelerate_pipeline(pipe), given), called(pipe, given))


def test_a_last_level_that_is_not_clean():
    pipe = noised("EulerDiscreteScheduler", final_sigmas_type="sigma_min")
    assert close(called(accelerate_pipeline(pipe), BOTH | SIZE), called(pipe, BOTH | SIZE))


@pytest.mark.parametrize("strength", [0.4, 0.96])
def test_image_to_image_of_plms(strength):
    pipe = stable("StableDiffusionImg2ImgPipeline", scheduler("PNDMScheduler", skip_prk_steps=True))
    given = BOTH | IMAGE | {"strength": strength, "num_inference_steps": 20}
    theirs, ours = (called(p, given) for p in (pipe, accelerate_pipeline(pipe)))
    pipe.scheduler = EngineScheduler.from_config(pipe.scheduler)
    own = called(pipe, given)
    if strength < 0.9:
        assert close(ours, theirs) and close(own, theirs)
    else:  # diffusers takes the second of two equal timesteps for the first step's second call
        assert close(own, ours)


def test_a_configuration_that_a_pipeline_wrote_over():
    """Stable Diffusion sets steps_offset of a scheduler that says nothing of it."""
    pipe = stable(noise=scheduler("DDIMScheduler", clip_sample=False))
    made = EngineScheduler.from_config(pipe.scheduler)
    assert made.config.steps_offset == pipe.scheduler.config.steps_offset == 1


def test_a_part_within_a_step_is_refused():
    pipe = small.sdxl()
    pipe.scheduler = scheduler("HeunDiscreteScheduler", **small.SCHEDULE)
    given = BOTH | POOLED | SIZE | {"denoising_end": 0.5}
    with pytest.raises(ValueError, match=r"denoising_end=0\.5 ends within a step of Heun"):
        called(accelerate_pipeline(pipe), given)


REFUSED = [
    ({"guidance_rescale": 0.7}, "guidance_rescale=0.7 acts between"),
    ({"callback": Seen()}, "callback=Seen acts between"),
]  # fmt: skip


@pytest.mark.parametrize("given, said", REFUSED, ids=[next(iter(g)) for g, _ in REFUSED])
def test_what_acts_between_the_calls_is_refused(given, said):
    with pytest.raises(ValueError, match=said):
        accelerate_pipeline(stable())(**BOTH, **SIZE, **given)


def test_other_pipelines_are_refused():
    with pytest.raises(ValueError, match="pipe=Other is no pipeline"):
        accelerate_pipeline(type("Other", (), {})())
    with pytest.raises(ValueError, match="eta= is an option of a solver"):
        accelerate_pipeline(stable(), eta=1.0)
    negative = {"true_cfg_scale": 4.0, "negative_prompt_embeds": BOTH["negative_prompt_embeds"]}
    with pytest.raises(ValueError, match="calls the network twice a step"):
        accelerate_pipeline(small.flux())(**TEXT, **SIZE, **negative)


def test_a_control_network_is_refused():
    diffusers = needs("diffusers")
    pipe = stable()
    control = diffusers.ControlNetModel.from_unet(pipe.unet)
    other = small.quiet("StableDiffusionControlNetPipeline", controlnet=control, **pipe.components)
    with pytest.raises(ValueError, match="StableDiffusionControlNetPipeline is no pipeline"):
        accelerate_pipeline(other)


def test_from_two_threads_at_once():
    pipe = stable()
    fast, made = accelerate_pipeline(pipe), {}

    def work(steps):
        made[steps] = called(fast, BOTH | SIZE | {"num_inference_steps": steps})

    threads = [threading.Thread(target=work, args=(steps,)) for steps in (3, 5, 8)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    for steps, images in made.items():
        assert close(images, called(pipe, BOTH | SIZE | {"num_inference_steps": steps}))


@pytest.mark.parametrize(
    "how",
    [{}, pytest.param({"executor": "native"}, marks=pytest.mark.slow), {"accelerate": True}],
    ids=str,
)
def test_adapters_of_peft_between_requests(how):
    peft = needs("peft")
    pipe = stable()
    fast, given = accelerate_pipeline(pipe, **how), BOTH | SIZE | {"num_inference_steps": 3}
    seen = [called(fast, given)]

    def same():
        made = called(fast, given)
        assert close(made, called(pipe, given), 1e-4)
        assert not any(close(made, other, 1e-4) for other in seen)
        seen.append(made)

    for i, name in enumerate(("first", "second")):
        pipe.unet.add_adapter(
            peft.LoraConfig(
                r=2, lora_alpha=8, target_modules=["to_q", "to_v"], init_lora_weights=False
            ),
            name,
        )
        with torch.no_grad():
            for key, weight in pipe.unet.named_parameters():
                if name in key:
                    weight.copy_(0.1 * small.drawn(*weight.shape, seed=10 + i))
        pipe.unet.set_adapters([name])
        same()
    pipe.unet.set_adapters(["first", "second"], [0.5, 0.25])
    same()
    pipe.unet.disable_adapters()
    assert close(called(fast, given), seen[0], 1e-4)
    pipe.unet.enable_adapters()
    pipe.unet.set_adapters(["first"], [0.125])
    pipe.unet.fuse_lora()
    same()
    pipe.unet.unfuse_lora()
    pipe.unet.set_adapters(["second"], [1.0])
    assert close(called(fast, given), called(pipe, given), 1e-4)
