"""The benchmarks of bfloat16 and of providers: what they compute, and who is left out."""

import math
from types import SimpleNamespace

import pytest
import torch

from benchmarks import results
from benchmarks.agreement import Disagreement
from benchmarks.ddim_run import linear
from benchmarks.pages.blocks import half as blocks
from benchmarks.pages.blocks import native as native_blocks
from benchmarks.pages.blocks import providers as provider_blocks
from benchmarks.runs import amx, classifier, engine, providers, quality
from benchmarks.runs.native import contenders, speed
from benchmarks.runs.native.cases import Case
from benchmarks.runs.workloads import Workload
from diffusion_engine.training import data

CPU = torch.device("cpu")


class Tiny(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first = torch.nn.Conv2d(3, 32, 3, padding=1)
        self.second, self.last = torch.nn.Conv2d(32, 32, 1), torch.nn.Conv2d(32, 3, 1)

    def forward(self, x, t):
        level = (t.reshape(-1, 1, 1, 1) / 1000.0).to(x.dtype)
        return self.last(self.second(torch.nn.functional.silu(self.first(x) + level)))


WORKLOAD = Workload(Tiny, (3, 8, 8), linear, {"cpu": (1,)})


@pytest.fixture
def tiny(monkeypatch):
    torch.manual_seed(0)
    module = Tiny().eval()
    for where in (providers, amx):
        monkeypatch.setattr(where, "NETWORKS", {"W1": WORKLOAD})
        monkeypatch.setattr(where, "seeded", lambda name: module)
    return module


def trajectories(module, steps=3, **more):
    run = WORKLOAD.ddim_run(module, 4, steps, CPU, torch.float32)
    network = engine.score_network(run, run.module)
    return quality.Trajectories(network, run.noise, 2, steps=steps, **more)


def test_psnr_is_that_of_the_range():
    zeros = torch.zeros(3, 4)
    assert quality.psnr(zeros + 0.02, zeros.double()) == pytest.approx(40.0)  # 20 log10(2 / 0.02)
    assert quality.psnr(zeros, zeros.double()) == math.inf


def test_trajectories_are_held_against_float32(tiny):
    case = trajectories(tiny, given={"condition": None}, label=None)
    ways = {name: quality.WAYS[name] for name in ("torch", "torch:bf16")}
    plain, half = quality.compare("W1", case, ways)
    assert plain["psnr_db"] > half["psnr_db"] + 30.0 and 100.0 * plain["largest"] < half["largest"]
    assert (half["samples"], half["steps"], half["changed"]) == (4, 3, None)


def test_labels_that_changed_are_counted(monkeypatch):
    monkeypatch.setattr(classifier, "trained", lambda: (None, 0.9))
    case = SimpleNamespace(
        steps=3,
        options={"guidance": 2.0},
        given={"condition": [0, 1, 2, 3]},
        label=lambda x: x[:, 0].long(),
    )
    want = torch.tensor([[0.0], [1.0], [2.0], [2.0]], dtype=torch.float64)
    found = torch.tensor([[0.0], [1.0], [3.0], [2.0]])
    row = quality.row("digits", "torch", quality.WAYS["torch"], case, found, want)
    assert (row["changed"], row["as_asked"], row["accuracy"]) == (0.25, 0.5, 0.9)
    assert row["largest"] == 1.0


def test_who_cannot_run_is_left_out(tiny, capsys):
    case = trajectories(tiny)
    assert not list(quality.compare("W1", case, {"nobody": quality.Way("abacus")}))
    assert "nobody is left out of W1: executor='abacus'" in capsys.readouterr().err


def test_the_classifier_tells_images_apart(monkeypatch):
    labels = torch.arange(10).repeat(40)
    images = torch.zeros(400, 1, 32, 32)
    for i, label in enumerate(labels):
        images[i, 0, 3 + 2 * label : 8 + 2 * label, 8:24] = 1.0
    monkeypatch.setattr(data, "mnist", lambda: (images, labels))
    monkeypatch.setattr(classifier, "HELD_OUT", 100)
    state = torch.get_rng_state()
    network, accuracy = classifier.trained.__wrapped__(epochs=6)
    assert accuracy > 0.5  # a guess is right of a tenth
    assert classifier.labelled(network, 2.0 * images[:10] - 1.0).shape == (10,)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_price_of_instructions():
    row = amx.priced({"dots": 1000, "loads": 1500, "stores": 5}, wanted=4_096_000)
    assert row["useful"] == pytest.approx(0.5) and row["done"] == pytest.approx(8.192e-3)
    assert row["ms"] == pytest.approx(1000 * 16 / 4e9 * 1e3)
    rather = amx.priced({"dots": 1000, "loads": 3000, "stores": 5}, wanted=4_096_000)
    assert rather["ms"] == pytest.approx(3000 * 8 / 4e9 * 1e3)


def test_instructions_of_a_call_are_counted(tiny):
    row = amx.counted(Case("W1", 2))
    wanted = 2 * 64 * 32 * 32  # the middle convolution: three channels in or out are float32
    assert row["wanted"] == pytest.approx(wanted * 1e-9)
    assert row["dots"] * amx.MULTIPLICATIONS >= wanted
    assert row["loads"] > 0 and row["stores"] > 0 and 0.0 < row["useful"] <= 1.0


def test_rows_of_a_batch_begin_again(tiny):
    run = WORKLOAD.ddim_run(tiny, 2, 3, CPU, torch.float32)
    sampler = engine.sampler(run, run.module)
    turn = providers.Rows("eager", sampler, sampler.plan(), 2)
    said = turn.ask("call", {"seconds": 10.0, "least": 2, "most": 9})
    assert len(said["seconds"]) == 9 and turn.batch.live


def test_executors_are_timed_side_by_side(tiny):
    rows = list(providers.compare(Case("W1", 2), ("eager", "native"), "float32", 1))
    assert [row["executor"] for row in rows] == ["eager", "native"]
    assert all(row["ms"] > 0.0 and row["error"] < 1e-3 for row in rows)
    assert tuple(rows[0]) == results.PROVIDER_KEYS


def test_samples_of_something_else_are_not_timed():
    want = torch.ones(2, dtype=torch.float64)
    assert providers.agreeing("eager", torch.ones(2), want, "float32") == 0.0
    with pytest.raises(Disagreement, match=r"native: its samples are off by 0\.5"):
        providers.agreeing("native", torch.tensor([1.0, 0.5]), want, "float32")


def worker(contender, **said):
    answers = {"call": 1e-6, "version": "1"} | said
    made = SimpleNamespace(contender=contender, threads=1, waiting="", ask=lambda **_: answers)
    return Hashable(made)


class Hashable(SimpleNamespace):
    __hash__ = object.__hash__

    def __init__(self, made):
        super().__init__(**vars(made))


def test_bfloat16_of_peers_is_timed_and_said(capsys):
    case = Case("W1", 1)
    assert not list(speed.compare(case, [worker("openvino:bf16", call=0.01, run=0.3)], 1, []))
    assert not capsys.readouterr().err
    assert not list(speed.compare(case, [worker("openvino:bf16", call=0.1)], 1, []))
    said = "openvino:bf16: its call of W1-1 is off by 0.1, which its row says"
    assert said in capsys.readouterr().err
    for name, off in (("openvino", 0.01), ("ours:native-bf16", 0.1)):
        with pytest.raises(Disagreement, match=rf"{name}: its call of W1-1 is off by {off}"):
            list(speed.compare(case, [worker(name, call=off)], 1, []))


def test_bfloat16_is_named_in_rows():
    assert {n for n, c in contenders.CONTENDERS.items() if c.dtype == torch.bfloat16} == {
        "torch:bf16", "openvino:bf16", "ours:native-bf16",
    }  # fmt: skip
    assert contenders.dtype_said("torch:bf16") == "bfloat16" and not contenders.dtype_said("torch")


def made_rows(kind):
    def row(**known):
        return results.row(
            CPU, results.NATIVE_KEYS, part="call", load="quiet", network="W1", batch=1, threads=2, **known
        )  # fmt: skip

    times = {"openvino": 5.0, "ours:native": 4.0}
    halves = {"torch:bf16": 9.0, "openvino:bf16": 3.0, "ours:native-bf16": 2.0}
    made = [row(contender=who, ms=ms, error=1e-6) for who, ms in times.items()]
    form = f"native/avx512/{kind}"
    made += [
        row(contender=who, dtype="bfloat16", ms=ms, error=5e-3, version=form)
        for who, ms in halves.items()
    ]
    off = {"contender": "torch:bf16", "dtype": "bfloat16", "ms": 7.0, "error": 0.13}
    wanted = ("openvino", "ours:native", "openvino:bf16", "ours:native-bf16")
    policy = [each for each in made if each["contender"] in wanted]
    return [*made, *({**each, "network": "policy"} for each in (row(**off), *policy))]


@pytest.mark.parametrize("kind", ["avx512_bf16", "amx"])
def test_calls_in_bfloat16_are_shown(kind, tmp_path, monkeypatch):
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    results.replace(made_rows(kind), results.NATIVE)
    block = blocks.native_bf16()
    cells = "9.00 (2) | 3.00 (2) | 2.00 (2) | 5.00 (2) | 4.00 (2) | 1.50x |"
    assert f"| W1, a DDPM U-Net | 1 | {cells}" in block
    assert "| 7.00 (2), off by 0.13 | 3.00 (2)" in block and f"`{kind}`" in block
    assert ("those rows are open" in " ".join(block.split())) == (kind != "amx")
    assert "bf16" not in native_blocks.native()  # a table of its own


def test_trajectories_are_shown(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "FOLDER", tmp_path)

    def row(**known):
        about = {"samples": 20, "steps": 20, "guidance": 2.0, "psnr_db": 41.26, "largest": 0.031}
        return results.row(CPU, results.QUALITY_KEYS, contender="torch:bf16", **about | known)

    told = {"changed": 0.004, "as_asked": 0.99, "accuracy": 0.981}
    rows = [row(network="digits", **told), row(network="W1", psnr_db=math.inf)]
    results.replace(rows, results.QUALITY)
    block = blocks.native_quality()
    assert "| digits | torch:bf16 | 41.3 | 3.1e-02 | 0.4 % | 99.0 % |" in block
    assert "| W1, a DDPM U-Net | torch:bf16 |  | 3.1e-02 |  |  |" in block
    assert "98.1 %" in block


def test_counted_instructions_are_shown(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    priced = amx.priced({"dots": 1_000_000, "loads": 1500, "stores": 5}, wanted=4_096_000_000)
    results.replace(
        [results.row(CPU, results.AMX_KEYS, network="W1", batch=1, **priced)], results.AMX
    )
    assert (
        "| W1, a DDPM U-Net | 1 | 1,000,000 | 1,500 | 5 | 4.10 | 8.19 | 50 % | 4.00 |"
        in blocks.native_amx()
    )


def test_providers_are_shown(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    made = [
        results.row(CPU, results.PROVIDER_KEYS, network="W1", batch=1, executor=who, ms=ms, **more)
        for who, ms, more in (
            ("native", 2.0, {}), ("openvino", 3.0, {}), ("auto", 2.02, {"chosen": "native", "of_best": 1.01}),
        )
    ]  # fmt: skip
    results.replace(made, results.PROVIDERS)
    block = provider_blocks.providers()
    assert "| W1, a DDPM U-Net | 1 | 2.00 | 3.00 | 2.02 | native | 1.010 |" in block
    assert "at most 1.010 of the time" in " ".join(block.split())
