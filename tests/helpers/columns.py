"""Samples of one number each, and the options of a run in float64 on the reference."""

import torch

F64 = {"dtype": torch.float64, "backend": "torch"}


def column(*values):
    return torch.tensor(values, dtype=torch.float64)[:, None]
