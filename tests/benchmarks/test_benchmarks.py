"""The benchmarks: that they cover every implementation, refuse a wrong contender, and write whole rows."""

import csv
import importlib
import sys
from pathlib import Path

import pytest
import torch

from diffusion_engine.ops.table import IMPLEMENTATIONS

sys.path.append(str(Path(__file__).parents[2]))
NAMES = (
    "brownian", "cases", "convolutions", "errors", "gate", "layers", "noise", "peers.step", "results",
    "run", "shapes", "sscs", "step", "timing", "workloads",
)  # fmt: skip
(
    brownian,
    cases,
    convolutions,
    errors,
    gate,
    layers,
    noise,
    peers,
    results,
    run,
    shapes,
    sscs,
    step,
    timing,
    workloads,
) = (importlib.import_module(f"benchmarks.{name}") for name in NAMES)
CPU = torch.device("cpu")
SHAPE = (2, 3, 4, 4)


@pytest.fixture(params=cases.CASES, ids=lambda case: case.name)
def case(request):
    return request.param


def compare(case, layout="contiguous"):
    return step.compare(case, SHAPE, layout, torch.float32, CPU, repeats=2)


def test_every_implementation_has_a_provider():
    assert set(cases.PROVIDERS) == set(IMPLEMENTATIONS)


def test_every_provider_is_timed_somewhere():
    timed = {
        (op, name)
        for op in ("step", "noise", "brownian", "group_norm", "attention", "conv3x3")
        for device in ("cpu", "cuda")
        for name in cases.backends(op, device, elements=1)
    }
    assert timed == set(IMPLEMENTATIONS)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_rows_of_a_case_are_whole(case, layout):
    rows = {row["provider"]: row for row in compare(case, layout)}
    ours = {name: row for name, row in rows.items() if name.startswith("ours:")}
    assert {"ours:torch", "ours:cpp", "plain:mul_add", "plain:addr", "copy"} <= set(rows)
    for row in rows.values():
        assert tuple(row) == results.KEYS
        assert row["p20_us"] <= row["median_us"] <= row["p80_us"]
        assert row["gb_s"] > 0 and row["copy_share"] > 0 and row["commit"]
    assert all(row["vs_best_torch"] > 0 for row in ours.values())
    assert all((row["vs_diffusers"] is not None) == ("diffusers" in rows) for row in ours.values())


def test_bytes_are_those_of_the_formula():
    counted = {case.name: case.bytes(torch.float32) for case in cases.CASES}
    assert counted["ddim"] == counted["ddpm"] == 12
    assert counted["ddim-net"] == counted["ddim-cfg"] == 16
    assert counted["dpmpp_2m"] == 20
    assert cases.CASES[1].bytes(torch.bfloat16) == 12


def test_rows_of_brownian_are_whole():
    rows = {row["provider"]: row for row in brownian.compare(SHAPE, CPU, repeats=2)}
    assert {"ours:torch", "ours:cpp", "torch.randn"} < set(rows)
    assert all(tuple(row) == results.KEYS and row["median_us"] > 0 for row in rows.values())


def test_noise_rows_hold_the_error():
    rows = noise.compare(SHAPE, CPU, repeats=2)
    errors = [row["max_error"] for row in rows if row["provider"].startswith("ours:")]
    assert len(errors) == 2 and all(0 < error < 1e-6 for error in errors)
    assert all(tuple(row) == results.KEYS for row in rows)


def test_a_wrong_contender_is_refused(monkeypatch):
    monkeypatch.setitem(peers.MIXES, "mul_add", lambda x, y, a, b, out: torch.mul(x, a, out=out))
    with pytest.raises(gate.GateError, match=r"mul_add: ddim differs from the formula"):
        compare(cases.CASES[0])


def test_rows_survive_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    rows = compare(cases.CASES[0])
    path = results.save(rows)
    results.save(rows)
    with path.open() as file:
        read = list(csv.DictReader(file))
    assert len(read) == 2 * len(rows) and tuple(read[0]) == results.KEYS


