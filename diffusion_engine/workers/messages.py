"""What the server and its workers say to each other, and what a request, its events and its result are there.

The server has no torch: tensors are numpy arrays on its side.
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np

Entries = list[int | str]  # classes, or prompts


class Asked(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A request, as a worker makes it: the same one, sent again, gives the same samples.

    id         of this request
    model      the name of a network
    spec       the keys of a Spec
    seeds      one a sample; the server has drawn those that nobody gave
    condition  a class or a prompt a sample; a tensor goes into `tensors`
    negative   likewise what the unconditional branch is given in the null condition's place
    guidance   a scale, or one a sample
    compose    (condition, weight) of each concept
    preview    rows between two previews, 0 for none
    priority, deadline, key, adapter, start, noised  as in Engine.submit
    tensors    x, mask, known, measurement, noise, condition and negative, by name
    """

    id: str
    model: str
    spec: dict[str, Any]
    seeds: list[int]
    condition: Entries | None = None
    negative: Entries | None = None
    guidance: float | list[float] | None = None
    compose: list[tuple[Entries, float]] | None = None
    adapter: str | None = None
    start: float | None = None
    noised: bool = False
    priority: float = 0.0
    deadline: float | None = None
    key: str = ""
    preview: int = 0
    tensors: dict[str, np.ndarray] = {}


class Offered(msgspec.Struct, frozen=True):
    """A solver that suits a network, with the options that it has by itself.

    calls       of the network a step
    order       of convergence; 0 where more steps do not lead to the data's law
    stochastic  whether fresh noise enters after the start
    """

    calls: int
    order: int
    stochastic: bool


class About(msgspec.Struct, frozen=True):
    """A network that is served.

    shape     of a sample; decoded: of an image that a decoder makes of it, else the same
    classes   how many it knows, 0 for none; text: whether it takes prompts
    guided    whether it has a null branch; reads_scale: whether it is told its scale in place of one
    default   keys of the Spec that is used where a request says nothing
    guidance  the scale that suits samples of a class; a request that says none has 1
    form      what computes it and on how many threads, as a recipe names them
    solvers   that suit it, by name
    """

    name: str
    shape: list[int]
    decoded: list[int]
    classes: int
    guided: bool
    prediction: str
    process: str
    default: dict[str, Any]
    guidance: float = 1.0
    form: dict[str, Any] = {}
    solvers: dict[str, Offered] = {}
    text: bool = False
    reads_scale: bool = False


class Told(msgspec.Struct, frozen=True):
    """Something that became of a request, as engine.Event has it: queued, started, row, preview, or how it
    ended; restarted, where a worker died and it is made again.

    denoised  [*shape] float32 of a preview; of latents a picture, which may be smaller than the decoded one
    """

    kind: str
    sample: int = 0
    row: int = 0
    rows: int = 0
    denoised: np.ndarray | None = None


class Made(msgspec.Struct, frozen=True):
    """Samples [n, *shape] float32, and what engine's Result says of them.

    seconds  from submission to the end; queued: to the first seat
    latents  [n, *shape] where a decoder made the samples
    reports  of each sample what its driver says of it
    """

    samples: np.ndarray
    seeds: list[int]
    nfe: int
    evaluations: int
    recipe: dict[str, Any]
    finite: list[bool]
    seconds: float
    queued: float
    latents: np.ndarray | None = None
    reports: list[dict[str, Any]] | None = None
