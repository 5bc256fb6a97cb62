"""The benchmark of whole runs: everybody samples the same, a wrong contender stops it, rows are whole."""

import importlib
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from benchmarks import agreement, ddim_run, peers, results, run
from benchmarks.pages import rows as committed
from benchmarks.pages import serve as pages_serve
from benchmarks.pages.blocks import serve as blocks
from benchmarks.peers import k_diffusion_alone
from benchmarks.runs import (
    accelerate,
    engine,
    genie,
    k_diffusion,
    profile,
    sampling,
    serve,
    sscs,
    workloads,
)  # fmt: skip

CPU = torch.device("cpu")


class Tiny(torch.nn.Module):
    """Plain torch, for tests without diffusers' networks."""

    def __init__(self):
        super().__init__()
        self.conv, self.out = torch.nn.Conv2d(3, 32, 3, padding=1), torch.nn.Conv2d(32, 3, 1)
        self.time = torch.nn.Embedding(1000, 32)

    def forward(self, x, t):
        h = self.conv(x) + self.time(t.expand(x.shape[0]))[:, :, None, None]
        return self.out(torch.nn.functional.silu(h))


def unet():
    diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed")
    return workloads.Eps(
        diffusers.UNet2DModel(
            sample_size=8,
            block_out_channels=(32, 64),
            layers_per_block=1,
            down_block_types=("DownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "UpBlock2D"),
            attention_head_dim=None,
        )
    )


def transformer():
    diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed")
    network = diffusers.DiTTransformer2DModel(
        num_attention_heads=2, attention_head_dim=16, in_channels=3, out_channels=6, num_layers=1,
        sample_size=8, num_embeds_ada_norm=10,
    )  # fmt: skip
    return workloads.Eps(network, class_labels=torch.tensor([3]))


def text_unet():
    diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed")
    network = diffusers.UNet2DConditionModel(
        sample_size=8, in_channels=3, out_channels=3, block_out_channels=(32, 64), layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), cross_attention_dim=16,
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"), attention_head_dim=4,
    )  # fmt: skip
    return workloads.Eps(network, encoder_hidden_states=torch.randn(1, 5, 16))


def made(module, schedule=ddim_run.linear, dtype=torch.float32, batch=2):
    torch.manual_seed(0)
    workload = workloads.Workload(lambda: module, (3, 8, 8), schedule, {"cpu": (batch,)})
    return workload.ddim_run(module, batch, 4, CPU, dtype)


@pytest.fixture
def everybody():
    """The engine and diffusers."""
    pytest.importorskip("diffusers", reason="diffusers is not installed")
    return sampling.contenders("diffusers,channels_last", "cpu")


@pytest.mark.parametrize("schedule", [ddim_run.linear, ddim_run.stable_diffusion, ddim_run.vp])
def test_everybody_samples_the_same(schedule, everybody):
    ready = sampling.prepare(made(unet(), schedule), everybody)
    assert list(ready) == ["ours", "ours:accelerate", "diffusers", "diffusers:channels_last"]
    assert all(it.max_error < 1e-4 and it.first_s > 0 for it in ready.values())


@pytest.mark.parametrize("network", [transformer, text_unet])
def test_networks_with_conditions(network, everybody):
    assert len(sampling.prepare(made(network()), everybody)) == 4


def test_half_precision_is_held_against_float32(everybody):
    everybody.pop("ours:accelerate")
    ready = sampling.prepare(made(unet(), dtype=torch.bfloat16), everybody)
    assert len(ready) == 3
    assert all(it.contender.run().dtype in (torch.float32, torch.bfloat16) for it in ready.values())


@pytest.mark.parametrize("name", ["onnxruntime", "openvino", "k-diffusion"])
def test_peers_of_other_packages_sample_the_same(name):
    if lacking := peers.missing(name):
        pytest.skip(f"{', '.join(lacking)} is not installed")
    try:
        importlib.import_module(
            peers.PEERS[name][0].split(":")[0].join((".", "")), "benchmarks.peers"
        )
    except Exception as error:  # k-diffusion's own imports fail in many ways
        pytest.skip(f"{name} cannot be imported: {error}")
    ready = sampling.prepare(made(unet()), sampling.contenders(name, "cpu"))
    assert ready[name].max_error < 1e-4


