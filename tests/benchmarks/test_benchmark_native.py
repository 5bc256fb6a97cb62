"""The benchmark of recorded networks: what it computes of times, operations and rows."""

import importlib.util
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from benchmarks import results
from benchmarks.pages.blocks import native as blocks
from benchmarks.runs.native import __main__ as native
from benchmarks.runs.native import floor, speed, worker
from benchmarks.runs.networks import diffusers

CPU = torch.device("cpu")


class Stub(SimpleNamespace):
    __hash__ = object.__hash__


def setting(contender, threads):
    return Stub(contender=contender, threads=threads)


def test_settings_far_from_the_best_are_left():
    a, b, c, d = setting("x", 1), setting("x", 2), setting("x", 3), setting("y", 1)
    medians = {a: 1.0, b: 1.2, c: 1.4, d: 9.0}
    assert speed.near([a, b, c, d], medians) == [a, b, d]


def test_turns_are_interleaved():
    asked = []

    class Stand(Stub):
        def ask(self, do, of):
            asked.append(self.contender)
            return {"seconds": [self.takes], "used": (1.0, 1.0, 0.5)}

    everyone = [Stand(contender=n, takes=t) for n, t in (("x", 1.0), ("x", 2.0), ("y", 5.0))]
    others = [0.0] * 3
    took = speed.interleaved(everyone, "call", 4, others)
    assert [len(seconds) for seconds in took.values()] == [4, 2, 4]
    assert asked == ["y", "x", "x", "x", "x", "y", "y", "x", "x", "y"]
    assert others == [10.0, 10.0, 5.0]


def test_a_turn_is_as_long_as_it_is_told():
    made = worker.Ready(lambda: None, lambda: None)
    said = worker.timed(made, lambda: None, seconds=10.0, least=2, most=7)
    assert len(said["seconds"]) == 7
    assert len(worker.timed(made, lambda: None, seconds=0.0, least=2, most=7)["seconds"]) == 1


def test_the_cost_of_operations():
    from diffusion_engine.native import operations as ops
    from diffusion_engine.native.values import Value, contiguous

    def value(*shape):
        return Value.new(shape, contiguous(shape))

    x, out = value(2, 64, 3), value(2, 64, 5)
    conv = ops.Conv(out, x, torch.zeros(5, 3, 3, 3), (8, 8), (8, 8), padding=(1, 1))
    conv.epilogue.bias = torch.zeros(5)
    found = floor.cost(conv)
    assert found.flop == 2 * 2 * 64 * 5 * 27
    assert found.activations == 4 * 2 * 64 * (3 + 5) and found.constants == 4 * (5 * 27 + 5)
    assert floor.size(conv) == "3 to 5, 3x3, 8x8"
    linear = ops.Linear(out, x, (torch.zeros(5, 3),))
    assert floor.flop(linear) == 2 * 2 * 64 * 5 * 3 and floor.size(linear) == "3 to 5, 64 rows"
    name = linear.name
    with floor.numbered([conv, linear]):
        assert (conv.name, linear.name) == ("0", "1")
    assert linear.name == name


def test_the_least_time_is_the_larger():
    cost = floor.Cost(flop=4_000_000, activations=1_000_000, constants=2_000_000)
    assert cost.floor(rate=4.0, near=1.0, far=2.0) == pytest.approx(2.0)
    assert cost.floor(rate=1.0, near=1.0, far=2.0) == pytest.approx(4.0)


def test_tasks_are_added_to_their_operations():
    table = [{"name": "0", "ns": 1e6}, {"name": "1", "ns": 2e6}, {"name": "1", "ns": 3e6}]
    assert floor.by_operation(table, 3) == [1.0, 5.0, 0.0]
    assert [floor.rounded(n) for n in (1, 65537, 1 << 40)] == [1 << 16, 1 << 17, 1 << 28]


def made_rows():
    def row(**known):
        return results.row(CPU, results.NATIVE_KEYS, network="W1", batch=1, threads=2, **known)

    times = {"torch": 9.0, "onnxruntime": 4.0, "ours:native": 2.0}
    rows = [
        row(part=part, load=load, contender=who, ms=ms, error=1e-6, waiting="active")
        for part in ("call", "run") for load in ("quiet", "busy") for who, ms in times.items()
    ]  # fmt: skip
    floors = {"part": "floor", "floor_ms": 1.0, "ms": 2.0, "count": 3, "gflop_s": 100.0}
    rows += [row(operation=name, size="3 to 5", **floors) for name in ("conv", "all")]
    rows += [
        row(part="call", load="quiet", isa="avx2", contender=who, ms=3 * ms, error=1e-6)
        for who, ms in times.items()
    ]
    memory = {"peak_mb": 300.0, "held_mb": 200.0, "first_s": 0.7}
    return [*rows, row(part="memory", contender="ours:native", **memory)]


def test_pages_say_what_the_rows_say(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    results.replace(made_rows(), results.NATIVE)
    for block in (blocks.native, blocks.native_busy, blocks.native_runs):
        assert "4.00 (2, active) | 2.00 (2, active) | 2.0x onnxruntime |" in block()
    assert "12.0 (2) | 6.00 (2) | 2.0x onnxruntime |" in blocks.native_avx2()
    assert "| conv | 3 to 5 | 3 | 2.00 | 1.00 | 50 % |" in blocks.native_floor()
    paid = "| 1 | ours:native | 300 | 200 |  | 0.70 |  | 100 |"  # 0.7 s, at 7 ms a call
    assert paid in blocks.native_memory()


def test_rows_of_other_parts_stay(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    assert native.kept([]) == []
    results.replace(made_rows(), results.NATIVE)
    now = [row for row in made_rows() if row["part"] in ("call", "run") and not row["isa"]]
    assert {row["part"] for row in native.kept(now)} == {"call", "floor", "memory"}
    assert {row["isa"] for row in native.kept(now) if row["part"] == "call"} == {"avx2"}
    stay = native.kept([{"part": "call", "network": "another"}])
    assert len(stay) == len(made_rows())
    assert tuple(stay[0]) == results.NATIVE_KEYS


def test_the_policy_is_that_of_the_example(monkeypatch):
    pytest.importorskip("diffusers", reason="diffusers is not installed")
    path = Path(__file__).parents[2] / "examples" / "robot_policy.py"
    spec = importlib.util.spec_from_file_location("robot_policy", path)
    example = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "robot_policy", example)
    spec.loader.exec_module(example)
    theirs = {p.shape for p in example.policy().module.parameters()}
    assert theirs == {p.shape for p in diffusers.policy().parameters()}
