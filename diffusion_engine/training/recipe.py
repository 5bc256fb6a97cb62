"""What decides a training, as data: one JSON file a recipe."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, PositiveFloat, PositiveInt, field_validator

from ..model import Model
from ..zoo.cards import Card
from .data import Augmentation

HERE = Path(__file__).parent / "recipes"


class TrainingRecipe(Model):
    """All that, beside the code, decides the weights of a network.

    The card says what the network is: it becomes the JSON beside the weights (zoo.networks).
    Raises ValueError in a sentence where what is given makes no sense.
    """

    kind: ClassVar[str] = "training recipe"

    name: str = Field(description="of the files that are written", pattern=r"^[a-z][a-z0-9_]*$")
    objective: dict[str, Any] = Field(description="its name, a key of OBJECTIVES, and its options")
    card: dict[str, Any] = Field(description="what the network is: architecture, process, ...")
    minutes: PositiveFloat = Field(description="that it took on one core, about")
    start: str | None = Field(None, description="the network whose weights are the beginning")
    teacher: str | None = Field(None, description="the network that this one learns from")
    data: dict[str, Any] = Field(
        {"name": "mnist"}, description="its name, a key of SOURCES, and options"
    )
    split: Literal["train", "all"] = "train"
    augmentation: Augmentation | None = Augmentation()
    sampling: Literal["uniform", "poisson"] = "uniform"
    steps: PositiveInt
    batch: PositiveInt = 64
    lr: PositiveFloat = 1.5e-3
    warm_up: PositiveInt = 200
    decay: Literal["cosine", "none"] = Field("cosine", description="of the learning rate")
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = Field(0.01, ge=0.0)
    clip: float | None = Field(1.0, gt=0.0, description="the gradient's largest norm; None is any")
    ema: float = Field(0.9985, ge=0.0, lt=1.0, description="decay of the averaged weights")
    seed: int = 0
    threads: PositiveInt = Field(1, description="of the CPU: the same number gives the same bits")

    @field_validator("card")
    @classmethod
    def _card(cls, given: dict[str, Any]) -> dict[str, Any]:
        Card.model_validate(given)
        return given


def names() -> list[str]:
    """Names of the recipes that ship with the package."""
    return sorted(path.stem for path in HERE.glob("*.json"))


def read(name: str | os.PathLike[str], /, **changes: Any) -> TrainingRecipe:
    """The recipe of a name of `names()`, or of a JSON file. A file may say `like`: what it leaves out is as
    in the recipe of that name.

    changes  in place of what it says

    Raises ValueError where there is none, or a value makes no sense.
    """
    content = _content(name)
    if (like := content.pop("like", None)) is not None:
        content = _content(like) | content
    return TrainingRecipe.model_validate(content | changes)


def _content(name: str | os.PathLike[str]) -> dict[str, Any]:
    path = Path(name)
    if path.suffix != ".json":
        if str(name) not in names():
            raise ValueError(
                f"there is no recipe {str(name)!r}; use one of {', '.join(names())}, or the path of a "
                ".json file"
            )
        path = HERE / f"{name}.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"the recipe {path} cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON ({error}); restore the file") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}, not an object")
    return content