def test_a_peer_says_what_it_needs(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "onnx", None)
    monkeypatch.setitem(sys.modules, "onnxruntime", torch)
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    assert peers.missing("onnxruntime") == ["onnx", "onnxscript"]
    make = sampling.contenders("onnxruntime", "cpu")["onnxruntime"]
    assert not sampling.prepare(made(Tiny()), {"onnxruntime": make})
    said = "onnxruntime is left out: ImportError: it needs onnx, onnxscript: pip install onnx onnxscript"
    assert said in capsys.readouterr().out


def test_timesteps_are_those_of_diffusers():
    diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed")
    loop = importlib.import_module("benchmarks.peers.diffusers").Loop(made(Tiny()))
    assert isinstance(loop.scheduler, diffusers.DDIMScheduler)
    assert [t for t, _ in loop.times] == ddim_run.linear().timesteps(4) == [750, 500, 250, 0]


def test_the_plan_of_the_engine_visits_the_timesteps():
    given = made(Tiny(), ddim_run.stable_diffusion)
    plan = engine.sampler(given, given.network()).plan()
    assert [row.call.label for row in plan.rows if row.call] == [751, 501, 251, 1]


def test_the_table_of_vp_is_the_process():
    bar = ddim_run.vp().alpha_bar
    assert np.allclose(
        bar[[0, 499, 999]], [ddim_run.VP().at(t).alpha ** 2 for t in (0.001, 0.5, 1)]
    )


def test_a_wrong_contender_stops_the_run():
    def wrong(given):
        right = engine.contender(given)
        return replace(right, run=lambda: 1.01 * right.run())

    with pytest.raises(
        agreement.Disagreement, match=r"wrong: its samples differ .* nothing was timed"
    ):
        sampling.compare("tiny", made(Tiny()), {"ours": engine.contender, "wrong": wrong}, 1)


def test_a_wrong_contender_at_one_batch_does_not_end_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    tiny = workloads.Workload(Tiny, (3, 8, 8), ddim_run.linear, {"cpu": (1, 2, 3)})
    monkeypatch.setitem(workloads.WORKLOADS, "digits", tiny)

    def compare(workload, given, *rest):
        if len(given.noise) == 1:
            raise agreement.Disagreement("wrong: its samples differ")
        return [
            results.row(
                CPU,
                results.RUN_KEYS,
                workload=workload,
                contender="ours",
                ms_per_image=10.0,
                shape=f"{len(given.noise)}x3x8x8",
                floor_share=None,
                outside_us=1.0,
            )
        ]

    monkeypatch.setattr(sampling, "compare", compare)
    given = run.parser().parse_args(["--workload", "digits", "--peers", "none"])
    with pytest.raises(SystemExit) as ended:
        sampling.main(given)
    assert ended.value.code == "1 comparisons failed:\nDisagreement: wrong: its samples differ"
    (path,) = tmp_path.glob("*.csv")
    assert len(path.read_text().splitlines()) == 3


def test_what_cannot_be_made_is_named(capsys):
    def absent(given):
        raise ImportError("no such package\nsecond line")

    assert not sampling.prepare(made(Tiny()), {"absent": absent})
    assert (
        capsys.readouterr().out == "absent is left out: ImportError: no such package second line\n"
    )


def test_rows_are_whole(everybody, tmp_path, monkeypatch):
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    rows = sampling.compare("tiny", made(unet()), everybody, repeats=2)
    assert [row["contender"] for row in rows] == list(everybody)
    for row in rows:
        assert tuple(row) == results.RUN_KEYS
        assert 0 < row["p20_ms"] <= row["ms_per_image"] <= row["p80_ms"]
        assert row["outside_us"] > 0 and row["floor_share"] > 0 and row["kernels"] is None
        assert (row["vs_best_peer"] is None) == row["contender"].startswith("diffusers")
    lines = sampling.ratios(rows)
    assert "x the best peer, diffusers" in lines[1] and "its lower bound is" in lines[2]
    assert results.save(rows, results.RUNS).name.endswith("-runs.csv")


@pytest.mark.parametrize("name", peers.PEERS)
def test_peers_are_where_the_table_says(name):
    module, function = peers.PEERS[name][0].split(":")
    text = (Path(peers.__file__).parent / f"{module}.py").read_text()
    assert f"def {function}(ddim_run: DDIMRun) -> Contender:" in text


def test_peers_are_chosen_by_name():
    assert "diffusers:compile" not in peers.choose("all", "cpu")
    assert "diffusers:compile" in peers.choose("all,compile", "cpu")
    assert peers.choose("none", "cuda") == []
    with pytest.raises(
        ValueError, match=r"no peer 'tensorrt' on cpu; there are all, none and diff"
    ):
        peers.choose("tensorrt", "cpu")


