"""What a private training spends: Opacus' accounting, and dp-accounting's beside it."""

from __future__ import annotations

from functools import lru_cache

INSTALL = (
    "private training needs the packages opacus and dp-accounting, and {} is not installed; run "
    "pip install 'diffusion-engine[train]'"
)
LOSS_INTERVAL = 1e-3  # of dp-accounting; a tenth of it changes epsilon = 10 by less than 1e-4


@lru_cache(maxsize=64)
def noise_multiplier(epsilon: float, delta: float, rate: float, steps: int) -> float:
    """The least sigma with which `steps` steps, each of which takes an image with probability `rate` and
    adds noise of sigma times the largest gradient of an image, are (epsilon, delta)-differentially private
    (accounting of Gopi et al. 2021).

    Raises ValueError where no sigma is large enough, or Opacus is not installed.
    """
    try:
        from opacus.accountants.utils import get_noise_multiplier
    except ImportError as error:
        raise ValueError(INSTALL.format(error.name)) from error
    try:
        sigma = get_noise_multiplier(
            target_epsilon=epsilon, target_delta=delta, sample_rate=rate, steps=steps,
            epsilon_tolerance=1e-3 * epsilon, accountant="prv",
        )  # fmt: skip
    except ValueError as error:
        raise ValueError(
            f"epsilon={epsilon:g} at delta={delta:g} cannot be met by {steps} steps that take each image "
            f"with probability {rate:.3g}, however large the noise ({error}); allow a larger epsilon or "
            "delta, or train fewer steps with smaller batches"
        ) from error
    return float(sigma)


@lru_cache(maxsize=64)
def spent(sigma: float, rate: float, steps: int, delta: float) -> tuple[float, float]:
    """epsilon of the steps that were taken: by Opacus, an upper bound, and by dp-accounting (privacy loss
    distributions, Koskela et al. 2020).

    Raises ValueError where a package is not installed.
    """
    try:
        from dp_accounting import dp_event
        from dp_accounting.pld import PLDAccountant
        from opacus.accountants import PRVAccountant
    except ImportError as error:
        raise ValueError(INSTALL.format(error.name)) from error
    opacus = PRVAccountant()
    opacus.history = [(sigma, rate, steps)]
    step = dp_event.PoissonSampledDpEvent(rate, dp_event.GaussianDpEvent(sigma))
    other = PLDAccountant(value_discretization_interval=LOSS_INTERVAL)
    other.compose(dp_event.SelfComposedDpEvent(step, steps))
    return float(opacus.get_epsilon(delta)), float(other.get_epsilon(delta))
