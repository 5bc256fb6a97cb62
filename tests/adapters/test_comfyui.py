"""ComfyUI's sampler interface against a stub of it, and the noise of its seeds against torch's own calls."""

import json
import runpy
from pathlib import Path

import comfy_stub
import pytest
import torch
from cfg_pp_cases import CASES, LEVELS, estimate, noise
from cfg_pp_cases import start as noised
from k_diffusion_cases import DOWN, denoiser, start
from pages.blocks import Page

from diffusion_engine.adapters import k_diffusion
from diffusion_engine.adapters.comfyui import (
    FUNCTIONS,
    ImageNoise,
    Nvidia,
    prepare_noise,
    sampler_function,
    step_noise,
)

ROOT = Path(__file__).parents[2]
SIGMAS = torch.tensor(DOWN)
GOLDEN = json.loads((ROOT / "tests" / "golden" / "cfg_pp.json").read_text())
# What torch.manual_seed(0); torch.randn(3, 4, device="cuda") prints.
ON_A_GPU = (
    (-0.9247, -0.4253, -2.6438, 0.1452),
    (-0.1209, -0.5797, -0.6229, -0.3284),
    (-1.0745, -0.3631, -1.6711, 2.2655),
)


def run(name, x=None, seed=None, **options):
    extra = {} if seed is None else {"seed": seed}

    def model(x, sigma, **given):
        options = given.pop("model_options", {})
        assert given == extra  # ComfyUI's model is given it as well
        return guided(x, sigma, model_options=options)

    x = start(SIGMAS[0]) if x is None else x
    return sampler_function(name, **options)(model, x, SIGMAS, extra, None, True)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_name_runs(name):
    made = run(name, seed=3)
    assert made.isfinite().all() and torch.equal(made, run(name, seed=3))


@pytest.mark.parametrize("name", k_diffusion.SAMPLERS)
def test_it_is_the_function(name):
    own = getattr(k_diffusion, f"sample_{name}")
    torch.manual_seed(1)
    ours = run(name)
    torch.manual_seed(1)
    assert torch.equal(ours, own(denoiser, start(SIGMAS[0]), SIGMAS, disable=True))


def test_dpm_fast_goes_between_the_ends_above_0():
    x = start(SIGMAS[0])
    low, high = float(SIGMAS[-2]), float(SIGMAS[0])
    wanted = k_diffusion.sample_dpm_fast(denoiser, x, low, high, 7, disable=True)
    assert torch.equal(run("dpm_fast"), wanted)
    alone = sampler_function("dpm_fast")(denoiser, x, SIGMAS[:1], {}, None, True)
    assert alone is x


def test_the_noise_of_ancestral_steps_is_that_of_the_seed():
    x = start(SIGMAS[0])
    wanted = k_diffusion.sample_euler_ancestral(
        denoiser, x, SIGMAS, noise_sampler=step_noise(x, 5), disable=True
    )
    assert torch.equal(run("euler_ancestral", seed=5), wanted)
    noise = step_noise(x, 5)
    torch.manual_seed(6)
    for _ in range(2):
        assert torch.equal(noise(1.0, 0.5), torch.randn(x.shape))


def test_an_sde_solver_follows_the_path_of_the_seed():
    x = start(SIGMAS[0])
    path = k_diffusion.BrownianTreeNoiseSampler(x, seed=5)
    wanted = k_diffusion.sample_dpmpp_2m_sde(denoiser, x, SIGMAS, noise_sampler=path, disable=True)
    assert torch.equal(run("dpmpp_2m_sde", seed=5), wanted)
    assert torch.equal(run("dpmpp_2m_sde_gpu", seed=5), wanted)
    given = run("dpmpp_2m_sde", seed=5, noise_sampler=lambda s, t: torch.zeros(3, 2, 3))
    assert not torch.equal(given, wanted)


