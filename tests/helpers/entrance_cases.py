"""A network and the check of a refusal, for the tests of entrances."""

import math

import pytest

from diffusion_engine import (
    ScoreNetwork,
)
from diffusion_engine.processes import (
    VP,
)

SHAPE = (3, 2, 4)
NAN, INF = math.nan, math.inf


def net(process=None, **options):
    return ScoreNetwork(lambda x, label, *y: x * 0.5, process or VP(), SHAPE, **options)


def refused(message, call, *given, **named):
    with pytest.raises(ValueError, match=message):
        call(*given, **named)
