"""Rollouts: what the rows of a run drew and how likely that was, as policy gradients train on it."""

from .log_prob import log_prob
from .rollout import Rollout

__all__ = ["Rollout", "log_prob"]
