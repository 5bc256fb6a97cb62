"""How k-diffusion's functions call and are called: models, noise, dtypes, threads, and what they refuse."""

import threading
from functools import partial

import pytest
import torch
from dispatched import Operations
from k_diffusion_cases import DOWN, MAKERS, TWICE, Inner, denoiser, start
from test_k_diffusion import GOLDEN

from diffusion_engine import Sampler
from diffusion_engine.adapters import k_diffusion
from diffusion_engine.adapters.k_diffusion import SAMPLERS, tables
from diffusion_engine.processes import EDM, Discrete

SIGMAS = torch.tensor(DOWN)
SDE = ("dpmpp_sde", "dpmpp_2m_sde", "dpmpp_3m_sde")
ANCESTRAL = ("euler_ancestral", "dpm_2_ancestral", "dpmpp_2s_ancestral")


def run(name, model=denoiser, x=None, sigmas=SIGMAS, **how):
    x = start(SIGMAS[0]) if x is None else x
    return SAMPLERS[name](model, x, sigmas, disable=True, **how)


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_level_twice(name):
    """A step of several predictions has no slope there, and is left out."""
    torch.manual_seed(0)
    twice = run(name, sigmas=torch.tensor(TWICE), **({"eta": 0.0} if "sde" in name else {}))
    assert twice.isfinite().all()
    if name in ("lms", "dpmpp_2m"):
        told = []
        once = torch.tensor(sorted(set(TWICE), reverse=True))
        assert torch.equal(twice, run(name, sigmas=once))
        run(name, sigmas=torch.tensor(TWICE), callback=told.append)
        assert [info["i"] for info in told] == [0, 2, 3, 5, 6]


def test_no_step():
    x = start(1.0)
    for sigmas in ([], [2.0]):
        assert run("euler", x=x, sigmas=torch.tensor(sigmas)) is x
    assert run("dpmpp_2m", x=x, sigmas=torch.tensor([2.0, 2.0])) is x


@pytest.mark.parametrize("name", SDE)
def test_a_step_of_one(name):
    """k-diffusion's own raises there."""
    x = start(2.5)
    made = run(name, x=x, sigmas=torch.tensor([2.5, 0.0]))
    assert torch.allclose(made, denoiser(x, torch.full((3,), 2.5)), atol=1e-6)


@pytest.mark.parametrize("name", SAMPLERS)
def test_extra_args_and_a_model_that_takes_a_derivative(name):
    """Guidance within the model: autograd works there, as in k-diffusion's loop under no_grad."""

    def guided(x, sigma, scale):
        assert not torch.is_grad_enabled()
        with torch.enable_grad():
            assert x.grad is None  # of the call before
            x.requires_grad_()
            (-(x.square().sum() / 2.0)).backward()
            return denoiser(x, sigma) + scale * sigma.view(-1, 1, 1) ** 2 * x.grad

    def plain(x, sigma):
        return denoiser(x, sigma) - 0.01 * sigma.view(-1, 1, 1) ** 2 * x

    torch.manual_seed(3)
    with torch.inference_mode(name == "euler"):
        ours = run(name, guided, extra_args={"scale": 0.01})
    torch.manual_seed(3)
    assert torch.allclose(ours, run(name, plain), rtol=1e-5, atol=1e-6)
    assert not ours.requires_grad and not ours.is_inference()


def test_what_a_callback_keeps_stays():
    told = []
    x = start(SIGMAS[0])
    run("heun", x=x, callback=told.append)
    assert torch.equal(told[0]["x"], x)
    assert len({info["x"].data_ptr() for info in told}) == len(told)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", SAMPLERS)
def test_half_precision(name, dtype):
    """Model, noise and samples are x's dtype; the state between the calls is float32."""
    seen = set()

    def model(x, sigma):
        seen.update((x.dtype, sigma.dtype))
        return denoiser(x.float(), sigma.float()).to(dtype)

    torch.manual_seed(0)
    made = run(name, model, start(SIGMAS[0]).to(dtype))
    torch.manual_seed(0)
    assert made.dtype == dtype and seen == {dtype} and made.isfinite().all()
    if name not in (*SDE, *ANCESTRAL):
        assert torch.allclose(made.float(), run(name), rtol=0, atol=0.1)


