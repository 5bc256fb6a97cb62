"""Rows of figures: what is asked, what a table keeps, and a run that goes on where it ended."""

import csv

import pytest
import torch
from optional import needs

from diffusion_engine.evaluation import matrix, run, shipped
from diffusion_engine.evaluation.cases import cases_of
from diffusion_engine.evaluation.table import Table
from diffusion_engine.solvers import solver
from diffusion_engine.testing import labelled_mixture

RULES = {"ddim": solver("ddim"), "euler_ancestral:eta=0.5": solver("euler_ancestral", eta=0.5)}


@pytest.fixture
def network():
    return labelled_mixture(shape=(1, 32, 32))


def cases(network, **changes):
    asked = {"guidance": 1.0, "n": 70} | changes
    return cases_of({"mixture": network}, RULES, (1, 2), **asked)[0]


def rows(asked, table, **changes):
    lacking, how = matrix.missing(asked, table), {"threads": 1, "device": "cpu"}
    paces = matrix.paces(lacking, ["eager"], **how)
    return list(matrix.rows(lacking, paces, shipped(), table=table, **how, **changes))


def test_a_run_goes_on_where_it_ended(network, tmp_path):
    needs("torchmetrics")
    path, asked = tmp_path / "rows.csv", cases(network)
    assert [case.steps for case in asked] == [1, 2, 1, 2]
    first = matrix.rows(
        asked[:2], matrix.paces(asked, ["eager"]), shipped(), table=Table(path, run.COLUMNS)
    )
    next(first)  # and interrupted
    before = path.read_text()
    assert len(rows(asked, Table(path, run.COLUMNS))) == 3
    assert path.read_text().startswith(before)
    assert rows(asked, Table(path, run.COLUMNS)) == []
    kept = list(csv.DictReader(path.open()))
    assert [(row["solver"], row["calls"]) for row in kept] == [
        ("ddim", "1"), ("ddim", "2"), ("euler_ancestral:eta=0.5", "1"), ("euler_ancestral:eta=0.5", "2"),
    ]  # fmt: skip
    found = Table(path, run.COLUMNS).of(asked[0].key)
    assert found["steps"] == 1 and found["grid"] is None and found["frechet"] > 0.0


def test_rows_are_told_apart_by_all_that_decides_them(network, tmp_path):
    table = Table(tmp_path / "rows.csv", run.COLUMNS)
    own = cases(network)[0]
    table.add(own.key)
    for other in ({"n": 80}, {"seeds": (70,)}, {"guidance": 2.0}, {"options": {"grid": "uniform"}}):
        assert matrix.missing([own, cases(network, **other)[0]], table) != [], other
    assert matrix.missing([own], table) == []


def test_seeds_and_digits_of_a_row(network):
    case = cases(network, seeds=(5,))[0]
    made = run.make(case.sampler(), case)
    alone = case.sampler().sample(seeds=[5 + 3], condition=[3 % 3]).samples
    torch.testing.assert_close(made.samples[3:4], alone)
    assert (made.calls, made.evaluations) == (1, 70)


def test_counts_of_calls(network):
    heun = {"heun": solver("heun")}
    made, _ = cases_of({"m": network}, heun, (3, 4, 5), "calls", n=70)
    assert [case.steps for case in made] == [2, 3]  # the last step is of one call
    with pytest.raises(ValueError, match="it has no run of 0 calls or fewer"):
        cases_of({"m": network}, heun, (0,), "calls", n=70)


def test_what_does_not_go_together_is_left_out_and_said(network):
    rules = {"sscs": solver("sscs"), "ddim": solver("ddim")}
    made, refused = cases_of({"m": network}, rules, (2,), n=70)
    assert [case.written for case in made] == ["ddim"]
    assert refused[0].startswith("m with sscs is left out: ")
    with pytest.raises(ValueError, match="m with sscs is left out"):
        cases_of({"m": network}, {"sscs": rules["sscs"]}, (2,))


def test_a_network_is_left_its_own_run(network):
    own = network.with_module(
        network.module, defaults={"solver": "heun", "steps": 3, "guidance": 1.5}
    )
    (case,), _ = cases_of({"m": own}, n=70)
    assert (case.written, case.intervals, case.guidance) == ("heun", 3, 1.5)


def test_a_time_is_estimated(network):
    case = cases(network, guidance=2.0)[1]
    pace = run.Pace("eager", None, 0.5)
    batches = run.BATCH / 70
    assert matrix.estimate(case, pace) == pytest.approx(
        2 * 2 * 70 * batches * 0.5 + matrix.FIGURES_S
    )
    assert "1 rows, some 1." not in matrix.left([case], {id(network): pace})
    assert matrix.left([case], {id(network): pace}).startswith("1 rows, some 3.4 minutes, until ")


def test_an_executor_that_refuses_gives_way(network):
    asked = cases(network)
    assert run.pace_of(asked, ["graph", "eager"]).name == "eager"
    with pytest.raises(ValueError):
        run.pace_of(asked, ["graph"])


def test_other_networks_and_tables(network, tmp_path):
    with pytest.raises(ValueError, match=r"only digits of \[1, 32, 32\] are evaluated"):
        cases_of({"m": labelled_mixture(shape=(3,))}, RULES, (2,))
    path = tmp_path / "rows.csv"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="has the columns a, b, and not model"):
        Table(path, run.COLUMNS)
