"""The training loop: clipped gradients, averaged weights, a log, checkpoints that resume to the same bits."""

from __future__ import annotations

import csv
import io
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from .. import atomic, zoo
from ..backends import machine
from . import checkpoint, sources
from .data import Batch
from .emoji import Emoji
from .objectives import Given, objective
from .recipe import TrainingRecipe

EVERY = 100  # steps a line of the log


def rate(step: int, recipe: TrainingRecipe) -> float:
    """Learning rate: a linear warm-up, then a half cosine down to zero, or none."""
    warm = min(1.0, (step + 1) / recipe.warm_up)
    if recipe.decay == "none":
        return recipe.lr * warm
    return recipe.lr * warm * 0.5 * (1.0 + math.cos(math.pi * step / recipe.steps))


def module_of(recipe: TrainingRecipe) -> nn.Module:
    """The network that a recipe trains: with fresh weights, or those of its start.

    Raises ValueError where the start does not fit: it may lack whole submodules, which begin fresh, and no
    more.
    """
    module = zoo.build(recipe.card["architecture"])
    if recipe.start is None:
        return module
    begun = zoo.load(recipe.start).state_dict()
    own = module.state_dict()
    parts = {name.partition(".")[0] for name in begun}
    wrong = [k for k in begun if k not in own or own[k].shape != begun[k].shape]
    wrong += [k for k in own if k not in begun and k.partition(".")[0] in parts]
    if wrong:
        raise ValueError(
            f"the weights of {recipe.start!r} are no beginning for {recipe.name!r}: "
            f"{', '.join(wrong[:4])} differ; start from a network of that architecture"
        )
    module.load_state_dict(begun, strict=False)
    return module