@pytest.mark.parametrize("shape", [(5,), (2, 7), (2, 3, 4, 5, 6)], ids=str)
def test_states_of_any_rank(shape):
    """A sample may be a row of numbers, or a video."""
    x = torch.randn(2, *shape) * SIGMAS[0]
    torch.manual_seed(0)
    made = run("euler_ancestral", x=x)
    torch.manual_seed(0)
    flat = run("euler_ancestral", x=x.flatten(1))
    assert torch.equal(made.flatten(1), flat)
    assert run("dpmpp_sde", x=x).isfinite().all()


def test_channels_last():
    x = torch.randn(2, 4, 6, 5).to(memory_format=torch.channels_last)
    seen = []

    def model(x, sigma):
        seen.append(x.is_contiguous(memory_format=torch.channels_last))
        return denoiser(x, sigma)

    made = run("dpmpp_2m", model, x)
    assert all(seen) and torch.equal(made, run("dpmpp_2m", x=x.contiguous()))


@pytest.mark.parametrize("name", ["euler_ancestral", *SDE])
def test_a_seed_of_torch_decides(name):
    def made(seed):
        torch.manual_seed(seed)
        return run(name)

    assert torch.equal(made(1), made(1)) and not torch.equal(made(1), made(2))


@pytest.mark.parametrize("name", [*SDE, *ANCESTRAL])
def test_a_path_of_every_sample(name):
    """The sampler draws in the kernel; called by hand it gives the same normals."""
    x = start(SIGMAS[0])
    path = k_diffusion.BrownianTreeNoiseSampler(x, 0.03, 14.6, seed=[5, 9, 2**64 - 1])
    fused = run(name, x=x, noise_sampler=path)
    alone = k_diffusion.BrownianTreeNoiseSampler(x[1:2], 0.03, 14.6, seed=9)
    assert torch.equal(fused[1:2], run(name, x=x[1:2], noise_sampler=alone))
    by_hand = run(name, x=x, noise_sampler=lambda s, t: path(s, t))
    assert torch.allclose(fused, by_hand, rtol=0, atol=1e-5)


def test_increments_of_a_path_add_up():
    x = torch.zeros(2, 1, 64, 64)
    path = k_diffusion.BrownianTreeNoiseSampler(x, 0.1, 10.0, seed=3)
    v = [g**-2.0 for g in (4.0, 2.0, 1.0)]
    first, second, whole = path(4.0, 2.0), path(2.0, 1.0), path(4.0, 1.0)
    sum_of = (v[1] - v[0]) ** 0.5 * first + (v[2] - v[1]) ** 0.5 * second
    assert torch.allclose(
        sum_of / (v[2] - v[0]) ** 0.5, whole, atol=1e-3
    )  # ends of a grid of cells
    assert abs(float(whole.std()) - 1.0) < 0.03
    assert torch.equal(path(1.0, 4.0), -whole) and not path(1.0, 1.0).any()


def test_more_steps_lead_to_nearly_the_same_sample():
    def made(n):
        sigmas = k_diffusion.get_sigmas_karras(n, 0.03, 14.6)
        x = start(sigmas[0])
        path = k_diffusion.BrownianTreeNoiseSampler(x, 0.03, 14.6, seed=3)
        return run("dpmpp_2m_sde", x=x, sigmas=sigmas, noise_sampler=path)

    assert (made(100) - made(50)).abs().mean() < 0.05


