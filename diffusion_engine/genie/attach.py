"""A head on a U-Net: one forward gives eps and, from its last feature map, d eps / dg."""

from __future__ import annotations

import threading
from typing import Any

import torch
from torch import Tensor, nn

from ..networks.network import ScoreNetwork
from ..networks.wrapper import unwrapped
from . import natural


class Tap:
    """A forward hook that keeps what its module returned, for the call that listens.

    Threads have places of their own. A traced call needs none: there the tap is a value of the trace.
    """

    def __init__(self) -> None:
        self.traced: Any = None
        self.local = threading.local()

    def __deepcopy__(self, memo: dict[int, Any]) -> Tap:
        return Tap()

    def __call__(self, module: nn.Module, args: Any, out: Any) -> None:
        if torch.compiler.is_compiling():
            self.traced = out
        elif getattr(self.local, "listens", False):
            self.local.kept = out

    def listen(self) -> None:
        """Keeps outputs from here on."""
        if not torch.compiler.is_compiling():
            self.local.listens, self.local.kept = True, None

    def take(self) -> Any:
        """The last output, which is then forgotten; None where there was none."""
        if torch.compiler.is_compiling():
            out, self.traced = self.traced, None
            return out
        out = self.local.kept
        self.local.listens, self.local.kept = False, None
        return out


class Attached(nn.Module):
    """The module of `attach`: it returns the prediction and k1, k2, k3 as two tensors."""

    def __init__(
        self, network: ScoreNetwork, head: nn.Module, feature: str, embedding: str
    ) -> None:
        super().__init__()
        assert isinstance(network.module, nn.Module)
        self.unet, self.head, self.network = network.module, head, network
        self.names = (feature, embedding)
        self.taps = (Tap(), Tap())
        for name, tap in zip(self.names, self.taps, strict=True):
            self.unet.get_submodule(name).register_forward_hook(tap)

    def forward(self, x: Tensor, label: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        if self.network.parameterisation.prediction == "eps":
            out, features, embedding = self.watched(x, label, *args, **kwargs)
            eps = out[:, : x.shape[1]]
            return out, self.head(x, eps, features, embedding)
        # The network's own input and label are made here: eps takes alpha and sigma, hence the time.
        at, scaled, own = natural.inputs(self.network, x, label)
        out, features, embedding = self.watched(scaled, own, *args, **kwargs)
        eps = natural.eps(self.network, at, x, out)
        return out, self.head(scaled, eps, features, embedding)

    def watched(self, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor, Tensor]:
        """The U-Net's output, its feature map and its time embedding."""
        for tap in self.taps:
            tap.listen()
        out = self.unet(*args, **kwargs)
        features, embedding = (tap.take() for tap in self.taps)
        for name, kept in zip(self.names, (features, embedding), strict=True):
            if not isinstance(kept, Tensor):
                raise ValueError(
                    f"module {name!r} gave {type(kept).__name__} in this call and the head needs a tensor: "
                    "name a module that every forward calls and that returns one"
                )
        return out, features, embedding


def attach(network: ScoreNetwork, head: nn.Module, *, feature: str, embedding: str) -> ScoreNetwork:
    """The network with GENIE's heads k1, k2, k3 as channel blocks 1 to 3, for the solver 'genie'.

    network    its module is a U-Net that returns one tensor, of as many channels as an image
    head       a Head trained with it, called as head(x, eps, features, embedding)
    feature    name of the module that returns the last feature map, before the last norm
    embedding  name of the module that returns the time embedding

    Both are taken in the network's own forward, by hooks that stay on it and keep nothing in other calls.
    A base that predicts anything but eps is converted first: eps = alpha v + sigma x;
    it is then told the time t itself.
    Raises ValueError where a name is none of the network's modules, or the network does not suit.
    """
    if not isinstance(network.module, nn.Module):
        raise ValueError(
            f"{type(network.module).__name__} is no torch.nn.Module, whose feature map a head could read"
        )
    about = network.parameterisation
    if about.derivative is not None or about.gradient is not None:
        raise ValueError("attach the head to the network itself, before anything is added to it")
    if about.latent:
        raise ValueError(
            f"{about.name!r} reads a latent: a generator has no ODE for a head to follow"
        )
    natural.refuse_ends(about)
    if about.variance is not None:
        raise ValueError(
            "the heads lie in channel blocks 1 to 3, where this network has its learned variance; attach "
            "them to a network without one"
        )
    named = dict(network.module.named_modules())
    own = unwrapped(network.module)  # whose names a user knows
    prefix = next(f"{name}." if name else "" for name, part in named.items() if part is own)
    modules = [name.removeprefix(prefix) for name in named if name.startswith(prefix) and name]
    for kind, name in (("feature", feature), ("embedding", embedding)):
        if name not in modules:
            outer = [module for module in modules if module.count(".") <= name.count(".")]
            raise ValueError(
                f"{kind}={name!r} is no module of the network, which has {', '.join(outer)[:400]}"
            )
    convention: dict[str, Any] = {}
    if about.prediction != "eps":
        natural.check(network)
        convention = {"label": "t", "label_dtype": torch.float64, "scale": "one"}
    module = Attached(network, head, prefix + feature, prefix + embedding).train(
        network.module.training
    )
    return network.with_module(module, derivative="heads", **convention)
