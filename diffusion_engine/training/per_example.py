"""Gradients of single examples of which a batch holds several copies, through Opacus."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from opacus.grad_sample import GradSampleModule
from torch import Tensor, nn
from torch.nn import functional as F

Samples = dict[Tensor, Tensor]  # of a parameter
Sampler = Callable[[nn.Module, list[Tensor], Tensor], Samples]


def summed(sampler: Sampler) -> Sampler:
    """Opacus' sampler of a layer, its gradients summed over an example's copies."""

    def sample(layer: nn.Module, activations: list[Tensor], backprops: Tensor) -> Samples:
        copies = backprops.shape[1]
        flat = sampler(layer, [a.flatten(0, 1) for a in activations], backprops.flatten(0, 1))
        return {p: each.unflatten(0, (-1, copies)).sum(1) for p, each in flat.items()}

    return sample


def convolution(layer: nn.Module, activations: list[Tensor], backprops: Tensor) -> Samples:
    """The sum over positions and copies as one product of matrices, which writes no gradient of a copy.

    Opacus' own sampler of this layer (1.6.0) returns other gradients where an image is not contiguous.
    """
    assert isinstance(layer, nn.Conv2d)
    assert not isinstance(layer.padding, str)
    (down, right), (h, w) = layer.padding, layer.kernel_size
    examples = len(backprops)
    # With the channels last a row of the window is contiguous, so that the windows are copied quickly.
    x = F.pad(activations[0].flatten(0, 1).permute(0, 2, 3, 1), (0, 0, right, right, down, down))
    windows = x.unfold(1, h, 1).unfold(2, w, 1).permute(0, 1, 2, 4, 5, 3)
    columns = windows.reshape(examples, -1, h * w * layer.in_channels)
    g = backprops.permute(0, 1, 3, 4, 2).reshape(examples, -1, layer.out_channels)
    weight = (g.mT @ columns).unflatten(2, (h, w, -1)).permute(0, 1, 4, 2, 3)
    made = {layer.weight: weight}
    return made if layer.bias is None else made | {layer.bias: g.sum(1)}


class PerExample(GradSampleModule):
    """Opacus' GradSampleModule for batches [B K, ...] where an example's `copies` K stand in a row:
    parameters get grad_sample [B, ...], the gradients summed over the copies."""

    GRAD_SAMPLERS = {
        kind: summed(sampler) for kind, sampler in GradSampleModule.GRAD_SAMPLERS.items()
    } | {nn.Conv2d: convolution}

    def __init__(self, module: nn.Module, copies: int) -> None:
        self.copies = copies
        super().__init__(module, loss_reduction="sum")

    def rearrange_grad_samples(
        self, *, module: nn.Module, **options: Any
    ) -> tuple[list[Tensor], Tensor]:
        activations, backprops = super().rearrange_grad_samples(module=module, **options)
        module.max_batch_len = len(backprops) // self.copies  # type: ignore[assignment]
        shape = (-1, self.copies)
        return [a.unflatten(0, shape) for a in activations], backprops.unflatten(0, shape)
