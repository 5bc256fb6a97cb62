"""The trainer: every recipe trains, repeats and resumes to the same bits; what is wrong is said."""

import builtins
import csv
import json
from pathlib import Path

import pytest
import safetensors.torch
import torch

from diffusion_engine import atomic, zoo
from diffusion_engine.training import Trainer, checkpoint, names, read
from diffusion_engine.training.trainer import module_of, rate

SMALL = {"batch": 8, "steps": 20, "warm_up": 5}
TINY = {"name": "unet", "channels": [8, 8, 32], "emb": 16, "fastest": 100.0}


def tiny(**changes):
    recipe = read("flow", **SMALL)
    return read("flow", **(SMALL | {"card": recipe.card | {"architecture": TINY}} | changes))


@pytest.mark.parametrize("name", names())
def test_every_recipe_trains_and_resumes_to_the_same_bits(name, tmp_path):
    recipe = read(name, **SMALL)
    if recipe.objective["name"] == "private":
        pytest.importorskip("opacus")
    trainer, kept = Trainer(recipe), checkpoint.path_of(tmp_path / "parts", name)
    for _ in range(11):
        trainer.advance()
    kept.parent.mkdir()
    trainer.save(kept)
    whole = trainer.run(tmp_path / "whole")
    again = Trainer(recipe)
    again.resume(kept)
    assert again.step == 11
    path = again.run(tmp_path / "parts")
    assert path.read_bytes() == whole.read_bytes()
    assert sorted(file.name for file in path.parent.iterdir()) == [
        f"{name}.csv",
        f"{name}.json",
        f"{name}.safetensors",
    ]
    known = zoo.config(path)
    assert known["training"]["steps_done"] == 20
    assert known["training"]["objective"] == recipe.objective
    assert not zoo.load(path).training


def test_training_lowers_the_loss(tmp_path):
    Trainer(tiny(steps=300, lr=0.01)).run(tmp_path)
    with open(tmp_path / "flow.csv") as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["100", "200", "300"]
    assert float(rows[2]["loss"]) < 0.7 * float(rows[0]["loss"])


def test_another_seed_is_another_network(tmp_path):
    first, second = (Trainer(tiny(seed=seed)).run(tmp_path / str(seed)) for seed in (0, 1))
    assert first.read_bytes() != second.read_bytes()


def test_the_average_follows_the_network():
    trainer = Trainer(tiny(ema=0.75))
    means = trainer.module.stem.weight.detach().clone()
    for step in range(3):
        trainer.advance()
        now = trainer.module.stem.weight.detach()
        means = now.clone() if step == 0 else 0.75 * means + 0.25 * now
    torch.testing.assert_close(trainer.average.module.stem.weight, means, rtol=1e-5, atol=1e-7)


def test_rate():
    recipe = tiny(steps=100, warm_up=10, lr=0.1)
    assert rate(0, recipe) == pytest.approx(0.01)
    assert rate(50, recipe) == pytest.approx(0.05)
    assert rate(99, recipe) < 1e-4
    assert rate(99, tiny(steps=100, warm_up=10, lr=0.1, decay="none")) == 0.1