def test_a_failed_case_does_not_end_a_run(tmp_path, monkeypatch, capsys):
    """The rows of the others are saved as they come, and the failures come last."""
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    seen = []

    def compare(case, *rest):
        seen.append([len(p.read_text().splitlines()) for p in tmp_path.glob("*.csv")])
        if case.name in ("ddim", "ddpm"):
            raise gate.GateError(f"ours: {case.name} differs")
        return [results.row(CPU, op="step", case=case.name, provider=who) for who in ("a", "b")]

    monkeypatch.setattr(step, "compare", compare)
    given = run.parser().parse_args(["--op", "step", "--rows", "1x3x32x32"])
    with pytest.raises(SystemExit) as ended:
        run.measure_op(given)
    assert ended.value.code == (
        "2 comparisons failed:\nGateError: ours: ddim differs\nGateError: ours: ddpm differs"
    )
    assert seen == [[], [], [3], [5], [5], [7], [9]]
    (path,) = tmp_path.glob("*.csv")
    with path.open() as file:
        assert [row["case"] for row in csv.DictReader(file)][::2] == [
            "ddim-net", "ddim-clip", "ddpm-clip", "dpmpp_2m", "ddim-cfg",
        ]  # fmt: skip


def test_the_commit_where_git_is_missing(monkeypatch):
    def missing(*given, **options):
        raise FileNotFoundError("git")

    monkeypatch.setattr(results.subprocess, "run", missing)
    assert results.commit.__wrapped__() == "unknown"


def test_inductor_takes_part_at_the_named_shapes_alone(monkeypatch):
    monkeypatch.setattr(layers.torch, "compile", lambda function, dynamic: function)
    x, (w, b) = torch.randn(1, 64, 4, 4), torch.randn(2, 64)
    for workload, expected in (("W1", ["torch"]), ("target", ["torch", "compile"])):
        found = layers.norms(workload, x, w, b, 32, False, torch.device("cuda"))
        assert [*found] == [*expected, "ours:triton", "ours:cuda"]


def test_calls_rotate_over_the_sets():
    seen = {"a": [], "b": []}
    tasks = [
        timing.Task(name, [lambda s=s, n=name: seen[n].append(s) for s in range(3)])
        for name in seen
    ]
    spreads = timing.interleave(tasks, 3, timing.cpu_clock)
    assert set(spreads) == set(seen)
    assert all(set(sets) == {0, 1, 2} for sets in seen.values())


def test_a_large_case_goes_around_the_cache():
    assert timing.sets_needed(1 << 20, 32 << 20) == 1
    sets = timing.sets_needed(25 << 20, 32 << 20)
    assert (sets - 1) * 25 >= 2 * 32


def test_committed_rows_have_todays_columns():
    for path in results.FOLDER.glob("*.csv"):
        kinds = {results.RUNS: results.RUN_KEYS, errors.END: errors.KEYS}
        keys = next((keys for end, keys in kinds.items() if path.name.endswith(end)), results.KEYS)
        assert tuple(path.read_text().splitlines()[0].split(",")) == keys, path


def test_the_command_line_takes_its_options():
    given = run.parser().parse_args(["--op", "noise", "--rows", "1x3", "--no-save"])
    assert (given.op, given.rows, given.repeats, given.no_save) == ("noise", "1x3", None, True)


# The ops of networks


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_rows_of_group_norm(layout, monkeypatch):
    monkeypatch.setattr(layers.torch, "compile", lambda function, dynamic: function)
    rows = layers.compare_norm("target", (2, 64, 4, 4), True, layout, torch.float32, CPU, repeats=2)
    assert [r["provider"] for r in rows] == ["torch", "compile", "ours:cpp", "copy"]
    for row in rows:
        assert tuple(row) == results.KEYS and row["bytes_per_element"] == 8
        assert row["gb_s"] > 0 and row["copy_share"] > 0
    assert rows[2]["vs_best_torch"] > 0 and rows[2]["max_error"] < 1e-5


