"""Training of the networks that ship with the package: recipes, objectives and one trainer."""

from .recipe import TrainingRecipe, names, read
from .trainer import Trainer

__all__ = ["Trainer", "TrainingRecipe", "names", "read"]
