"""Pictures from npm: what is fetched, read and said of each; what is missing or damaged is told."""

import base64
import hashlib
import io
import json
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from diffusion_engine import zoo
from diffusion_engine.training import npm, read, sources
from diffusion_engine.training.contexts import neighbours
from diffusion_engine.training.data import Augmentation
from diffusion_engine.training.emoji import CAPTIONS, SIDE, Emoji, captions, on_white
from diffusion_engine.training.trainer import Trainer

emoji = sys.modules["diffusion_engine.training.emoji"]
EMOJI = emoji.emoji.__wrapped__  # without its cache


def png(colour, size=SIDE):
    file = io.BytesIO()
    image = Image.new("RGBA", (size, size), (0, 0, 0, 0))
    image.paste(colour, (0, 0, size // 2, size))
    image.save(file, "PNG")
    return file.getvalue()


def archive(path, files):
    with tarfile.open(path, "w:gz") as made:
        for name, content in files.items():
            about = tarfile.TarInfo(f"package/{name}")
            about.size = len(content)
            made.addfile(about, io.BytesIO(content))


def digest(content):
    return base64.b64encode(hashlib.sha512(content).digest()).decode()


def entry(code, name, category, order, **more):
    return {
        "unified": code, "name": name, "short_name": name.lower().replace(" ", "_"), "category": category,
        "sort_order": order, "has_img_google": True, "image": f"{code.lower()}.png", **more,
    }  # fmt: skip


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """A cache with two small packages: a heart, a hand in two tones, a tone alone."""
    monkeypatch.setenv("DIFFUSION_ENGINE_CACHE", str(tmp_path))
    (tmp_path / "npm").mkdir()
    tones = {key: {"image": f"hand-{key}.png"} for key in emoji.TONES}
    about = [
        entry("1F44B", "WAVING HAND SIGN", "People & Body", 2, skin_variations=tones),
        entry("2764-FE0F", "HEAVY BLACK HEART", "Smileys & Emotion", 1),
        entry("1F3FB", "EMOJI MODIFIER", "Component", 3),
    ]
    files = {f"img/google/64/{one['image']}": png("red") for one in about}
    files |= {f"img/google/64/hand-{key}.png": png("blue") for key in emoji.TONES}
    files["emoji.json"] = json.dumps(about).encode()
    words = {
        "\u2764\ufe0f": ["red_heart", "love", "valentines"],
        "\U0001f44b": ["waving_hand", "hi"],
    }
    paths = [tmp_path / "npm" / "{}-{}.tgz".format(*of[:2]) for of in (emoji.PICTURES, emoji.WORDS)]
    archive(paths[0], files)
    archive(paths[1], {"dist/emoji-en-US.json": json.dumps(words).encode()})
    for name, path in zip(("PICTURES", "WORDS"), paths, strict=True):
        monkeypatch.setattr(emoji, name, (*getattr(emoji, name)[:2], digest(path.read_bytes())))
    return paths


def test_pictures_and_their_captions(kept, monkeypatch):
    monkeypatch.setattr(emoji, "THINNED", 1)
    found = EMOJI()
    assert found.names == ["red heart", "waving hand", "waving hand, medium light skin tone"]
    assert found.labels == ("People & Body", "Smileys & Emotion")
    assert found.categories.tolist() == [1, 0, 0]
    assert {len(each) for each in found.captions} == {CAPTIONS}
    assert (
        found.captions[0][:2] == ("red heart", "a red heart")
        and "heavy black heart" in found.captions[0]
    )
    assert found.images.shape == (3, 3, SIDE, SIDE)
    assert found.images[0, :, 5, 5].tolist() == [255, 0, 0]
    assert found.images[0, :, 5, -5].tolist() == [255, 255, 255]  # transparent there


def test_a_picture_of_another_size_is_brought_to_ours():
    assert on_white(png("red", 2 * SIDE)).shape == (3, SIDE, SIDE)


def test_captions_repeat_and_never_lose_the_name():
    made = captions("pizza", "pizza", ("cheese", "slice", "italy", ":D"))
    assert made == captions("pizza", "pizza", ("cheese", "slice", "italy", ":D"))
    assert made[0] == "pizza" and len(made) == CAPTIONS and not any(":D" in each for each in made)
    assert set(captions("egg")) == {"egg", "an egg", "emoji of an egg"}


def test_without_npm_the_command_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("DIFFUSION_ENGINE_CACHE", str(tmp_path))
    monkeypatch.setattr(npm.shutil, "which", lambda name: None)
    with pytest.raises(
        ValueError, match=r"there is no npm; install Node.js, or put what `npm pack"
    ):
        EMOJI()
    assert not list(tmp_path.iterdir())


def test_what_npm_says_is_told_and_nothing_half_is_left(tmp_path, monkeypatch):
    monkeypatch.setenv("DIFFUSION_ENGINE_CACHE", str(tmp_path))
    monkeypatch.setattr(npm.shutil, "which", lambda name: name)

    def refuse(command, cwd, **how):
        (tmp_path / "npm" / cwd / "half.tgz.part").touch()
        raise subprocess.CalledProcessError(1, command, stderr="npm error 404 Not Found")

    monkeypatch.setattr(npm.subprocess, "run", refuse)
    with pytest.raises(ValueError, match=r"could not fetch .*404 Not Found.*by hand"):
        npm.package("none", "1.0.0", "")
    assert not list((tmp_path / "npm").iterdir())


def test_what_npm_wrote_is_kept_where_it_is_what_was_meant(tmp_path, monkeypatch):
    monkeypatch.setenv("DIFFUSION_ENGINE_CACHE", str(tmp_path))
    monkeypatch.setattr(npm.shutil, "which", lambda name: name)
    archive(tmp_path / "some.tgz", {"a": b"1"})
    content, asked = (tmp_path / "some.tgz").read_bytes(), []

    def pack(command, cwd, **how):
        asked.append(command)
        (Path(cwd) / "any-name.tgz").write_bytes(content)

    monkeypatch.setattr(npm.subprocess, "run", pack)
    paths = {npm.package("some", "1.0.0", digest(content)) for _ in range(2)}
    assert len(asked) == 1 and "some@1.0.0" in asked[0]
    assert npm.read(paths.pop(), ["a"]) == {"a": b"1"}
    with pytest.raises(ValueError, match=r"is damaged, or another file .*; delete it"):
        npm.package("some", "1.0.0", digest(b"another"))


def test_a_damaged_package_is_named(kept):
    content = bytearray(kept[0].read_bytes())
    content[len(content) // 2] ^= 1
    kept[0].write_bytes(content)
    with pytest.raises(ValueError, match=r"is damaged, .*; delete it, and it is fetched again"):
        EMOJI()
    with pytest.raises(ValueError, match=r"lacks other.json"):
        npm.read(kept[1], ["other.json"])


def test_batches_are_of_the_pictures_and_of_a_caption_of_each():
    table = torch.arange(6.0)[:, None]
    rows = torch.tensor([[0, 1, 2], [3, 4, 5]])
    images = torch.zeros(2, 1, 4, 4)
    images[1] = 1.0
    draw = sources.Conditioned(images, table, rows, 64)
    x, y = draw(torch.Generator().manual_seed(0))
    assert set(y[x[:, 0, 0, 0] == 0.0].flatten().tolist()) == {0.0, 1.0, 2.0}
    assert set(y[x[:, 0, 0, 0] == 1.0].flatten().tolist()) == {3.0, 4.0, 5.0}


def test_a_split_leaves_every_fifth_out(dots):
    recipe = read("emoji_autoencoder", split="train")
    drawn = sources.draws(recipe).x0
    kept = [i for i in range(len(dots.images)) if i % 5 != 4]
    torch.testing.assert_close(drawn, 2.0 * (dots.images[kept] / 255.0) - 1.0)
    images, categories = sources.held_out(recipe)
    assert categories.tolist() == dots.categories[4::5].tolist()
    torch.testing.assert_close(images, dots.images[4::5] / 255.0)
    assert sources.held_out(read("emoji_autoencoder")) is None


def test_what_is_no_data_or_condition_is_named():
    with pytest.raises(ValueError, match="data='mnits'"):
        sources.draws(read("flow", data={"name": "mnits"}))
    with pytest.raises(ValueError, match="condition='captions'"):
        sources.draws(read("emoji_autoencoder", data={"name": "emoji", "condition": "captions"}))
    with pytest.raises(ValueError, match=r"data 'emoji'.*conditions.*condition"):
        sources.draws(read("emoji_autoencoder", data={"name": "emoji", "conditions": "caption"}))
    with pytest.raises(ValueError, match="sampling='poisson': pictures of emoji are drawn by"):
        sources.draws(read("emoji_autoencoder", sampling="poisson"))


def test_latents_are_those_of_the_card_s_autoencoder(dots):
    recipe = read("emoji", data={"name": "emoji"})
    drawn, module, about = (
        sources.draws(recipe), zoo.load("emoji_autoencoder"), zoo.card("emoji_autoencoder")
    )  # fmt: skip
    with torch.no_grad():
        z = module.encode(2.0 * (dots.images[:2] / 255.0) - 1.0)
    torch.testing.assert_close(
        drawn.x0[:2], (z - about.shift) * about.scale_factor, rtol=1e-4, atol=1e-4
    )
    with pytest.raises(ValueError, match=r"'emoji' learns latents.*give it augmentation=None"):
        sources.draws(read("emoji", data={"name": "emoji"}, augmentation=Augmentation()))
    other = recipe.card | {"decoder": recipe.card["decoder"] | {"sha256": "00"}}
    with pytest.raises(ValueError, match="with sha256=00"):
        sources.draws(read("emoji", data={"name": "emoji"}, card=other))


def test_contexts_are_of_the_shape_that_the_card_says(tmp_path, monkeypatch):
    monkeypatch.setattr(sources.contexts, "encoder", lambda card: Angles())
    made = torch.zeros(9, 384), torch.zeros(24, 8, 4).long()
    monkeypatch.setattr(
        sources.contexts, "neighbours", lambda found, text, k: (made[0], made[1][..., :k])
    )
    assert len(sources.draws(read("emoji_retrieval")).x0) == 24
    with pytest.raises(
        ValueError, match=r"in tokens \[3, 384\], and its card has context=\(4, 384"
    ):
        sources.draws(
            read("emoji_retrieval", data={"name": "emoji", "condition": "neighbours", "k": 3})
        )


def test_the_scale_of_latents_is_that_of_pictures_from_black_to_white(drawings):
    """MNIST's images are kept from 0 to 1, and shown to networks from -1 to 1."""
    codec = {"name": "autoencoder", "channels": [4, 4], "latent": 2, "blocks": 1, "inputs": 1}
    recipe = read(
        "emoji_autoencoder", data={"name": "mnist"}, card={"architecture": codec}, steps=1, batch=2
    )
    trainer = Trainer(recipe)
    with torch.no_grad():
        z = trainer.module.encode(trainer.draw.x0)
    found = trainer.objective.after(1, trainer.module)
    assert float(trainer.draw.x0.min()) == -1.0
    assert found["scale_factor"] == pytest.approx(1.0 / float(z.std()), rel=1e-3)
    assert found["shift"] == pytest.approx(float(z.mean()), abs=1e-4)


@dataclass(frozen=True)
class Angles:
    """Embeddings on a circle, of captions that are degrees and perhaps a letter, which is one more."""

    tokens: int = 16
    origin: str = "text/angles"

    def chunks(self, names):
        degrees = torch.tensor([float(name.rstrip("b")) for name in names])
        angle = torch.deg2rad(degrees + torch.tensor([name.endswith("b") for name in names]))
        yield 2.0**0.5 * torch.stack([angle.cos(), angle.sin()], dim=1)[:, None]


def test_neighbours_with_the_picture_and_without(tmp_path, monkeypatch):
    monkeypatch.setenv("DIFFUSION_ENGINE_CACHE", str(tmp_path))
    degrees = (0, 10, 25, 170)
    said = tuple((str(d), f"{d}b") for d in degrees)
    found = Emoji(torch.zeros(4, 3, SIDE, SIDE), said, torch.zeros(4), ("a",))
    table, rows = neighbours(found, Angles(), k=2)
    assert table.dtype == torch.float16 and list(rows.shape) == [4, 16, 2]
    contexts = table.float()[rows]
    turned = torch.rad2deg(torch.atan2(contexts[..., 1], contexts[..., 0])).round()
    there = contexts.any(-1)
    name = (turned / 5.0).floor() * 5.0  # a caption of the same picture is a degree off
    orders = {0: ([0, 10], [10, 25]), 1: ([10, 0], [0, 25]), 3: ([170, 25], [25, 10])}
    for i, either in orders.items():
        for c in range(16):
            kept = name[i, c][there[i, c]].tolist()
            assert kept == either[c % 2][: len(kept)] and len(kept) == 1 + c // 2 % 2
    assert not there[:, :2, 1].any()
    apart = (turned - name)[there]
    assert set(apart.tolist()) == {0.0, 1.0} and 0.1 < apart.mean() < 0.4  # a half of a half
    np.testing.assert_allclose(contexts[there].square().mean(-1), 1.0, rtol=2e-3)
    again = neighbours(found, Angles(), k=2)
    assert torch.equal(again[0], table) and torch.equal(again[1], rows)
