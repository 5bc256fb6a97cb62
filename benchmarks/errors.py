"""Writes results/<device>-errors.csv, the errors of the ops of networks over the layers of W1: python -m
benchmarks.errors. Those of the plain float32 sum and of torch stand beside them; nothing is timed."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from importlib import import_module

import torch

from diffusion_engine.testing import plain

from . import ops, results, timing
from .agreement import Sums

WORKLOAD = "W1"


def main() -> None:
    torch.manual_seed(0)
    device = timing.device_name(torch.device("cpu"))
    about = {
        "device": device,
        "version": torch.__version__,
        "commit": results.commit(),
        "date": results.now(),
    }
    path = results.device_file(device, results.ERRORS)
    with path.open("w", newline="") as file, torch.no_grad():
        writer = csv.DictWriter(file, results.ERROR_KEYS, lineterminator="\n")
        writer.writeheader()
        for row in rows():
            print(row, flush=True)
            writer.writerow(row | about)
    print(f"wrote {path}")


def rows() -> Iterator[dict[str, str]]:
    """The rows of every op that has `errors`."""
    for name in ops.NAMES:
        op = import_module(f".ops.{name}", __package__)
        if hasattr(op, "errors"):
            yield from map(row, op.errors(WORKLOAD))


def row(sums: Sums) -> dict[str, str]:
    """The errors relative to the largest value, and the engine's over what is allowed."""
    size = float(sums.exact.abs().max())
    far = {
        name: float((tensor - sums.exact).abs().max())
        for name, tensor in (("plain", sums.plain), ("torch", sums.torch), ("ours", sums.engine))
    }
    share = far["ours"] / plain.allowed(sums.plain, sums.exact, sums.engine.dtype)
    found = {name: value / size for name, value in far.items()} | {"of_bound": share}
    known = {"op": sums.op, "shape": results.dims(sums.shape)}
    return known | {name: f"{value:.2g}" for name, value in found.items()}


if __name__ == "__main__":
    main()