@pytest.mark.parametrize("name", SAMPLERS)
def test_nothing_is_read_back(name):
    """No number leaves a tensor between the steps, and the noise is drawn by one operation a call."""
    run(name)
    x, drawn = start(SIGMAS[0]), []

    def sampler(sigma, sigma_next):
        drawn.append(1)
        return torch.randn(3, 2, 3)

    given = {"noise_sampler": sampler} if "sde" in name or "ancestral" in name else {}
    calls = []

    def model(x, sigma):
        calls.append(1)
        return x

    with Operations() as ran:
        run(name, model, x, **given)
    reads = {"_local_scalar_dense", "nonzero", "item", "is_nonzero", "equal"}
    assert not reads & set(ran.names)
    few = 4 * len(calls) + 12 * len(drawn) + 30
    assert len(ran.names) < few, (len(ran.names), few)


def test_threads_share_the_functions():
    names = [name for name in SAMPLERS if name not in (*SDE, *ANCESTRAL)]
    alone = {name: run(name) for name in names}
    wrong = []

    def work(name):
        for _ in range(20):
            if not torch.equal(run(name), alone[name]):
                wrong.append(name)

    threads = [threading.Thread(target=work, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_run_within_a_run():
    inner = partial(run, "heun", sigmas=torch.tensor([1.0, 0.3, 0.0]))
    alone = inner(x=start(1.0))

    def model(x, sigma):
        assert torch.equal(inner(x=start(1.0)), alone)
        return denoiser(x, sigma)

    assert torch.equal(run("dpmpp_2m", model), run("dpmpp_2m"))


def test_a_model_that_fails_leaves_nothing_behind():
    def model(x, sigma):
        raise KeyboardInterrupt

    before = run("dpmpp_2m")
    with pytest.raises(KeyboardInterrupt):
        run("dpmpp_2m", model)
    assert torch.equal(run("dpmpp_2m"), before)


def test_tables_are_kept_within_bounds(monkeypatch):
    kept = tables.Lru(20)
    monkeypatch.setattr(tables, "_tables", kept)
    run("euler")
    first = kept.get(next(iter(kept)))
    run("euler")
    assert kept.get(next(iter(kept))) is first and len(kept) == 1
    for scale in (0.9, 0.8, 0.7):
        run("euler", sigmas=SIGMAS * scale)
    assert kept.bytes <= 20


@pytest.mark.parametrize(
    "how, said",
    [
        ({"sigmas": torch.tensor([1.0, 2.0, 0.0])}, "sigmas rise at entry 1, from 1 to 2"),
        ({"sigmas": torch.tensor([1.0, 0.0, 0.0])}, "levels are above 0, and the last may be 0"),
        ({"sigmas": torch.tensor([1.0, -1.0])}, "levels are above 0"),
        ({"sigmas": torch.tensor([float("nan"), 0.0])}, r"sigmas\[0\]=nan"),
        ({"sigmas": torch.ones(2, 2)}, "sigmas=Tensor"),
        ({"sigmas": 3.0}, "sigmas=3.0: give descending levels"),
        (
            {"x": torch.ones(2, 3, dtype=torch.int64)},
            r"x=\[2, 3\] torch.int64: give the noised state",
        ),
        ({"x": torch.ones(3)}, r"x=\[3\] torch.float32"),
        ({"x": [1.0]}, r"x=\[1.0\]"),
        ({"model": 3}, "model=3: give a denoiser"),
        ({"model": lambda x, sigma: x[:1]}, r"the model returned \[1, 2, 3\]"),
        ({"model": lambda x, sigma: None}, "the model returned None"),
        ({"callback": 3}, "callback=3"),
        ({"extra_args": [1]}, r"extra_args=\[1\]: give the model's keywords"),
        ({"noise_sampler": 3}, "noise_sampler=3"),
        ({"noise_sampler": lambda s, t: torch.ones(1)}, r"noise_sampler returned \[1\]"),
        ({"eta": -1.0}, "eta=-1: an amount of noise"),
        ({"solver_type": "euler"}, "solver_type='euler': choose midpoint, heun"),
    ],
)
def test_what_is_refused(how, said):
    called = []
    given = {
        "model": lambda x, sigma: called.append(1) or denoiser(x, sigma),
        "noise_sampler": None,
    }
    with pytest.raises(ValueError, match=said):
        run("dpmpp_2m_sde", **(given | how))
    assert len(called) <= 1


@pytest.mark.parametrize(
    "call, said",
    [
        (
            lambda: k_diffusion.sample_dpm_adaptive(denoiser, start(1.0), 2, 1),
            "sigma_min=2 and sigma_max=1",
        ),
        (
            lambda: k_diffusion.sample_dpm_adaptive(denoiser, start(1.0), 0.1, 1, rtol=0),
            "rtol=0: a tolerance",
        ),
        (lambda: run("lms", order=5), "max_order=5: lms has orders 1 to 4"),
        (lambda: run("dpmpp_sde", r=1.0), "r=1: the middle call"),
        (lambda: k_diffusion.sample_dpm_fast(denoiser, start(1.0), 0.0, 1.0, 3), "sigma_min=0"),
        (lambda: k_diffusion.sample_dpm_fast(denoiser, start(1.0), 0.1, 1.0, 0), "n=0"),
        (lambda: k_diffusion.get_sigmas_karras(0, 0.1, 1.0), "n=0"),
        (lambda: k_diffusion.get_sigmas_exponential(3, 0.0, 1.0), "sigma_min=0"),
        (
            lambda: k_diffusion.BrownianTreeNoiseSampler(start(1.0), 0, 1, seed=[1]),
            "1 entries for 3",
        ),
        (lambda: k_diffusion.BrownianTreeNoiseSampler(start(1.0), 0, 1, seed=-1), "seed=-1"),
    ],
)
def test_what_else_is_refused(call, said):
    with pytest.raises(ValueError, match=said):
        call()


class Wrapper:
    """What the wrappers of a discrete table have, made from the numbers that k-diffusion's gave."""

    def __init__(self, name):
        self.inner_model = Inner()
        self.sigmas = (
            (1 - self.inner_model.alphas_cumprod) / self.inner_model.alphas_cumprod
        ) ** 0.5
        self.name = name

    def get_sigmas(self, n=None):
        return GOLDEN[f"wrapper/{self.name}/sigmas"]

    def sigma_to_t(self, sigma):
        return (sigma.log() - self.sigmas.log()[:, None]).abs().argmin(0)

    def __call__(self, x, sigma, **more):
        return denoiser(x, sigma)


@pytest.mark.parametrize("name", [name for name in MAKERS if name != "VDenoiser"])
def test_wrappers_have_the_levels_of_their_table(name):
    wrapper = Wrapper(name)
    network = k_diffusion.from_k_diffusion(wrapper, (2, 3))
    assert isinstance(network.process, Discrete) and len(network.process.alpha_bar) == 50
    sampler = Sampler(network, "euler", 7, grid=lambda p, n: torch.linspace(49, 0, n).tolist())
    made = torch.tensor([at.ratio for at in sampler.points])
    assert torch.allclose(made[:-1].float(), GOLDEN[f"wrapper/{name}/sigmas"][:-1], rtol=1e-4)
    x = start(made[0].float())
    alpha = sampler.points[0].alpha
    ours = sampler.sample(x=x * alpha, noised=True).samples
    function = run("euler", wrapper, x, made.float())
    assert torch.allclose(ours, function, rtol=0, atol=1e-5)


def test_a_wrapper_of_any_level():
    class Any_:
        inner_model = None

        def sigma_to_t(self, sigma):
            return sigma

        def __call__(self, x, sigma):
            return denoiser(x, sigma)

    assert k_diffusion.from_k_diffusion(Any_(), (2, 3)).process == EDM()
    bad = Wrapper("CompVisDenoiser")
    bad.sigmas = bad.sigmas.flip(0)
    with pytest.raises(ValueError, match=r"Wrapper.sigmas .* is no table"):
        k_diffusion.from_k_diffusion(bad, (2, 3))
