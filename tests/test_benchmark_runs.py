"""The benchmark of whole runs: everybody samples the same, a wrong contender stops it, rows are whole."""

import importlib
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.append(str(Path(__file__).parents[1]))
NAMES = ("gate", "ours", "peers", "problem", "results", "run", "sampling")
gate, ours, peers, problem, results, run, sampling = (
    importlib.import_module(f"benchmarks.{name}") for name in NAMES
)
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
    return problem.Eps(
        diffusers.UNet2DModel(
            sample_size=8,
            block_out_channels=(32, 64),
            layers_per_block=1,
            down_block_types=("DownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "UpBlock2D"),
            attention_head_dim=None,
        )
    )


def made(module, schedule=problem.linear, dtype=torch.float32, batch=2):
    torch.manual_seed(0)
    workload = problem.Workload(lambda: module, (3, 8, 8), schedule, {"cpu": (batch,)})
    return problem.Problem.of(module, workload, batch, 4, CPU, dtype)


@pytest.fixture
def everybody():
    """Ours and diffusers'."""
    pytest.importorskip("diffusers", reason="diffusers is not installed")
    return sampling.contenders("diffusers,channels_last", "cpu")


@pytest.mark.parametrize("schedule", [problem.linear, problem.stable_diffusion, problem.vp])
def test_everybody_samples_the_same(schedule, everybody):
    ready = sampling.prepare(made(unet(), schedule), everybody)
    assert list(ready) == ["ours", "ours:accelerate", "diffusers", "diffusers:channels_last"]
    assert all(it.max_error < 1e-4 and it.first_s > 0 for it in ready.values())


def test_half_precision_is_held_against_float32(everybody):
    everybody.pop("ours:accelerate")
    ready = sampling.prepare(made(unet(), dtype=torch.bfloat16), everybody)
    assert len(ready) == 3
    assert all(it.contender.run().dtype in (torch.float32, torch.bfloat16) for it in ready.values())


@pytest.mark.parametrize("name", ["onnxruntime", "openvino", "k-diffusion"])
def test_peers_of_other_packages_sample_the_same(name):
    try:
        importlib.import_module(
            peers.PEERS[name][0].split(":")[0].join((".", "")), "benchmarks.peers"
        )
    except Exception as error:  # k-diffusion's own imports fail in many ways
        pytest.skip(f"{name} cannot be imported: {error}")
    ready = sampling.prepare(made(unet()), sampling.contenders(name, "cpu"))
    assert ready[name].max_error < 1e-4


def test_timesteps_are_those_of_diffusers():
    diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed")
    loop = importlib.import_module("benchmarks.peers.diffusers").Loop(made(Tiny()))
    assert isinstance(loop.scheduler, diffusers.DDIMScheduler)
    assert [t for t, _ in loop.times] == problem.linear().timesteps(4) == [750, 500, 250, 0]


def test_the_plan_of_ours_visits_the_timesteps():
    given = made(Tiny(), problem.stable_diffusion)
    plan = ours.sampler(given, given.network()).plan()
    assert [row.call.label for row in plan.rows if row.call] == [751, 501, 251, 1]


def test_the_table_of_vp_is_the_process():
    bar = problem.vp().alpha_bar
    assert np.allclose(bar[[0, 499, 999]], [problem.VP().at(t).alpha ** 2 for t in (0.001, 0.5, 1)])


def test_a_wrong_contender_stops_the_run():
    def wrong(given):
        right = ours.contender(given)
        return replace(right, run=lambda: 1.01 * right.run())

    with pytest.raises(gate.GateError, match=r"wrong: its samples differ .* nothing was timed"):
        sampling.compare("tiny", made(Tiny()), {"ours": ours.contender, "wrong": wrong}, 1)


def test_what_cannot_be_made_is_named(capsys):
    def absent(given):
        raise ImportError("no such package\nsecond line")

    assert not sampling.prepare(made(Tiny()), {"absent": absent})
    assert capsys.readouterr().out == "absent is left out: ImportError: no such package\n"


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
    assert "x the best peer, diffusers" in lines[1] and "% of the floor" in lines[2]
    assert results.save(rows, results.RUNS).name.endswith("-runs.csv")


def test_peers_are_chosen_by_name():
    assert "diffusers:compile" not in peers.choose("all", "cpu")
    assert "diffusers:compile" in peers.choose("all,compile", "cpu")
    assert peers.choose("none", "cuda") == []
    with pytest.raises(
        ValueError, match=r"no peer 'tensorrt' on cpu; there are all, none and diff"
    ):
        peers.choose("tensorrt", "cpu")


def test_the_command_line_names_every_workload():
    assert set(run.WORKLOADS) == set(problem.WORKLOADS)
    given = run.parser().parse_args(["--workload", "W1", "--batch", "1", "8"])
    assert (given.batch, given.steps, given.peers) == ([1, 8], 20, "all")
