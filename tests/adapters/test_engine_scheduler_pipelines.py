"""EngineScheduler as the scheduler of diffusers' pipelines: their images, and what users do with it."""

import threading

import pytest
import torch
from optional import needs

from diffusion_engine.adapters.diffusers import EngineScheduler

diffusers = needs("diffusers")
needs("transformers")
small = needs("benchmarks.runs.networks.pipelines")
scheduler, stable = small.scheduler, small.stable
BOTH, IMAGE, MASK, POOLED, SIZE = small.BOTH, small.IMAGE, small.MASK, small.POOLED, small.SIZE
WITHIN = 5e-5  # of the largest element, float32
IMG2IMG, INPAINT = "StableDiffusionImg2ImgPipeline", "StableDiffusionInpaintPipeline"
TABLES = {
    "PNDMScheduler": {"skip_prk_steps": True},  # of Stable Diffusion 1
    "EulerDiscreteScheduler": {"timestep_spacing": "leading"},
    "EulerAncestralDiscreteScheduler": {},
    "HeunDiscreteScheduler": {},
    "DPMSolverMultistepScheduler": {"use_karras_sigmas": True},
    "UniPCMultistepScheduler": {},
}


def noise(name):
    return scheduler(name, **small.SCHEDULE, **TABLES[name])


CASES = {
    **{name: (lambda name=name: stable(noise=noise(name)), BOTH | SIZE) for name in TABLES},
    **{
        f"image to image, {name}": (
            lambda name=name: stable(IMG2IMG, noise(name)), BOTH | IMAGE | {"strength": 0.6}
        )
        for name in TABLES
    },
    "Stable Diffusion": (stable, BOTH | SIZE | {"eta": 0.5}),
    "inpainting": (lambda: stable(INPAINT), BOTH | SIZE | IMAGE | MASK | {"strength": 0.6}),
    "SDXL": (small.sdxl, BOTH | POOLED | SIZE | {"guidance_rescale": 0.6}),
    "SDXL, sigmas": (small.sdxl, BOTH | POOLED | SIZE | {"sigmas": [14.0, 7.0, 2.0, 0.5, 0.0]}),
    "SDXL, timesteps": (small.sdxl, BOTH | POOLED | SIZE | {"timesteps": [901, 500, 200, 1]}),
    "SD3": (small.sd3, BOTH | POOLED | SIZE),
    "Flux": (small.flux, small.TEXT | SIZE | {"pooled_prompt_embeds": POOLED["pooled_prompt_embeds"]}),
    "DiT": (small.dit, small.PIXELS | {"class_labels": [1, 2]}),
    "DDPM": (lambda: small.unconditional("DDPMPipeline", scheduler("DDPMScheduler")), small.PIXELS),
}  # fmt: skip


def called(pipe, given, generator=None):
    return torch.as_tensor(pipe(**given, generator=generator or small.generator()).images)


def close(a, b):
    return float((a - b).abs().max() / b.abs().max()) <= WITHIN


def swapped(pipe, **own):
    pipe.scheduler = EngineScheduler.from_config(pipe.scheduler, **own)
    return pipe


@pytest.mark.parametrize("name", CASES)
def test_images_are_those_of_the_pipelines_own_scheduler(name):
    make, given = CASES[name]
    pipe = make()
    own = called(pipe, given)
    assert close(called(swapped(pipe), given), own)


def test_a_base_and_a_refiner_hand_over_their_latents():
    base = small.sdxl()
    refiner = diffusers.StableDiffusionXLImg2ImgPipeline(**base.components, add_watermarker=False)
    refiner.set_progress_bar_config(disable=True)

    def both():
        latents = called(base, BOTH | POOLED | SIZE | {"denoising_end": 0.6})
        return called(refiner, BOTH | POOLED | {"denoising_start": 0.6, "image": latents})

    own = both()
    refiner.scheduler = swapped(base).scheduler
    assert close(both(), own)


def test_generators_one_for_each_image():
    pipe = stable(noise=noise("EulerAncestralDiscreteScheduler"))
    each = lambda: [small.generator(5), small.generator(6)]  # noqa: E731
    own = called(pipe, BOTH | SIZE, each())
    assert close(called(swapped(pipe), BOTH | SIZE, each()), own)


def test_threads_share_a_pipeline():
    pipe, made = swapped(stable(), solver="dpmpp_2m"), {}
    given = {n: BOTH | SIZE | {"num_inference_steps": n} for n in (3, 5, 8)}

    def work(n):
        made[n] = called(pipe, given[n])

    threads = [threading.Thread(target=work, args=(n,)) for n in given]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert all(torch.equal(made[n], called(pipe, given[n])) for n in given)


def test_a_pipeline_is_saved_and_loaded_with_it(tmp_path):
    pipe = swapped(stable(), solver="dpmpp_2m", options={"variant": "heun"})
    own = called(pipe, BOTH | SIZE)
    pipe.save_pretrained(tmp_path)
    none = ("text_encoder", "tokenizer", "safety_checker", "feature_extractor", "image_encoder")
    again = diffusers.DiffusionPipeline.from_pretrained(tmp_path, **dict.fromkeys(none))
    again.set_progress_bar_config(disable=True)
    assert again.scheduler.config.solver == "dpmpp_2m"
    assert torch.equal(called(again, BOTH | SIZE), own)
