"""The prompts of the emoji networks, what is sampled of them, and the blocks that say what was found."""

import csv

import pytest
import torch
from optional import needs

from benchmarks import results
from benchmarks.pages.blocks import emoji as blocks
from benchmarks.runs import emoji as run
from diffusion_engine import ScoreNetwork
from diffusion_engine.evaluation.features import Described
from diffusion_engine.evaluation.pictures import Pictures
from diffusion_engine.processes import FlowMatching
from diffusion_engine.training.emoji import Emoji


def test_the_prompts_are_forty_each_and_say_nothing_twice():
    captions, paraphrases = run.prompts("captions"), run.prompts("paraphrases")
    assert len(captions) == len(paraphrases) == len(set(paraphrases.values())) == 40
    for prompt, name in paraphrases.items():
        assert not set(prompt.replace(",", "").split()) & set(name.split()), prompt
        assert prompt not in captions


def test_a_paraphrase_is_no_training_caption():
    images, categories = torch.zeros(1, 3, 8, 8), torch.zeros(1, dtype=torch.long)
    found = Emoji(images, (("red heart", "love"),), categories, ("a",))
    run.check(found, {"crimson love symbol": "red heart", "red heart": "red heart"})
    with pytest.raises(ValueError, match="love: no paraphrase"):
        run.check(found, {"love": "red heart"})
    with pytest.raises(ValueError, match="no picture is called blue heart"):
        run.check(found, {"azure love symbol": "blue heart"})


def test_names_are_trained_on_and_paraphrases_are_not():
    known = set(run.trained_on())
    captions, paraphrases = run.prompts("captions"), run.prompts("paraphrases")
    names = run.digests([*captions, *paraphrases.values()])
    assert len(known) > 10_000 and known.issuperset(names)
    assert known.isdisjoint(run.digests(paraphrases))


class Letters:
    """A text encoder: the number of letters of a prompt."""

    origin = "letters"

    def __call__(self, prompts):
        return torch.tensor([[float(len(prompt))] for prompt in prompts])


@pytest.fixture
def network():
    """Of one channel whose samples are their first noise, and the number of letters of their prompt."""
    return ScoreNetwork(
        lambda x, t, told: 0.0 * x + told[:, :, None, None], FlowMatching(), (1, 2, 2), prediction="flow",
        null=torch.zeros(1), text=Letters(),
    )  # fmt: skip


def test_a_prompt_keeps_its_seeds_however_many_samples_it_has(network):
    [case] = run.cases("captions")
    every, first = run.sampled(network, case), run.sampled(network, case, 1)
    assert len(every) == 4 * len(first) == 160
    assert torch.equal(every[::4], first)
    assert len(set(every[:, 0, 0, 0].tolist())) == 160


@pytest.fixture
def rows(network, monkeypatch, tmp_path):
    """Those of a run whose samples are near the right picture, but for every second prompt."""
    names = [*run.prompts("captions").values()]
    names += [name for name in run.prompts("paraphrases").values() if name not in names]
    torch.manual_seed(0)
    features = torch.nn.functional.normalize(torch.randn(len(names), 16).double(), dim=1)
    pictures = Pictures(features, torch.zeros(len(names), dtype=torch.long), names)
    case = None

    def seen(pictures, samples):
        own = pictures.places(list(run.prompts(case.file).values())).repeat_interleave(run.EACH)
        moved = (
            features[own]
            * torch.tensor([1.0, -1.0]).repeat_interleave(run.EACH).repeat(20)[:, None]
        )
        noise = 0.1 * torch.randn(len(own), 16, dtype=torch.double)
        return Described(torch.nn.functional.normalize(moved + noise, dim=1), torch.zeros(len(own)))

    monkeypatch.setattr(Pictures, "seen", seen)
    monkeypatch.setattr(run, "EACH", 2)
    made = []
    for part in ("captions", "paraphrases", "guidance", "calls"):
        for case in run.cases(part)[:2]:
            made += run.measured(network, "", case, pictures)
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    monkeypatch.setattr(run, "timed", lambda model, waiting: [3.0, 2.0, 4.0])
    made += [run.row(part="features", samples=9, quantity="shifted", value=0.96)]
    results.replace([*made, *run.times("")], results.EMOJI)
    with open(tmp_path / results.EMOJI) as file:
        return list(csv.DictReader(file))


def test_rows_and_blocks_say_what_was_found(rows, monkeypatch):
    needs("faiss")
    ranks = [int(row["rank"]) for row in rows if row["part"] == "paraphrases" and row["rank"]]
    assert ranks[::2] == [1] * 20 and min(ranks[1::2]) > 5
    known = {"accuracy": 0.5, "held_out": 10}
    monkeypatch.setattr(blocks, "card", lambda name: type("Card", (), {"figures": known}))
    assert (
        "| paraphrases | 20 of 40 | 20 of 40 | 0.50 ± 0.16 | 1.00 ± 0.00 |" in blocks.emoji_found()
    )
    told = " ".join(blocks.emoji_features().split())
    assert "its own picture is the nearest: shifted 96 %" in told
    assert "knows the category of 50 % of 10 held-out pictures" in told
    assert "| crimson love symbol | red heart | red heart | 1 | 0." in blocks.emoji_paraphrases()
    assert [line.split()[1] for line in blocks.emoji_guidance().splitlines()[2:4]] == ["1", "2"]
    assert blocks.emoji_calls().count("| `emoji` | 20 |") == 1
    assert "median distance to the nearest" in blocks.emoji_copies()
    told = " ".join(blocks.emoji_time().split())
    assert "takes 3.0 s where threads wait passively (the longest 4.0 s)" in told


def test_copies_are_shifted_on_white_and_blurred():
    images = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    made = run.copies(images)
    assert (made["shifted by 3 pixels"] == 255).sum() == 3 * (64 - 25)
    assert (made["shifted by 3 pixels"][..., 3:, 3:] == 0).all()
    images[..., 4, 4] = 255
    blurred = run.copies(images)["blurred"]
    assert blurred[0, 0, 4, 4] < 128 and blurred[0, 0, 4, 5] > 0
