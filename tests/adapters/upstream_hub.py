"""What diffusers' pipeline tests load from a hub, made from configurations: tiny tokenizers, a text encoder's
configuration, pipelines."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import diffusers
import transformers

CLIP = [*(f"{chr(c)}{end}" for end in ("", "</w>") for c in range(33, 127))]


def clip() -> Any:
    """Of single characters; its end is the largest id, as text encoders look for it."""
    words = ["!<pad>", *CLIP, "<|startoftext|>", "<|endoftext|>"]
    ids = {word: i for i, word in enumerate(words)}
    return transformers.CLIPTokenizer(vocab=ids, merges=[], model_max_length=77)


def t5() -> Any:
    """Of single characters and what begins a word."""
    pieces = ["<pad>", "</s>", "<unk>", "▁", *(chr(c) for c in range(33, 127))]
    scores = [(piece, 0.0 if i < 3 else -2.0) for i, piece in enumerate(pieces)]
    return transformers.T5Tokenizer(vocab=scores, extra_ids=0, model_max_length=512)


def t5_config() -> Any:
    return transformers.T5Config(
        vocab_size=1103,
        d_model=32,
        d_kv=8,
        d_ff=37,
        num_layers=5,
        num_heads=4,
        decoder_start_token_id=0,
    )


def pipeline(name: str, module: str, kind: str) -> Callable[[], Any]:
    """Of the components that the tests of a class have, with a scheduler of the hub's pipelines."""

    def make() -> Any:
        tests = getattr(importlib.import_module(f"tests.pipelines.{module}"), kind)
        parts = tests().get_dummy_components()
        if name == "StableDiffusionPipeline":
            parts["scheduler"] = diffusers.PNDMScheduler(skip_prk_steps=True)
        return getattr(diffusers, name)(**parts)

    return make


STABLE = pipeline(
    "StableDiffusionPipeline",
    "stable_diffusion.test_stable_diffusion",
    "StableDiffusionPipelineTesterConfig",
)
XL = pipeline(
    "StableDiffusionXLPipeline",
    "stable_diffusion_xl.test_stable_diffusion_xl",
    "StableDiffusionXLPipelineFastTests",
)
# class -> name on the hub -> what makes it
HUB: dict[type, dict[str, Callable[[], Any]]] = {
    transformers.CLIPTokenizer: {"hf-internal-testing/tiny-random-clip": clip},
    transformers.AutoTokenizer: {"hf-internal-testing/tiny-random-t5": t5},
    transformers.AutoConfig: {"hf-internal-testing/tiny-random-t5": t5_config},
    diffusers.DiffusionPipeline: {
        "hf-internal-testing/tiny-stable-diffusion-torch": STABLE,
        "hf-internal-testing/tiny-stable-diffusion-xl-pipe": XL,
    },
}


@contextmanager
def made() -> Iterator[None]:
    """Names of the hub are made here while it lasts; from_pretrained of anything else is as ever."""
    own = {kind: kind.from_pretrained.__func__ for kind in HUB}

    def standing(kind: type) -> Any:
        def from_pretrained(cls: type, name: Any, *args: Any, **kwargs: Any) -> Any:
            make = HUB[kind].get(str(name))
            if make is None:
                return own[kind](cls, name, *args, **kwargs)
            return make()

        return classmethod(from_pretrained)

    patches = [mock.patch.object(kind, "from_pretrained", standing(kind)) for kind in HUB]
    for patch in patches:
        patch.start()
    try:
        yield
    finally:
        for patch in patches:
            patch.stop()