def test_the_command_line_names_every_workload():
    assert set(run.WORKLOADS) == set(workloads.WORKLOADS)
    given = run.parser().parse_args(["--workload", "W1", "--batch", "1", "8"])
    assert (given.batch, given.steps, given.peers) == ([1, 8], 20, "all")


def test_rows_of_sscs(monkeypatch):
    monkeypatch.setattr(sscs, "SHAPE", (2, 3, 4, 4))
    rows = sscs.compare(CPU, repeats=2)  # once all three make the same samples
    assert [r["provider"] for r in rows] == ["ours", "plain:published", "plain:merged"]
    assert all(tuple(row) == results.KEYS for row in rows)
    assert rows[0]["vs_best_torch"] > 0


def test_rows_of_accelerate():
    network = unet().network.eval()
    rows = accelerate.compare("tiny", network, torch.randn(2, 3, 8, 8), repeats=2)
    assert [r["provider"] for r in rows] == [
        "diffusers",
        "diffusers:channels_last",
        "ours:accelerate",
    ]
    assert all(tuple(row) == results.KEYS and row["max_error"] < 1e-4 for row in rows)
    assert rows[2]["vs_diffusers"] > 0 and rows[0]["vs_diffusers"] is None


def test_rows_of_a_profile(monkeypatch):
    monkeypatch.setattr(profile, "SAMPLES", 1)
    monkeypatch.setattr(profile, "STEPS", 2)
    monkeypatch.setattr(profile, "RUNS", 1)
    rows = list(profile.measure())
    assert all(tuple(row) == results.PROFILE_KEYS for row in rows)
    assert sum(row["share"] for row in rows if not row["within"]) == pytest.approx(1.0)


def test_the_head_costs_what_the_rows_of_genie_say():
    networks, rows = genie.contenders(), committed.committed(results.GENIE)
    for who in ("DDIM", "GENIE"):
        said = committed.one(rows, quantity="operations", contender=who)["value"]
        assert f"{genie.operations(networks[who]):.0f}" == said


def test_rows_of_an_engine_under_load(monkeypatch, tmp_path):
    """A small one of each part, and what the pages make of the rows."""
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    few = tuple(serve.Kind.model_validate({"spec": {"solver": "ddim", "steps": s}}) for s in (1, 2))
    monkeypatch.setattr(serve, "MIXES", dict.fromkeys(serve.MIXES, few))
    words = ["--requests", "16", "--waiting", "passive", "--rate", "200", "--executor", "eager"]
    given = serve.parser().parse_args(words)
    rows = serve.speed(given)
    best = serve.fastest(rows, "short", "engine")
    assert best["contender"] == "engine" and best["load"] == "all" and best["images_s"] > 0
    for given.mix in serve.MIXES:
        rows += serve.load(given)
    rows += serve.own(given)
    assert {row["contender"] for row in rows if row["mix"]} == {*blocks.CONTENDERS}
    results.replace(rows, results.SERVE)
    text = blocks.serve()
    assert text.count("| engine |") == 4 and "outside network and step" in " ".join(text.split())
    pages_serve.draw(tmp_path / "serve.png")
    assert (tmp_path / "serve.png").stat().st_size > 0


@pytest.mark.parametrize("case", k_diffusion.CASES)
def test_rows_of_k_diffusion(case):
    if k_diffusion_alone.modules() is None:
        pytest.skip(
            "k-diffusion's sampling.py cannot be loaded: it, torchsde or torchdiffeq is not installed"
        )
    rows = k_diffusion.compare(CPU, repeats=2, case=case, shape=(2, 4, 8, 8))
    assert {row["provider"] for row in rows} == {"ours", "k-diffusion"}
    assert all(row["op"] == "k_diffusion" and row["median_us"] > 0 for row in rows)


def test_k_diffusion_is_not_timed_where_it_makes_other_samples(monkeypatch):
    monkeypatch.setattr(k_diffusion_alone, "modules", lambda: None)
    with pytest.raises(agreement.Disagreement, match="cannot be loaded"):
        k_diffusion.compare(CPU, repeats=2, case="sample_euler", shape=(2, 4, 8, 8))
    other = SimpleNamespace(sample_euler=lambda model, x, sigmas, disable: 2.0 * x)
    monkeypatch.setattr(k_diffusion_alone, "modules", lambda: (other, None))
    with pytest.raises(agreement.Disagreement, match="the samples differ by"):
        k_diffusion.compare(CPU, repeats=2, case="sample_euler", shape=(2, 4, 8, 8))
