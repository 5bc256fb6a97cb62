"""Which class an operator or a GPU kernel belongs to, by its name."""

from __future__ import annotations

import re

CONVOLUTION, LINEAR, NORMALISATION = "convolution", "linear", "normalisation"
ATTENTION, ELEMENTWISE = "attention", "elementwise"
COPIES, COMPILED, OTHER, BETWEEN = "copies, layout", "compiled loops", "other", "between ops"
STEP, NOISE, GUIDE, DECODE = "step", "noise", "guidance", "decode"

# Ranges that are a part of a run by themselves; noise is what the step does not draw itself: increments of
# Brownian paths, and the latents of generators; guidance what guiders find of each sample.
PARTS = {
    "step": STEP, "brownian": NOISE, "noise": NOISE, "guide": GUIDE, "decode": DECODE,
}  # fmt: skip

CLASSES = (
    CONVOLUTION, LINEAR, NORMALISATION, ATTENTION, ELEMENTWISE, COPIES, COMPILED, OTHER, BETWEEN,
)  # fmt: skip

# The call of what torch.compile made, whose own time on a CPU is its loops, fused across classes.
INDUCTOR = "CompiledFxGraph"

# What these call, they call for their own sake: a matrix product inside attention is attention's.
_OWNERS = (CONVOLUTION, LINEAR, NORMALISATION, ATTENTION, COPIES)

# Data that moves, which is worth seeing wherever it happens.
_MOVES = re.compile(r"(copy_|clone|contiguous|_to_copy|cat|stack|repeat|repeat_interleave|roll)")
_VIEWS = re.compile(
    r"(to|type_as|view|view_as|reshape|_reshape_alias|_unsafe_view|permute|transpose|t|movedim|expand"
    r"|expand_as|slice|select|narrow|chunk|split|split_with_sizes|unbind|unsqueeze|squeeze|flatten"
    r"|unflatten|as_strided|unfold|detach|alias|pad|constant_pad_nd|pixel_shuffle|pixel_unshuffle)_?"
)
_ELEMENTWISE = re.compile(
    r"(add|sub|rsub|mul|div|addcmul|addcdiv|lerp|neg|abs|exp|expm1|log|log1p|pow|sqrt|rsqrt|square"
    r"|reciprocal|sin|cos|tanh|sigmoid|silu|mish|relu|leaky_relu|gelu|elu|glu|softplus|hardswish"
    r"|hardsigmoid|clamp|clamp_min|clamp_max|maximum|minimum|where|masked_fill|round|floor|dropout"
    r"|eq|ne|lt|le|gt|ge|logical_not|logical_and|logical_or|isfinite)_?"
)
_OPS = (
    (ATTENTION, re.compile(r".*(attention|softmax).*")),
    (CONVOLUTION, re.compile(r".*conv.*")),
    (NORMALISATION, re.compile(r".*(group|layer|batch|instance|rms)_?norm.*")),
    (LINEAR, re.compile(r"(.*linear.*|_?(scaled_)?mm|bmm|addmm|baddbmm|matmul|einsum|mv|addmv|dot)")),
    (COPIES, _MOVES),
    (COPIES, _VIEWS),
    (ELEMENTWISE, _ELEMENTWISE),
)  # fmt: skip

# The kernels of torch, cuDNN, cuBLAS, CUTLASS, inductor and this package. The first that is found
# decides: inductor names a kernel after all it holds, and a bias that was added is no convolution.
_KERNELS = (
    (STEP, re.compile(r"\b_?step(_kernel)?\b")),
    (NOISE, re.compile(r"\b_?(brownian|noise)(_kernel)?\b")),
    (GUIDE, re.compile(r"\b_?(norms|merge_norms|quantile)\b|\b(norms|merge|quantile)_kernel\b")),
    (ELEMENTWISE, re.compile("triton_poi")),
    (COPIES, re.compile("memcpy|memset|copy|nchwtonhwc|nhwctonchw|catarray|transpose|permute")),
    (CONVOLUTION, re.compile("conv|fprop|dgrad|winograd|im2col")),
    (ATTENTION, re.compile("attention|flash|fmha|softmax")),
    (NORMALISATION, re.compile(r"norm|moments|fusedparams|\b_(group|merge|apply)\b")),
    (LINEAR, re.compile(r"gemm|gemv|cutlass|nvjet|cublas|splitk|matmul|triton_tem\w*mm")),
    (ELEMENTWISE, re.compile("elementwise|pointwise")),
)


def op_class(name: str, caller: str | None = None) -> str:
    """The class of an operator such as aten::add.

    caller  class of the operator that called it, None where the network did
    """
    if INDUCTOR in name:
        return COMPILED
    plain = name.rpartition("::")[2].partition(".")[0].lower()
    if plain in PARTS or caller in PARTS.values():  # and all that is in them
        return PARTS.get(plain) or str(caller)
    if _MOVES.fullmatch(plain):
        return COPIES
    if caller in _OWNERS:
        return caller
    found = next((kind for kind, pattern in _OPS if pattern.fullmatch(plain)), None)
    return found or caller or OTHER


def kernel_class(name: str, launcher: str | None = None) -> str:
    """The class of a GPU kernel.

    launcher  class of the operator that launched it, None where a CUDA graph or an op of ours did
    """
    if launcher == DECODE:
        return DECODE
    plain = name.lower()
    found = next((kind for kind, pattern in _KERNELS if pattern.search(plain)), None)
    if launcher is None or launcher == OTHER:
        return found or OTHER
    # An operator knows better what a matrix product is for; that a kernel moves data, the kernel.
    return COPIES if found == COPIES and launcher not in PARTS.values() else launcher
