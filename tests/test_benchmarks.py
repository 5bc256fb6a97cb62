"""The benchmarks: that they cover every implementation, refuse a wrong contender, and write whole rows."""

import csv
import importlib
import sys
from pathlib import Path

import pytest
import torch

from diffusion_engine.ops.table import IMPLEMENTATIONS

sys.path.append(str(Path(__file__).parents[1]))
cases, gate, noise, peers, results, run, step, timing = (
    importlib.import_module(f"benchmarks.{name}")
    for name in ("cases", "gate", "noise", "peers", "results", "run", "step", "timing")
)
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
        for op in ("step", "noise")
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
        assert tuple(path.read_text().splitlines()[0].split(",")) == results.KEYS, path


def test_the_command_line_takes_its_options():
    given = run.parser().parse_args(["--op", "noise", "--rows", "1x3", "--no-save"])
    assert (given.op, given.rows, given.repeats, given.no_save) == ("noise", "1x3", 50, True)