@pytest.mark.parametrize("noise_inds", [None, [0, 1, 2], [2, 0, 2], [4, 4, 1]])
def test_prepare_noise(noise_inds):
    latent = torch.zeros(3, 4, 5, 2, dtype=torch.float16)
    before = torch.get_rng_state()
    made = prepare_noise(latent, 2**63 + 7, noise_inds)
    assert torch.equal(torch.get_rng_state(), before) and made.dtype == torch.float32
    torch.manual_seed(2**63 + 7)
    if noise_inds is None:
        assert torch.equal(made, torch.randn(3, 4, 5, 2))
        return
    drawn = [torch.randn(1, 4, 5, 2) for _ in range(5)]
    assert torch.equal(made, torch.cat([drawn[i] for i in noise_inds]))


@pytest.mark.parametrize("ensd", [0, 31337])
def test_the_noise_of_images(ensd):
    noise = ImageNoise((4, 3, 2), seeds=11, n=2, ensd=ensd)
    ours = [noise.first(), noise(1.0, 0.5), noise(0.5, 0.1)]
    for i in range(2):
        torch.manual_seed(11 + i)
        first = torch.randn(4, 3, 2)
        if ensd:
            torch.manual_seed(11 + i + ensd)
        wanted = [first, torch.randn(4, 3, 2), torch.randn(4, 3, 2)]
        assert all(torch.equal(made[i], w) for made, w in zip(ours, wanted, strict=True))
    alone = ImageNoise((4, 3, 2), seeds=[12], ensd=ensd)
    assert torch.equal(alone(1.0, 0.5)[0], ours[1][1])  # the first noise was drawn before
    again = noise.first()
    assert torch.equal(again, ours[0])


def test_the_noise_of_an_nvidia_gpu():
    made = Nvidia(0).randn((3, 4))
    assert torch.allclose(made, torch.tensor(ON_A_GPU), rtol=0, atol=6e-5)
    noise = ImageNoise((3, 4), seeds=[0, 2**40 + 1], source="nv")
    assert torch.equal(noise.first()[0], made)
    long = Nvidia(9).randn((100_000,)).double()
    assert abs(float(long.mean())) < 0.02 and abs(float(long.std()) - 1.0) < 0.01
    own = Nvidia(9)
    assert not torch.equal(own.randn((5,)), own.randn((5,)))
    assert not torch.equal(Nvidia(1).randn((5,)), Nvidia(2**32 + 1).randn((5,)))


@pytest.mark.gpu
@pytest.mark.parametrize("seed", [0, 7, 2**40 + 3])
def test_the_noise_is_that_of_this_gpu(seed):
    generator = torch.Generator("cuda").manual_seed(seed)
    own = Nvidia(seed)
    for _ in range(3):
        theirs = torch.randn(4, 64, 64, generator=generator, device="cuda").cpu()
        assert torch.allclose(own.randn((4, 64, 64)), theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "call, said",
    [
        (lambda: sampler_function("eular"), "name='eular': choose euler, "),
        (lambda: sampler_function("euler", etta=1.0), "euler takes no etta; it takes s_churn"),
        (lambda: sampler_function("dpmpp_2m_sde", et=1.0), "did you mean eta?"),
        (lambda: run("euler", model=3), "euler takes no model"),
        (lambda: prepare_noise(torch.zeros(1), -1), "seed=-1: a seed is a whole number"),
        (lambda: prepare_noise(torch.zeros(1), 2**64), r"below 2\^64"),
        (lambda: prepare_noise(torch.zeros(2, 1), 1, [0]), "1 entries for 2 latents"),
        (lambda: prepare_noise(torch.zeros(1, 1), 1, [-1]), "an index is a whole number"),
        (lambda: ImageNoise((1,), 0, source="mps"), "source='mps': choose cpu, gpu, nv"),
        (lambda: ImageNoise((0,), 0), "one sample's shape"),
        (lambda: ImageNoise((1,), 0, n=0), "n=0: 1 image or more"),
        (lambda: ImageNoise((1,), 0, ensd=-1), "ensd=-1"),
    ],
)
def test_what_is_refused(call, said):
    with pytest.raises(ValueError, match=said):
        call()