@pytest.mark.parametrize("layout", ["tokens", "heads"])
def test_rows_of_attention(layout, monkeypatch):
    monkeypatch.setattr(layers, "ceiling", lambda *_: 100.0)
    rows = layers.compare_attention("W5", (2, 3, 8, 5, 16), layout, torch.float32, CPU, repeats=2)
    assert [r["provider"] for r in rows] == ["torch", "ours:cpp"]
    for row in rows:
        expected = 4 * 2 * 3 * 8 * 5 * 16 / row["median_us"] * 1e-3
        assert row["gflop_s"] == expected and row["ceiling_share"] == expected / 100.0


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_rows_of_convolutions(layout, monkeypatch):
    monkeypatch.setattr(layers, "ceiling", lambda *_: 100.0)
    monkeypatch.setattr(timing, "cache_bytes", lambda device: 1 << 10)
    rows = convolutions.compare("W1", (1, 96, 8, 15, 16), layout, repeats=2)
    assert [r["provider"] for r in rows] == [
        "torch",
        "torch:packed",
        "ours:cpp:4x4",
        "ours:cpp:2x2",
    ]
    for row in rows:
        expected = 18 * 96 * 8 * 15 * 16 / row["median_us"] * 1e-3
        assert tuple(row) == results.KEYS
        assert row["gflop_s"] == expected and row["ceiling_share"] == expected / 100.0
    assert list(convolutions.measure(torch.device("cuda"), 1, [])) == []


def test_rows_of_errors():
    rows = [
        errors.norm((64, 3, 5), True),
        errors.attention(2, 5, 7, 16),
        errors.convolution(64, 5, 4, 6, 4),
    ]
    assert [row["op"] for row in rows] == ["group_norm", "attention", "conv3x3 4x4"]
    for row in rows:
        assert set(row) < set(errors.KEYS) and 0 < float(row["of_bound"]) < 1
        assert all(0 < float(row[who]) < 1e-5 for who in ("plain", "torch", "ours"))


def test_rows_of_sscs(monkeypatch):
    monkeypatch.setattr(sscs, "SHAPE", (2, 3, 4, 4))
    rows = sscs.compare(CPU, repeats=2)  # behind its gate: all three make the same samples
    assert [r["provider"] for r in rows] == ["ours", "plain:published", "plain:merged"]
    assert all(tuple(row) == results.KEYS for row in rows)
    assert rows[0]["vs_best_torch"] > 0


def test_a_wrong_layer_is_refused(monkeypatch):
    monkeypatch.setattr(layers.functional, "attention", lambda q, k, v, backend: q * 0.99)
    with pytest.raises(gate.GateError, match="ours:cpp: attention has the error"):
        layers.compare_attention("W5", (1, 1, 4, 4, 8), "heads", torch.float32, CPU, repeats=1)


def test_the_shapes_of_w1_are_those_of_diffusers():
    pytest.importorskip("diffusers", reason="diffusers is not installed")
    with torch.device("meta"):
        network, x = workloads.ddpm_cifar10(), torch.empty(1, 3, 32, 32)
        found = workloads.calls(network, x, torch.zeros(1, dtype=torch.int64))
    convolved = {key[1:] for key in found if key[0] == "conv3x3"}
    assert convolved == set(shapes.CONVOLUTIONS["W1"])
    norms = {(key[1], key[3]) for key in found if key[0] == "group_norm"}
    attentions = {key[1:] for key in found if key[0] == "attention"}
    assert norms == set(shapes.NORMS["W1"]) and attentions == set(shapes.ATTENTIONS["W1"])


def test_w3_is_the_network_of_its_figures():
    ncsnpp = importlib.import_module("benchmarks.ncsnpp")
    with torch.device("meta"):
        network, x, t = ncsnpp.NCSNpp(), torch.empty(1, 6, 32, 32), torch.empty(1)
        found = workloads.calls(network, x, t)
    assert sum(p.numel() for p in network.parameters()) == 107_597_318
    norms = {(key[1], key[3]) for key in found if key[0] == "group_norm"}
    attentions = {key[1:] for key in found if key[0] == "attention"}
    assert norms == set(shapes.NORMS["W3"]) and attentions == set(shapes.ATTENTIONS["W3"])
    assert (
        workloads.weights(ncsnpp.NCSNpp())(torch.randn(1, 6, 32, 32), torch.ones(1))
        .isfinite()
        .all()
    )


def test_random_weights_keep_the_size_of_values():
    torch.manual_seed(0)
    network = workloads.weights(torch.nn.Sequential(*(torch.nn.Linear(64, 64) for _ in range(6))))
    out = network(torch.randn(512, 64))
    assert 0.5 < float(out.std()) < 2.0
