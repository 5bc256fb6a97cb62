"""What the reader of a page brings, what stands in for what takes long, and what runs elsewhere."""

from __future__ import annotations

import ast
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from .blocks import Page


class Half(torch.nn.Module):
    """A trained network."""

    def forward(self, x: torch.Tensor, label: torch.Tensor, condition: Any = None) -> torch.Tensor:
        return 0.5 * x


def pipeline() -> Any:
    """A pipeline of diffusers that was never saved."""
    from diffusers import DDIMPipeline, DDIMScheduler, UNet2DModel

    blocks = {"down_block_types": ("DownBlock2D",), "up_block_types": ("UpBlock2D",)}
    unet = UNet2DModel(8, block_out_channels=(8,), layers_per_block=1, norm_num_groups=8, **blocks)
    pipe = DDIMPipeline(unet, DDIMScheduler())
    pipe.set_progress_bar_config(disable=True)
    return pipe


def denoiser(x: torch.Tensor, sigma: torch.Tensor, **more: Any) -> torch.Tensor:
    """Of data 1 and -1."""
    return (x / sigma.view(-1, *[1] * (x.ndim - 1)) ** 2).tanh()


def noised() -> torch.Tensor:
    """x at the first of a schedule's sigmas."""
    return 14.6 * torch.randn(4, 4, 8, 8, generator=torch.Generator().manual_seed(0))


def of_checkout(name: str) -> Callable[[Path], None]:
    """Copies a file of the checkout."""

    def write(path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(Path(__file__).parents[3] / name, path)

    return write


DENOISED: dict[str, Callable[[], Any]] = {"model": lambda: denoiser, "x": noised}
# page -> a name that its Python uses -> what it is
GIVEN: dict[str, dict[str, Callable[[], Any]]] = {
    "README.md": {"module": Half},
    "docs/k-diffusion.md": DENOISED,
    "docs/comfyui.md": DENOISED | {"sigmas": lambda: torch.tensor([14.6, 2.0, 0.5, 0.0])},
    "docs/diffusers.md": {"pipe": pipeline},
}

# page -> a file that it reads -> what writes it
PICTURE, NAMES = "docs/gallery/one_call.png", "docs/gallery/names.txt"
ANIMALS, FLAGS = "examples/animals.txt", "examples/flags.txt"
FILES: dict[str, dict[str, Callable[[Path], None]]] = {
    "docs/gallery.md": {name: of_checkout(name) for name in (PICTURE, NAMES)},
    "docs/drivers/retrieval.md": {name: of_checkout(name) for name in (ANIMALS, FLAGS)},
}

# page -> a text of its code -> what runs in its place
FEWER = {"--out samples.png": "--out samples.png --n 2"}
SUBSTITUTIONS: dict[str, dict[str, str]] = {
    "README.md": FEWER
    | {
        "--seeds 0-49": "--seeds 0-1",
        "serve --model digits": "serve --model digits --print-config",
    },
    "docs/engine.md": {"--requests 20": "--requests 6 --capacity 4"},
    "docs/many-samples.md": {"--seeds 0-49999": "--seeds 0-1"},
    "docs/quickstart.md": FEWER,
    "docs/training.md": {
        "train flow --out mine": "train --json",
        "train emoji --out mine": "train --json",
        "--model mine/flow.safetensors": "--n 1 --model digits",
        " --resume": "",
    },
}

# Of every page, where there is no GPU.
WITHOUT_GPU = {'device="cuda"': 'device="cpu"', "--device cuda": "--device cpu"}

# The comment before a block -> the test that runs it, as files of the package or with a compiler.
ADDED = (
    "tests/package/test_contributing.py::test_the_solver_of_contributing_is_what_a_shipped_one_is"
)
KERNEL = (
    "tests/package/test_contributing_kernel.py::test_its_tests_pass_and_others_name_what_is_missing"
)
LERP = (
    "diffusion_engine/ops/lerp.py", "csrc/cpu/lerp.h", "csrc/cpu/lerp.cpp",
    "diffusion_engine/backends/lerp.py", "kernels/lerp.py", "lines", "tests/ops/test_lerp.py",
    "benchmarks/ops/lerp.py", "commands",
)  # fmt: skip
NODE = "tests/adapters/test_comfyui.py::test_the_node_of_the_page"
ELSEWHERE = {"midpoint": ADDED, "midpoint oracle": ADDED, "comfyui node": NODE} | dict.fromkeys(
    LERP, KERNEL
)
ON_RAY = "tests/ray/test_ray_slow.py::test_the_page"
ELSEWHERE |= dict.fromkeys(("ray generate", "ray table", "ray python", "ray serve"), ON_RAY)


# page -> paths in backticks that its example makes.
EXAMPLES = {
    "CONTRIBUTING.md": {"diffusion_engine/solvers/midpoint.py"},
    "docs/comfyui.md": {"custom_nodes/diffusion_engine_samplers.py"},
    "docs/native.md": {"native/avx512/amx"},
    "docs/scaling.md": {"manifest.json"},
}

# Words in backticks that are names of other libraries, and in no source here.
OF_OTHERS = {
    "AncestralSamplingPredictor", "EDMPrecond", "EulerMaruyamaPredictor", "ReverseDiffusionPredictor",
    "RAY_AUTH_MODE", "SamplerCustom", "ddim_sample_loop", "edm_sampler", "init_noise_sigma", "learn_sigma",
    "p_sample_loop", "proxy_buffering", "sample_",
}  # fmt: skip


def names(page: str) -> dict[str, Any]:
    return {name: make() for name, make in GIVEN.get(page, {}).items()}


def files(page: str, folder: Path) -> None:
    for name, write in FILES.get(page, {}).items():
        write(folder / name)


def check_used(page: Page, substituted: set[str]) -> None:
    """Nothing is given to a page that it does not use."""
    read = {
        node.id
        for block in page.blocks
        if block.language == "python"
        for node in ast.walk(ast.parse(block.code))
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)
    }
    idle = [name for name in GIVEN.get(page.name, {}) if name not in read]
    idle += [name for name in FILES.get(page.name, {}) if name not in page.code]
    idle += [old for old in SUBSTITUTIONS.get(page.name, {}) if old not in substituted]
    if idle:
        raise page.error(1, f"tests/helpers/pages/given.py has what is not used: {idle}")
