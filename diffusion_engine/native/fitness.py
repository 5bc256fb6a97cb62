"""Which networks may be recorded."""

from __future__ import annotations

import torch
from torch import nn

from ..accelerate.handle import accelerated
from ..networks.compiled import Compiled
from ..networks.network import ScoreNetwork
from ..networks.onnx import OnnxModule

ONNX = "it is an ONNX file, which has no module to record; executor='onnxruntime' and 'openvino' read it"


def unfit(network: ScoreNetwork) -> str | None:
    """Why a network is run by torch, as a sentence; None where it may be recorded."""
    rule = network.parameterisation
    if rule.derivative is not None or rule.gradient is not None:
        return "it differentiates in its forward"
    module = network.module
    if isinstance(module, Compiled):
        return "it runs through torch.compile; leave compile out"
    if isinstance(module, nn.Module):
        if isinstance(module, OnnxModule):
            return ONNX
        if any(isinstance(part, OnnxModule) for part in module.modules()):
            return "a part of it is an ONNX file, which has no module to record"
        if accelerated(module) is not None:
            return "it has fused ops in it already; leave accelerate out"
        hooked = [name for name, part in module.named_modules() if _hooks(part)]
        if hooked:
            return f"a hook on {hooked[0] or 'the network'!r} would not be called"
        other = [n for n, p in module.named_parameters() if p.dtype != torch.float32]
        if other:
            return f"its weight {other[0]!r} is not in float32"
    return None


HOOKS = ("_forward_hooks", "_forward_pre_hooks")


def _hooks(module: nn.Module) -> bool:
    return any(getattr(module, name) for name in HOOKS)
