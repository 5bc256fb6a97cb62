"""A module with consistency_models' calling convention as a `ScoreNetwork`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ... import checks
from ...networks.network import OPTIONS, ScoreNetwork
from ...networks.prediction import Consistency, F
from ...processes import EDM
from ..guided_diffusion.network import read_of

# What image_sample.py takes as training_mode; those with "consistency" in them are students.
MODES = ("edm", "progdist", "consistency_distillation", "consistency_training")


def convention(training_mode: str, sigma_min: float, sigma_max: float) -> dict[str, Any]:
    """What a ScoreNetwork is told: a student's function is x at sigma_min, and both are told
    250 log(sigma + 1e-44)."""
    student = Consistency(sigma_min=sigma_min)
    return {
        "process": EDM(t_min=sigma_min, t_max=sigma_max),
        "prediction": student if "consistency" in training_mode else F(student.sigma_data),
        "label": student.c_noise,
        "clip": (-1.0, 1.0),
    }


def consistency_models_network(
    model: Callable[..., Any],
    training_mode: str,
    *,
    sigma_min: float = 0.002,
    sigma_max: float = 80.0,
    **options: Any,
) -> ScoreNetwork:
    """A network of consistency_models: model(c_in x, 250 log(sigma + 1e-44), y) that returns F.

    model          its in_channels, image_size and num_classes are read where it has them
    training_mode  "consistency_distillation" or "consistency_training" of a student, for 'consistency';
                   "edm" or "progdist" of a network with EDM's preconditioning, for 'heun' and others
    options        of ScoreNetwork, such as shape

    `denoised` is clipped to (-1, 1), as in its sampler; clip=None does not. Raises ValueError where the shape
    is not known.
    """
    checks.function("model", model, "give consistency_models' network, model(x, timesteps, y)")
    checks.one_of("training_mode", training_mode, MODES)
    checks.names("consistency_models_network", options, OPTIONS - {"process"})
    said = convention(training_mode, sigma_min, sigma_max)
    return ScoreNetwork(model, **(said | read_of(model, options) | options))