def test_an_unknown_option_of_a_call():
    with pytest.raises(ValueError, match="euler takes no eta"):
        sampler_function("euler")(denoiser, start(1.0), SIGMAS, eta=1.0)


def guided(x, sigma, seed=None, model_options=None):
    """As ComfyUI's guiders do."""
    made = denoiser(x, sigma)
    for post in (model_options or {}).get("sampler_post_cfg_function", ()):
        made = post({"denoised": made, "uncond_denoised": 0.9 * made})
    return made


def test_the_node_of_the_page(monkeypatch, tmp_path):
    page = Page.at(ROOT / "docs" / "comfyui.md")
    code = next(block.code for block in page.blocks if block.marker == "comfyui node")
    assert code.count("\n") <= 45
    comfy_stub.install(monkeypatch)
    (tmp_path / "node.py").write_text(code)
    node = runpy.run_path(str(tmp_path / "node.py"))["NODE_CLASS_MAPPINGS"][
        "DiffusionEngineSampler"
    ]
    asked = node.INPUT_TYPES()["required"]
    names, types = asked["sampler_name"][0], [kind[0] for kind in asked.values()]
    assert "dpmpp_2m" in names and types[1:3] == ["FLOAT", "FLOAT"]
    assert node.RETURN_TYPES == ("SAMPLER",)
    for name in names:
        (held,) = getattr(node(), node.FUNCTION)(name, 0.5, 0.9, "heun")
        told = []
        noise = prepare_noise(torch.zeros(3, 2, 3), 4)
        made = held.sample(
            guided, SIGMAS, {"seed": 4},
            lambda i, denoised, x, total, told=told: told.append((i, total)), noise,
            torch.zeros(3, 2, 3),
        )  # fmt: skip
        assert made.isfinite().all() and told[-1][1] == len(SIGMAS) - 1
        if name == "dpmpp_2m_sde":
            how = {"eta": 0.5, "s_noise": 0.9, "solver_type": "heun"}
            x = noise * SIGMAS[0]
            assert torch.equal(made, run(name, x=x, seed=4, **how))


@pytest.mark.parametrize("name", [name for name in CASES if "flow" not in name and name != "ddim"])
def test_cfg_pp_is_comfyuis(name):
    """Its own ends, through the form that a guider of its has; the model makes both branches at once."""
    function, kind, options, _, _, scale = CASES[name]
    calls, drawn = [], iter(range(99))

    def model(x, sigma, model_options, **given):
        assert model_options["disable_cfg1_optimization"] and model_options["theirs"] == 1
        calls.append(len(x))
        ones, sigma = torch.ones_like(sigma).view(-1, 1), sigma.view(-1, 1)
        with_it, without = (estimate(x, ones, sigma, k) for k in range(2))
        made = without + scale * (with_it - without)
        for post in model_options["sampler_post_cfg_function"]:
            made = post({"denoised": made, "uncond_denoised": without})
        return made

    if "ancestral" in function:
        options = options | {"noise_sampler": lambda *_: noise(next(drawn))}
    run = sampler_function(function.removeprefix("sample_"), **options)
    levels = torch.tensor(LEVELS[kind], dtype=torch.float64)
    made = run(model, noised(kind), levels, {"model_options": {"theirs": 1}}, None, True)
    wanted = torch.tensor(GOLDEN[name], dtype=torch.float64)
    assert (made - wanted).abs().max() < (
        1e-6 if "ancestral" in function else 1e-9
    )  # float32 noise
    assert calls == [2] * (11 if "2s" in function else 6)


def test_cfg_pp_needs_the_unconditional_estimate():
    with pytest.raises(ValueError, match="CFG\\+\\+ needs that estimate apart"):
        sampler_function("euler_cfg_pp")(
            lambda x, sigma, **_: denoiser(x, sigma), start(SIGMAS[0]), SIGMAS, None, None, True
        )
