"""The ops of networks as functions of tensors: `group_norm`, `add_group_norm`, `attention` and `conv3x3`; and
the numbers of each sample: `norms` and `quantile`.

Under torch.compile they are one node each (library.py).
"""

from .attention import attention
from .conv3x3 import conv3x3
from .group_norm import add_group_norm, group_norm
from .norms import norms
from .quantile import quantile

__all__ = ["add_group_norm", "attention", "conv3x3", "group_norm", "norms", "quantile"]
