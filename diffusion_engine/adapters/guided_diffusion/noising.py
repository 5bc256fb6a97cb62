"""guided-diffusion's tables of noise, the timesteps of a run, and what the network is told of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ...processes import Discrete, GaussianProcess
from ...processes.ends import table_of

SCHEDULES = ("linear", "cosine")
FORM = (
    "it is a number of steps, several with commas between for sections of the table, ddimN for N steps of "
    "one stride, or empty"
)


def process_of(noise_schedule: str, diffusion_steps: int) -> Discrete:
    """Its table of betas; the ends of the linear one are those of 1000 steps times 1000 / diffusion_steps."""
    if noise_schedule == "cosine":
        return Discrete.cosine(diffusion_steps)
    scale = 1000.0 / diffusion_steps
    return Discrete.linear(diffusion_steps, 1e-4 * scale, 0.02 * scale)


@dataclass(frozen=True)
class Respaced:
    """n of a table's timesteps: its grid, which includes timestep 0.

    sections  steps of each of as many equal parts of the table, the cleanest first; one part has any n
    strided   timesteps 0, k, 2 k, ... with the k that makes n of them
    """

    sections: tuple[int, ...] = ()
    strided: bool = False

    def __call__(self, process: GaussianProcess, n: int) -> list[float]:
        count = table_of(process, "respaced", n)
        times = _strided(count, n) if self.strided else self._spaced(count, n)
        return [float(t) for t in reversed(times)]

    def _spaced(self, count: int, n: int) -> list[int]:
        sections = self.sections if len(self.sections) > 1 else (n,)
        if sum(sections) != n:
            raise ValueError(
                f"{n} steps were asked of sections of {', '.join(map(str, sections))}; ask for "
                f"{sum(sections)}"
            )
        size, extra = divmod(count, len(sections))
        made: list[int] = []
        start = 0
        for i, steps in enumerate(sections):
            length = size + (i < extra)
            if steps > length:
                raise ValueError(f"a section of {length} timesteps has no {steps} steps")
            stride = (length - 1) / (steps - 1) if steps > 1 else 1.0
            place = 0.0
            for _ in range(steps):
                made.append(start + round(place))
                place += stride
            start += length
        return made


def _strided(count: int, n: int) -> list[int]:
    for stride in range(1, count):
        if len(range(0, count, stride)) == n:
            return list(range(0, count, stride))
    raise ValueError(
        f"no whole stride makes {n} steps of {count} timesteps; ask for another number, or leave "
        "timestep_respacing out"
    )


def respaced(text: Any) -> Respaced:
    """The grid of a timestep_respacing. Raises ValueError where it is none."""
    said = str(text).strip()
    if not said:
        return Respaced()
    strided = said.startswith("ddim")
    parts = said.removeprefix("ddim").split(",")
    if not all(part.strip().isdecimal() and int(part) > 0 for part in parts) or (
        strided and len(parts) > 1
    ):
        raise ValueError(f"timestep_respacing={said[:60]!r}: {FORM}")
    return Respaced(() if strided else tuple(int(part) for part in parts), strided)


@dataclass(frozen=True)
class Scaled:
    """The timestep times a factor, rescale_timesteps."""

    factor: float

    def __call__(self, at: Any) -> Any:
        return at.t * self.factor


def convention(
    noise_schedule: str, diffusion_steps: int, timestep_respacing: Any, predict_xstart: bool,
    rescale_timesteps: bool, learn_sigma: bool,
) -> dict[str, Any]:  # fmt: skip
    """What a ScoreNetwork is told of a network that was trained so."""
    return {
        "process": process_of(noise_schedule, diffusion_steps),
        "prediction": "x0" if predict_xstart else "eps",
        "label": Scaled(1000.0 / diffusion_steps) if rescale_timesteps else "t",
        "variance": "learned_range" if learn_sigma else None,
        "grid": respaced(timestep_respacing),
        "clip": (-1.0, 1.0),
    }
