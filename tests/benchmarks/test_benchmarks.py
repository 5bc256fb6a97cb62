"""What the benchmarks share: how they are timed, written and called, and that their imports go one way."""

import ast
import csv
import importlib
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
import torch

import benchmarks
from benchmarks import agreement, results, run, runs, timing
from benchmarks.ops import step

CPU = torch.device("cpu")


def test_rows_survive_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    rows = [results.row(CPU, op="step", case="ddim", provider=who, gb_s=1.5) for who in ("a", "b")]
    path = results.save(rows)
    results.save(rows)
    with path.open() as file:
        read = list(csv.DictReader(file))
    assert [row["provider"] for row in read] == ["a", "b", "a", "b"]
    assert tuple(read[0]) == results.KEYS and read[0]["gb_s"] == "1.5"


def test_a_file_of_one_run_is_replaced(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    for value in (1.0, 2.0):
        path = results.replace([results.row(CPU, results.GENIE_KEYS, value=value)], results.GENIE)
    with path.open() as file:
        assert [row["value"] for row in csv.DictReader(file)] == ["2"]
    assert results.columns(path) == results.GENIE_KEYS


def test_a_failed_case_does_not_end_a_run(tmp_path, monkeypatch, capsys):
    """The rows of the others are saved as they come, and the failures come last."""
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    seen = []

    def compare(case, *rest):
        seen.append([len(p.read_text().splitlines()) for p in tmp_path.glob("*.csv")])
        if case.name in ("ddim", "ddpm"):
            raise agreement.Disagreement(f"ours: {case.name} differs")
        return [results.row(CPU, op="step", case=case.name, provider=who) for who in ("a", "b")]

    monkeypatch.setattr(step, "compare", compare)
    given = run.parser().parse_args(["--op", "step", "--rows", "1x3x32x32"])
    with pytest.raises(SystemExit) as ended:
        run.measure(given)
    assert ended.value.code == (
        "2 comparisons failed:\nDisagreement: ours: ddim differs\nDisagreement: ours: ddpm differs"
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
        assert tuple(path.read_text().splitlines()[0].split(",")) == results.columns(path), path


def test_the_command_line_takes_its_options():
    given = run.parser().parse_args(["--op", "noise", "--rows", "1x3", "--no-save"])
    assert (given.op, given.rows, given.repeats, given.no_save) == ("noise", "1x3", None, True)


def test_a_part_of_runs_is_called_by_its_name(monkeypatch):
    assert all(
        hasattr(importlib.import_module(f"benchmarks.runs.{n}"), "measure") for n in runs.NAMES
    )
    sscs, asked = importlib.import_module("benchmarks.runs.sscs"), []
    monkeypatch.setattr(sscs, "measure", lambda *given: asked.append(given) or ())
    with pytest.raises(SystemExit, match="nothing to time: no case, shape and layout hold '1x3'"):
        run.measure(run.parser().parse_args(["--run", "sscs", "--rows", "1x3", "--no-save"]))
    assert asked == [(CPU, 50, ["1x3"])]


FOLDER = Path(benchmarks.__file__).parent
LAYERS = ("", "peers", "ops", "runs", "pages")  # "" are the files beside the folders


def imported(path):
    """The files of benchmarks/ that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if not (isinstance(node, ast.ImportFrom) and node.level):
            continue
        base = path.parents[node.level - 1].joinpath(*(node.module or "").split("."))
        names = [base / alias.name for alias in node.names]
        for name in [*(n for n in names if is_module(n))] or [base]:
            yield (
                name.with_suffix(".py")
                if name.with_suffix(".py").exists()
                else name / "__init__.py"
            )


def is_module(name):
    return name.is_dir() or name.with_suffix(".py").exists()


def test_imports_go_one_way():
    graph = {path: set(imported(path)) for path in FOLDER.rglob("*.py")}
    assert FOLDER / "ddim_run.py" in graph[FOLDER / "peers" / "host.py"]
    list(TopologicalSorter(graph).static_order())  # raises CycleError
    entries = {FOLDER / "run.py", FOLDER / "errors.py"}
    for path, others in graph.items():
        for other in others if path not in entries else ():
            assert layer(other) <= layer(path), f"{path} imports {other}"


def layer(path):
    return LAYERS.index(path.relative_to(FOLDER).parts[0] if path.parent != FOLDER else "")
