"""Headline figures of the papers beside the rows of benchmarks.runs.evaluation."""

from __future__ import annotations

from ... import results
from .. import rows
from ..rows import Row
from .evaluation import at, estimate, figure

# Method, what the paper says of it, and the row that is its like here. FID on CIFAR-10, in network calls.
PUBLISHED: tuple[tuple[str, str, Row], ...] = (
    ("DDIM", "13.4 in 10, 4.7 in 50", at("digits", "ddim", 10)),
    ("DPM-Solver", "4.7 in 10", at("digits", "dpmpp_2m", 10)),
    ("DEIS", "4.2 in 10", at("digits", "deis", 10)),
    ("UniPC", "3.9 in 10", at("digits", "unipc", 10)),
    (
        "GENIE",
        "13.9 in 5, 6.0 in 10, 4.5 in 15",
        at("digits_genie", "genie", 10, grid="quadratic"),
    ),
    ("CLD, EM", "52.7 in 50, 7.0 in 150", at("cld", "cld_em", 50)),
    ("CLD, SSCS", "20.5 in 50, 3.1 in 150", at("cld", "sscs", 50)),
    ("CLD, exponential integrator", "2.3 in 50", at("cld", "cld_exp", 50)),
    ("consistency distillation", "3.6 in 1, 2.9 in 2", {"model": "consistency"}),
    ("progressive distillation", "9.1 in 1, 4.5 in 2, 3.0 in 4", {"model": "progressive"}),
    ("denoising diffusion GAN", "3.8 in 4", {"model": "ddgan"}),
    ("large teacher to small student", "8.0; its teacher 294 at more FLOPs", {"model": "student"}),
    ("DPDM on MNIST", "5.0 at epsilon 10, 23.4 at 1", {"model": "dp_8"}),
)


def quality_published() -> str:
    """A line a method."""
    found = rows.committed(results.EVALUATION)
    body = [[method, said, *_here(found, wanted)] for method, said, wanted in PUBLISHED]
    head = ["method", "its paper: FID, calls", "here: Frechet", "calls"]
    return rows.lines(head, body, 2)


def _here(found: list[Row], wanted: dict[str, str]) -> list[str]:
    try:
        row = rows.one(found, **wanted, seed="0")
    except rows.Lacking:
        return ["not measured", ""]
    return [figure(estimate(row)), row["calls"]]
