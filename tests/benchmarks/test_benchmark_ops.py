"""The benchmarks of ops: every one is there, a wrong contender is refused, rows are whole."""

import pytest
import torch

from benchmarks import agreement, errors, layers, ops, providers, results, timing
from benchmarks.ops import attention, brownian, conv3x3, group_norm, noise, norms, quantile, step
from benchmarks.ops.step import cases, plain
from diffusion_engine.ops.table import IMPLEMENTATIONS

CPU = torch.device("cpu")
SHAPE = (2, 3, 4, 4)


def test_every_op_is_timed():
    missing = {op for op, _ in IMPLEMENTATIONS} ^ set(ops.NAMES)
    assert not missing, (
        f"of {missing} one is missing: a file in benchmarks/ops/, or lines in ops/table.py"
    )


def test_every_implementation_takes_part_on_some_device():
    timed = {
        (op, name)
        for op in ops.NAMES
        for device in ("cpu", "cuda")
        for name in providers.backends(op, device, elements=1)
    }
    assert timed == set(IMPLEMENTATIONS)


def test_the_reference_takes_part_at_small_states_alone():
    limit = providers.REFERENCE_LIMIT
    assert providers.backends("step", "cpu", limit) == ["torch", "cpp"]
    assert (
        providers.backends("step", "cpu", limit + 1) == ["cpp"] == providers.kernels("step", "cpu")
    )


@pytest.fixture(params=cases.CASES, ids=lambda case: case.name)
def case(request):
    return request.param


def compare(case, layout="contiguous"):
    return step.compare(case, SHAPE, layout, torch.float32, CPU, repeats=2)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_rows_of_a_case_are_whole(case, layout):
    rows = {row["provider"]: row for row in compare(case, layout)}
    engine = {name: row for name, row in rows.items() if name.startswith("ours:")}
    assert {"ours:torch", "ours:cpp", "plain:mul_add", "plain:addr", "copy"} <= set(rows)
    for row in rows.values():
        assert tuple(row) == results.KEYS
        assert row["p20_us"] <= row["median_us"] <= row["p80_us"]
        assert row["gb_s"] > 0 and row["copy_share"] > 0 and row["commit"]
    assert all(row["vs_best_torch"] > 0 for row in engine.values())
    assert all(
        (row["vs_diffusers"] is not None) == ("diffusers" in rows) for row in engine.values()
    )


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
    monkeypatch.setitem(plain.MIXES, "mul_add", lambda x, y, a, b, out: torch.mul(x, a, out=out))
    with pytest.raises(agreement.Disagreement, match=r"mul_add: ddim differs from the formula"):
        compare(cases.CASES[0])


def test_inductor_takes_part_at_the_named_shapes_alone(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda function, dynamic: function)
    x, (w, b) = torch.randn(1, 64, 4, 4), torch.randn(2, 64)
    for workload, expected in (("W1", ["torch"]), ("target", ["torch", "compile"])):
        found = group_norm.contenders(workload, x, w, b, 32, False, torch.device("cuda"))
        assert [*found] == [*expected, "ours:triton", "ours:cuda"]


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_rows_of_group_norm(layout, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda function, dynamic: function)
    rows = group_norm.compare("target", (2, 64, 4, 4), True, layout, torch.float32, CPU, repeats=2)
    assert [r["provider"] for r in rows] == ["torch", "compile", "ours:cpp", "copy"]
    for row in rows:
        assert tuple(row) == results.KEYS and row["bytes_per_element"] == 8
        assert row["gb_s"] > 0 and row["copy_share"] > 0
    assert rows[2]["vs_best_torch"] > 0 and rows[2]["max_error"] < 1e-5


@pytest.mark.parametrize("layout", ["tokens", "heads"])
def test_rows_of_attention(layout, monkeypatch):
    monkeypatch.setattr(layers, "ceiling", lambda *_: 100.0)
    rows = attention.compare("W5", (2, 3, 8, 5, 16), layout, torch.float32, CPU, repeats=2)
    assert [r["provider"] for r in rows] == ["torch", "ours:cpp"]
    for row in rows:
        expected = 4 * 2 * 3 * 8 * 5 * 16 / row["median_us"] * 1e-3
        assert row["gflop_s"] == expected and row["ceiling_share"] == expected / 100.0


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_rows_of_convolutions(layout, monkeypatch):
    monkeypatch.setattr(layers, "ceiling", lambda *_: 100.0)
    monkeypatch.setattr(timing, "cache_bytes", lambda device: 1 << 10)
    rows = conv3x3.compare("W1", (1, 96, 8, 15, 16), layout, repeats=2)
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
    assert list(conv3x3.measure(torch.device("cuda"), 1, [])) == []


def test_rows_of_errors():
    layers = [
        group_norm.sums((64, 3, 5), True),
        attention.sums(2, 5, 7, 16),
        conv3x3.sums(64, 5, 4, 6, 4),
    ]
    rows = [errors.row(sums) for sums in layers]
    assert [row["op"] for row in rows] == ["group_norm", "attention", "conv3x3 4x4"]
    for row in rows:
        assert set(row) < set(results.ERROR_KEYS) and 0 < float(row["of_bound"]) < 1
        assert all(0 < float(row[who]) < 1e-5 for who in ("plain", "torch", "ours"))


def test_a_wrong_layer_is_refused(monkeypatch):
    monkeypatch.setattr(attention.functional, "attention", lambda q, k, v, backend: q * 0.99)
    with pytest.raises(agreement.Disagreement, match="ours:cpp: attention has the error"):
        attention.compare("W5", (1, 1, 4, 4, 8), "heads", torch.float32, CPU, repeats=1)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("op", [norms, quantile])
def test_rows_of_reductions(op, layout):
    rows = {row["provider"]: row for row in op.compare(SHAPE, layout, CPU, repeats=2)}
    assert list(rows) == ["ours:torch", "ours:cpp", "torch", "copy"]
    for row in rows.values():
        assert tuple(row) == results.KEYS and row["copy_share"] > 0 and row["layout"] == layout
    assert rows["ours:cpp"]["vs_best_torch"] > 0
    assert rows["ours:cpp"]["bytes_per_element"] == (8 if op is norms else 4)