class Trainer:
    """A training from its first step to its last.

    recipe  what is trained, and how
    device  where; the batches, times and noise are drawn on the CPU, so that they are the same anywhere
    images  in place of the recipe's data: [N, C, H, W] in [0, 1] and their classes [N] int64, or an Emoji

    The same recipe, number of threads and kind of machine give the same bits. Raises ValueError where the
    recipe cannot be trained.
    """

    def __init__(
        self,
        recipe: TrainingRecipe,
        device: torch.device | str = "cpu",
        images: tuple[Tensor, Tensor] | Emoji | None = None,
    ) -> None:
        self.recipe, self.device = recipe, torch.device(device)
        torch.set_num_threads(recipe.threads)
        torch.manual_seed(recipe.seed)
        self.generator = torch.Generator().manual_seed(recipe.seed)
        self.draw = sources.draws(recipe, images)
        # The CPU's convolutions are a quarter faster with the channels last.
        self.module = module_of(recipe).train()
        self.module.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        given = Given(recipe, self.module, self.device, self.draw, images is not None)
        self.objective = objective(given)
        if recipe.teacher is not None and "teacher" not in vars(given):
            raise ValueError(
                f"the objective {recipe.objective['name']!r} of {recipe.name!r} learns from no teacher; "
                f"leave {recipe.teacher!r} out"
            )
        self.turns = self.objective.turns()
        self.optimizers = [t.optimizer(list(t.parameters), recipe) for t in self.turns]
        self.average = AveragedModel(
            self.module, multi_avg_fn=get_ema_multi_avg_fn(recipe.ema), use_buffers=False
        )
        self.step, self.rows = 0, []  # type: tuple[int, list[dict[str, float]]]
        self.sums = [0.0] * len(self.turns)
        self.seconds = self.core_seconds = 0.0  # the second of all threads, whatever else runs

    def advance(self) -> None:
        """One step."""
        begin, core = time.perf_counter(), time.process_time()
        self.objective.before(self.step, self.average.module)
        batch = Batch(*(each.to(self.device) for each in self.draw(self.generator)))
        for i, (turn, optimizer) in enumerate(zip(self.turns, self.optimizers, strict=True)):
            for group in optimizer.param_groups:
                group["lr"] = turn.lr * rate(self.step, self.recipe)
            optimizer.zero_grad()
            loss = turn.loss(batch, self.generator)
            if loss.requires_grad:
                loss.backward()
            if self.recipe.clip is not None:
                moved = [p for group in optimizer.param_groups for p in group["params"]]
                nn.utils.clip_grad_norm_(moved, self.recipe.clip)
            optimizer.step()
            self.sums[i] += loss.item()
        self.average.update_parameters(self.module)
        self.step += 1
        self.seconds += time.perf_counter() - begin
        self.core_seconds += time.process_time() - core
        if self.step % EVERY == 0 or self.step == self.recipe.steps:
            count = (self.step - 1) % EVERY + 1
            losses = {t.name: s / count for t, s in zip(self.turns, self.sums, strict=True)}
            self.rows.append({"step": self.step, **losses, "seconds": round(self.seconds, 1)})
            self.sums = [0.0] * len(self.turns)
            if not all(math.isfinite(value) for value in losses.values()):
                raise ValueError(
                    f"the loss of {self.recipe.name!r} is {losses} at step {self.step}: it diverged; train "
                    "with a smaller --lr"
                )

    def run(
        self, out: str | os.PathLike[str], every: int = 500, stop: Callable[[], bool] | None = None
    ) -> Path | None:
        """All steps that are left; writes OUT/NAME.safetensors with its card NAME.json, and the log NAME.csv.

        out    folder, made if absent
        every  steps between two checkpoints, 1 or more; the last step's goes once the weights are there
        stop   asked after each step; where it says so a checkpoint is written and the run ends

        Returns the weights' path, None where it was stopped. Raises OSError where a file cannot be written;
        the last checkpoint stays.
        """
        out = Path(out)
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OSError(
                f"the folder {out} cannot be made ({error.strerror}); name another with --out"
            ) from error
        kept = checkpoint.path_of(out, self.recipe.name)
        bar = tqdm(total=self.recipe.steps, initial=self.step, unit="step", disable=None)
        with bar:
            while self.step < self.recipe.steps:
                self.advance()
                bar.update()
                if self.step % EVERY == 0:
                    bar.set_postfix({t.name: f"{self.rows[-1][t.name]:.4f}" for t in self.turns})
                    self.write_log(out)
                stopped = stop is not None and stop()
                if stopped or self.step % every == 0 or self.step == self.recipe.steps:
                    self.save(kept)
                if stopped:
                    return None
        self.write_log(out)
        path = out / f"{self.recipe.name}.safetensors"
        with checkpoint.writing(f"the weights {path} with their card", kept):
            zoo.save(path, self.average.module, self.card())
        kept.unlink(missing_ok=True)
        return path

    def card(self) -> dict[str, Any]:
        """What the JSON beside the weights says."""
        recipe = self.recipe.model_dump(mode="json", exclude={"card"})
        losses = {k: v for k, v in self.rows[-1].items() if k not in ("step", "seconds")}
        return {
            **self.recipe.card,
            **self.objective.after(self.step, self.average.module),
            "data": dict(sources.source(self.recipe).about),
            "training": recipe
            | {
                "steps_done": self.step,
                "seconds": round(self.seconds),
                "core_seconds": round(self.core_seconds),
                "processor": machine.processor() if self.device.type == "cpu" else str(self.device),
                **{k: round(v, 6) for k, v in losses.items()},
            },
        }

    def write_log(self, out: Path) -> None:
        """The losses so far, a mean of `EVERY` steps a line, as CSV."""
        text = io.StringIO()
        writer = csv.DictWriter(text, ["step", *(t.name for t in self.turns), "seconds"])
        writer.writeheader()
        writer.writerows(self.rows)
        path = out / f"{self.recipe.name}.csv"
        with checkpoint.writing(f"the log {path}", checkpoint.path_of(out, self.recipe.name)):
            atomic.write(path, text.getvalue().encode())

    def save(self, path: Path) -> None:
        """Writes a checkpoint to the path. Raises OSError where that fails, and leaves the one before."""
        tensors = {
            "random.generator": self.generator.get_state(),
            "random.torch": torch.get_rng_state(),
        }
        for name, module in self._modules():
            tensors |= {f"{name}.{k}": v for k, v in module.state_dict().items()}
        for i, optimizer in enumerate(self.optimizers):
            tensors |= dict(checkpoint.state_of(optimizer, f"optimizer{i}."))
        about = {
            "recipe": self.recipe.model_dump(mode="json"),
            "step": self.step,
            "rows": self.rows,
            "sums": self.sums,
            "seconds": [self.seconds, self.core_seconds],
        }
        checkpoint.write(path, tensors, about)

    def resume(self, path: Path) -> None:
        """Goes on from the checkpoint at a path. Raises ValueError where it is another's, or damaged."""
        tensors, about = checkpoint.read(path)
        own = self.recipe.model_dump(mode="json")
        if changed := [k for k in own if about["recipe"].get(k) != own[k]]:
            raise ValueError(
                f"{path} is of another recipe: {', '.join(changed)} differ; train with the same, or without "
                "--resume"
            )
        for name, module in self._modules():
            checkpoint.put(module, checkpoint.under(f"{name}.", tensors), str(path))
        for i, optimizer in enumerate(self.optimizers):
            checkpoint.put_state(optimizer, checkpoint.under(f"optimizer{i}.", tensors))
        self.generator.set_state(_bytes(tensors["random.generator"]))
        torch.set_rng_state(_bytes(tensors["random.torch"]))
        self.step, self.rows = about["step"], about["rows"]
        self.sums, (self.seconds, self.core_seconds) = about["sums"], about["seconds"]

    def _modules(self) -> list[tuple[str, nn.Module]]:
        more = self.objective.modules()
        return [("module", self.module), ("average", self.average), *more.items()]


def _bytes(state: Tensor) -> Tensor:
    return state.to(torch.uint8).contiguous()
