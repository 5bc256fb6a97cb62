"""DP-SGD with noise multiplicity: denoising score matching that is differentially private."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, nn

from ... import checks
from .. import privacy
from ..data import Batch
from .base import Given, Objective, Turn, adam
from .denoising import dropped, errors
from .times import drawn_times

PHYSICAL = 512  # noised images of one call of the network; more take more memory and no less time


class Private(Objective):
    """Differentially Private Diffusion Models (Dockhorn et al. 2023, section 3.2 and appendix E).

    Each step takes every image with probability q = batch / N; g_i is the gradient of image i's loss, a mean
    over K noised copies of it (noise multiplicity), and the network moves along

        (sum_i g_i min(1, C / |g_i|) + sigma C n) / batch,  n ~ N(0, I)

    with Adam. An image enters a sum with a gradient of norm C at most, whatever K is, so that K costs time
    and no privacy. sigma is the least for which all steps together are (epsilon, delta)-differentially
    private when an image is added or removed, by Opacus' accounting.

    The log holds the norm of the private gradient: the loss itself is not private. Whoever knows the seed can
    take the noise off again; where the images are private the seed must be, too. What was learned about
    them by training before, with other settings, is not in the account.

    Args:
        epsilon, delta: of the guarantee, above 0 and delta below 1 / N.
        copies: K, 1 or more.
        norm: C, above 0.
        drop, weight, times: as of the objective `denoising`; a class is dropped for all copies of an image.

    Raises:
        ValueError: the recipe does not sample by Poisson's law, the budget cannot be met, or Opacus or
            dp-accounting is not installed.
    """

    def __init__(
        self,
        given: Given,
        epsilon: float = 10.0,
        delta: float = 1e-4,
        copies: int = 8,
        norm: float = 1.0,
        drop: float = 0.1,
        weight: str = "output",
        times: dict[str, Any] | None = None,
    ) -> None:
        recipe = given.recipe
        self.given, self.batch = given, recipe.batch
        self.copies = checks.whole("copies", copies, 1, "noised copies of an image, 1 or more")
        self.norm, self.epsilon = (
            _positive(n, v) for n, v in (("norm", norm), ("epsilon", epsilon))
        )
        self.drop, self.weight, self.times = drop, weight, times
        self.delta = checks.number("delta", delta)
        if recipe.sampling != "poisson" or self.batch > given.images:
            raise ValueError(
                f"{recipe.name!r}: batches of {self.batch} of {given.images} images by sampling="
                f"{recipe.sampling!r}; the accounting supposes 'poisson', and no more than there are"
            )
        if not 0.0 < self.delta < 1.0 / given.images:
            raise ValueError(
                f"delta={delta!r}: of {given.images} images it has to be above 0 and below "
                f"{1.0 / given.images:.2g}, or the guarantee allows that one is published"
            )
        self.rate = self.batch / given.images
        self.sigma = privacy.noise_multiplier(self.epsilon, self.delta, self.rate, recipe.steps)
        try:
            from ..per_example import PerExample
        except ImportError as error:
            raise ValueError(privacy.INSTALL.format(error.name)) from error
        self.module = PerExample(given.module, self.copies)
        self.module.remove_hooks()  # which the average of the weights would copy

    def turns(self) -> list[Turn]:
        return [Turn("private_gradient", self.given.module.parameters(), self.step, optimizer=adam)]

    def step(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """The norm of the private gradient, which is left in the parameters."""
        moved = list(self.given.module.parameters())
        sums = self.clipped(batch, generator)
        for p, total in zip(moved, sums, strict=True):
            noise = torch.randn(p.shape, generator=generator, dtype=p.dtype).to(p.device)
            p.grad = torch.empty_like(p).copy_(total + self.sigma * self.norm * noise) / self.batch
        return (
            torch.stack([p.grad.square().sum() for p in moved if p.grad is not None]).sum().sqrt()
        )

    def clipped(self, batch: Batch, generator: torch.Generator) -> list[Tensor]:
        """Sum over the images of their gradients, each clipped to the norm C; zeros where there is none."""
        moved = list(self.given.module.parameters())
        sums = [torch.zeros_like(p) for p in moved]
        size = max(1, PHYSICAL // self.copies)
        # torch warns that labels have no gradient.
        warnings.filterwarnings("ignore", "Full backward hook is firing")
        self.module.add_hooks(loss_reduction="sum")
        try:
            for first in range(0, len(batch.x0), size):
                part = Batch(*(each[first : first + size] for each in batch))
                self.loss(part, generator).backward()  # type: ignore[no-untyped-call]
                gradients = [p.grad_sample for p in moved]  # type: ignore[attr-defined]
                norms = torch.stack([g.flatten(1).norm(dim=1) for g in gradients]).norm(dim=0)
                share = (self.norm / norms).clamp(max=1.0)
                for p, total, g in zip(moved, sums, gradients, strict=True):
                    total += torch.einsum("b,b...->...", share, g)
                    p.grad = p.grad_sample = None  # type: ignore[attr-defined]
        finally:
            self.module.remove_hooks()
        return sums

    def loss(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """Sum over the images of the mean loss of their copies."""
        network, k = self.given.network, self.copies
        x0, y = batch
        y = dropped(network, y, self.drop, generator)
        copied = Batch(x0.repeat_interleave(k, 0), y.repeat_interleave(k, 0))
        # The times of an image are its own: what else is in the batch must not reach its gradient.
        n = len(copied.x0)
        t = drawn_times(network.process, n, generator, self.times, groups=len(x0)).to(x0.device)
        eps = torch.randn(copied.x0.shape, generator=generator, dtype=x0.dtype).to(x0.device)
        return errors(network, copied, t, eps, self.weight).flatten(1).mean(1).sum() / k

    def after(self, steps: int, average: nn.Module) -> dict[str, Any]:
        opacus, other = privacy.spent(self.sigma, self.rate, steps, self.delta)
        return {
            "privacy": {
                "epsilon": round(opacus, 4),
                "epsilon_dp_accounting": round(other, 4),
                "delta": self.delta,
                "noise_multiplier": self.sigma,
                "norm": self.norm,
                "sample_rate": self.rate,
                "steps": steps,
                "neighbours": "an image is added or removed",
            }
        }


def _positive(name: str, given: Any) -> float:
    if not (value := checks.number(name, given)) > 0.0:
        raise ValueError(f"{name}={given!r}: give a number above 0")
    return value