def test_a_full_disk_keeps_the_checkpoint_before(tmp_path, monkeypatch):
    trainer = Trainer(tiny())
    trainer.advance()
    path = checkpoint.path_of(tmp_path, "flow")
    trainer.save(path)
    before = path.read_bytes()
    trainer.advance()

    def full(file, mode="r", *args, **options):
        if "w" in mode:
            Path(file).write_bytes(b"half")
            raise OSError(28, "No space left on device")
        return builtins.open(file, mode, *args, **options)

    monkeypatch.setattr(atomic, "open", full, raising=False)
    with pytest.raises(
        OSError, match=r"could not be written \(No space left .* is whole\. Make room"
    ):
        trainer.save(path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("name", ["flow.csv", "flow.safetensors", "flow.json"])
def test_a_full_disk_at_the_end_costs_no_step(name, tmp_path, monkeypatch):
    recipe = tiny(steps=3)

    def full(file, mode="r", *args, **options):
        if Path(file).name == f"{name}.part":
            raise OSError(28, "No space left on device")
        return builtins.open(file, mode, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(atomic, "open", full, raising=False)
        with pytest.raises(OSError, match=r"could not be written \(No space left .* --resume"):
            Trainer(recipe).run(tmp_path)
    again = Trainer(recipe)
    again.resume(checkpoint.path_of(tmp_path, "flow"))
    assert again.step == 3
    whole = Trainer(recipe).run(tmp_path / "whole")
    assert again.run(tmp_path).read_bytes() == whole.read_bytes()
    assert len(list(tmp_path.glob("flow*"))) == 3


def test_what_is_no_checkpoint_of_this_training(tmp_path):
    trainer = Trainer(tiny())
    with pytest.raises(ValueError, match=r"there is no checkpoint .* to resume"):
        trainer.resume(tmp_path / "none.safetensors")
    path = tmp_path / "one.safetensors"
    trainer.save(path)
    with pytest.raises(ValueError, match="is of another recipe: lr differ"):
        Trainer(tiny(lr=0.5)).resume(path)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ValueError, match="is no checkpoint of a training"):
        trainer.resume(path)
    path.write_bytes(safetensors.torch.save({"x": torch.zeros(1)}))
    with pytest.raises(ValueError, match="its format is None"):
        trainer.resume(path)


def test_a_checkpoint_of_another_architecture(tmp_path):
    trainer, path = Trainer(tiny()), tmp_path / "one.safetensors"
    trainer.save(path)
    tensors, about = checkpoint.read(path)
    tensors["module.stem.weight"] = torch.zeros(3)
    checkpoint.write(path, tensors, about)
    with pytest.raises(
        ValueError, match=r"stem\.weight differ; it is the checkpoint of another arch"
    ):
        trainer.resume(path)


def test_a_start_of_another_architecture():
    with pytest.raises(ValueError, match="the weights of 'digits' are no beginning for 'flow'"):
        module_of(tiny(start="digits"))


def test_a_loss_that_is_not_finite_ends_the_training(tmp_path):
    with pytest.raises(ValueError, match="it diverged; train with a smaller --lr"):
        Trainer(tiny(lr=1e30, clip=None)).run(tmp_path)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"objective": {"name": "magic"}}, "objective='magic'"),
        ({"objective": {"name": "denoising", "drip": 0.1}}, "takes no drip; did you mean drop"),
        ({"step": 3}, "has no step; did you mean steps"),
        ({"steps": 0}, "steps=0"),
        ({"name": "../x"}, "name="),
    ],
)
def test_a_recipe_that_makes_no_sense(changes, message):
    with pytest.raises(ValueError, match=message):
        Trainer(read("flow", **changes))


def test_recipes_of_files(tmp_path):
    with pytest.raises(ValueError, match="there is no recipe 'flwo'; use one of"):
        read("flwo")
    path = tmp_path / "mine.json"
    with pytest.raises(ValueError, match="cannot be read"):
        read(path)
    path.write_text("[1]")
    with pytest.raises(ValueError, match="holds a list"):
        read(path)
    path.write_text(json.dumps(tiny().model_dump(mode="json")))
    assert read(path) == tiny()


def test_a_recipe_like_another_differs_in_what_it_says():
    long, emoji = read("emoji_long"), read("emoji")
    assert long.steps > emoji.steps and long.card == emoji.card
    assert read("emoji_long", name="emoji", steps=emoji.steps, minutes=emoji.minutes) == emoji


# These were trained by the loop before this one, which had the same settings.
EARLIER = ("digits", "digits_genie")


@pytest.mark.parametrize("name", sorted(set(names()) & set(zoo.names()) - set(EARLIER)))
def test_the_shipped_weights_are_of_the_shipped_recipe(name):
    recipe, card = read(name), zoo.config(name)
    done = {"data": {"name": "mnist"}} | card["training"]  # which was the only one at first
    assert done["steps_done"] == recipe.steps
    asked = recipe.model_dump(mode="json", exclude={"card", "minutes"})
    assert {key: done[key] for key in asked} == asked
    for key in ("architecture", "process", "prediction", "time", "shape"):
        assert card.get(key) == recipe.card.get(key)
