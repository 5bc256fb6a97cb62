"""Pictures with captions: Noto's emoji, from npm packages that carry them."""

from __future__ import annotations

import io
import json
import random
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from . import npm

PICTURES = (
    "emoji-datasource-google",
    "16.0.0",
    "ZRexfzs7MVoLnmzZmNsO4TKhnAJp5D++Vm6PpUpH/jEQQlemp3l88CjZ+DoZ2faM9R4QxZkOPJCoT8DlPhfQ3A==",
)
WORDS = (
    "emojilib",
    "4.0.3",
    "KbWiYre9aRSaPbHrHZIz9zmoM+21LAsK1VFJtnTh1VCtWE/rNMDviGhQTmselFl95dhqtGlY22iH0leG5BuW0g==",
)
SIDE = 64  # pixels
CAPTIONS = 8  # of each picture; the first is its name
COMMON = 30  # emoji that a keyword may have, to be in captions of one
THINNED = 3  # of so many emoji that have skin tones one is there in a tone too, the tones in turn
TONES = {
    "1F3FB": "light", "1F3FC": "medium light", "1F3FD": "medium", "1F3FE": "medium dark", "1F3FF": "dark",
}  # fmt: skip
SOURCE = {
    "name": "Noto Emoji in the npm package emoji-datasource-google 16.0.0, 64x64 on white, skin tones "
    "thinned; names and keywords of emojilib 4.0.3",
    "licence": "Apache-2.0 (pictures, Google: Noto Emoji), MIT (emoji-data by Cal Henderson, emojilib)",
    "source": "https://github.com/iamcal/emoji-data",
}


@dataclass(frozen=True, eq=False)
class Emoji:
    """Pictures and what is said of them.

    images      [N, 3, 64, 64] uint8, on white
    captions    of each picture CAPTIONS texts, the first of which is its name; others may repeat it
    categories  [N] int64, places in `labels`
    """

    images: Tensor
    captions: tuple[tuple[str, ...], ...]
    categories: Tensor
    labels: tuple[str, ...]

    @property
    def names(self) -> list[str]:
        """One a picture, all different."""
        return [each[0] for each in self.captions]


@cache
def emoji() -> Emoji:
    """All pictures, in the order of their package; fetched with npm where they are not kept yet.

    Raises ValueError where that cannot be.
    """
    pictures, words = npm.package(*PICTURES), npm.package(*WORDS)
    about = json.loads(npm.read(pictures, ["emoji.json"])["emoji.json"])
    known = json.loads(npm.read(words, ["dist/emoji-en-US.json"])["dist/emoji-en-US.json"])
    found = list(_listed(about, known))
    paths = [f"img/google/64/{one['image']}" for one in found]
    content = npm.read(pictures, paths)
    labels = tuple(sorted({one["category"] for one in found}))
    return Emoji(
        torch.from_numpy(np.stack([on_white(content[path]) for path in paths])),
        tuple(one["captions"] for one in found),
        torch.tensor([labels.index(one["category"]) for one in found]),
        labels,
    )


def on_white(content: bytes) -> np.ndarray:
    """The picture of a PNG [3, 64, 64] uint8, its transparent parts white."""
    image = Image.open(io.BytesIO(content)).convert("RGBA")
    sheet = Image.new("RGBA", image.size, "white")
    sheet.alpha_composite(image)
    if sheet.size != (SIDE, SIDE):
        sheet = sheet.resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    return np.asarray(sheet.convert("RGB")).transpose(2, 0, 1).copy()


def _listed(
    about: Sequence[dict[str, Any]], known: dict[str, list[str]]
) -> Iterator[dict[str, Any]]:
    """File, category and captions of every picture that is used."""
    said = {_text(one["unified"]): known.get(_text(one["unified"]), []) for one in about}
    count = Counter(_words(word) for words in said.values() for word in words[1:])
    names, toned = set(), 0
    for one in sorted(about, key=lambda one: one["sort_order"]):
        if not one["has_img_google"] or one["category"] == "Component":
            continue
        words = said[_text(one["unified"])] or [one["short_name"]]
        name, *keywords = [_words(word) for word in words]
        if one["category"] == "Flags" and name.startswith("flag "):
            name = f"flag of {name[5:]}"
        if name in names:
            name = f"{name}, {_words(one['name'])}"
        names.add(name)
        short = _words(one["short_name"])
        rare = [word for word in keywords if count[word] <= COMMON]
        yield {**one, "captions": captions(name, short, rare)}
        variations = one.get("skin_variations", {})
        single = {TONES[key]: of for key, of in variations.items() if key in TONES}
        if single:
            toned += 1
            if toned % THINNED == 0:
                tone = tuple(TONES.values())[toned // THINNED % len(TONES)]
                image = single[tone]["image"]
                yield {**one, "image": image, "captions": captions(f"{name}, {tone} skin tone")}


def captions(name: str, short: str = "", keywords: Sequence[str] = ()) -> tuple[str, ...]:
    """CAPTIONS texts of a picture: its name, with an article and with keywords, and keywords alone."""
    draw = random.Random(name)
    known = [
        w for w in dict.fromkeys(keywords) if w != name and re.fullmatch(r"[a-z][a-z '-]{2,}", w)
    ]
    article = "an" if name[:1] in "aeiou" else "a"
    made = [name, f"{article} {name}", f"emoji of {article} {name}"]
    if short not in ("", name):
        made.append(short)
    for _ in range(2 if known else 0):
        made += [f"{name}, {draw.choice(known)}"]
    while len(known) > 1 and len(made) < CAPTIONS:
        made.append(" ".join(draw.sample(known, min(len(known), 3))))
    return tuple((made * CAPTIONS)[:CAPTIONS])


def _text(unified: str) -> str:
    return "".join(chr(int(code, 16)) for code in unified.split("-"))


def _words(text: str) -> str:
    return re.sub(r"[\s_]+", " ", text.replace("-", " ")).strip().lower()
