"""Set up before any test module is imported."""

import os

import torch

if not torch.cuda.is_available():
    # Read when triton is first imported: its kernels then run on CPU tensors.
    os.environ.setdefault("TRITON_INTERPRET", "1")
