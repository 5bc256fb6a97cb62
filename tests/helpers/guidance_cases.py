"""Guided mixtures, and what a row's weights make of the outputs of its branches."""

from diffusion_engine import (
    with_classifier,
)
from diffusion_engine.testing import labelled_mixture as mixture


def classified(**options):
    """The unconditional mixture and its own classifier."""
    base = mixture(**options)
    return with_classifier(base, base.module.classifier, conditional=False)


def denoised_of(plan, at, state, outs):
    """`denoised` of a row for a state and the outputs of its branches, by the row's own weights."""
    row = plan.rows[1]
    total = row.p[0] * state
    for q, block, branch in zip(row.q, row.channel_blocks, row.branches, strict=True):
        total = total + q * outs[branch][block]
    return total
