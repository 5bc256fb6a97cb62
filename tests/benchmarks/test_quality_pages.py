"""The blocks of docs/quality.md say what the rows show, and no more."""

import csv

import pytest

from benchmarks import results
from benchmarks.pages.blocks import evaluation, published
from benchmarks.pages.blocks.evaluation import LAW, at


@pytest.fixture
def rows(monkeypatch, tmp_path):
    """Writes rows of (what finds it, distance, its spread)."""
    monkeypatch.setattr(results, "FOLDER", tmp_path)

    def write(*given):
        with open(tmp_path / results.EVALUATION, "w") as file:
            writer = csv.DictWriter(file, results.EVALUATION_KEYS, restval="0")
            writer.writeheader()
            for wanted, value, spread in given:
                shared = {
                    "calls": "10",
                    "n": "1000",
                    "torch": "2",
                    "commit": "c",
                    "date": "2026-01-01T00:00",
                }
                own = {
                    "frechet": value,
                    "frechet_spread": spread,
                    "grid": "",
                    "solver": "",
                    "guidance": "1",
                }
                writer.writerow(shared | own | wanted)

    return write


def line(text, start):
    return next(row for row in text.splitlines() if row.startswith(f"| {start}")).split(" | ")


def test_an_order_is_shown_or_not_or_reversed(rows):
    better, other = (at("digits", name, 10) for name in ("dpmpp_2m", "ddim"))
    said = "DPM-Solver++(2M) better than DDIM at 10 calls"
    for value, wanted in (
        (10.0, "as published"),
        (19.0, "not told apart"),
        (30.0, "the other way round"),
    ):
        rows((better, value, 0.6), (other, 20.0, 0.8))
        assert line(evaluation.quality_orders(), said)[-1] == f"{wanted} |"
    assert line(evaluation.quality_orders(), said)[3] == "-10.0"
    assert line(evaluation.quality_orders(), "UniPC")[-1] == "not measured |"


def test_networks_stand_as_their_cards_run_them(rows):
    own = {"model": "digits", "solver": "dpmpp_2m", "steps": "20", "guidance": "2"}
    rows(({"model": LAW}, 2.0, 0.5), (own | {"steps": "10"}, 9.0, 1.0), (own, 5.0, 1.0))
    text = evaluation.quality_networks()
    assert line(text, LAW)[4] == "2.00 ± 0.98"
    assert line(text, "digits")[4] == "5.00 ± 1.96" and text.count("| digits |") == 1


def test_a_paper_s_figure_stands_beside_ours(rows):
    rows((at("digits", "ddim", 10), 20.0, 1.0))
    text = published.quality_published()
    assert line(text, "DDIM")[2:] == ["20.0 ± 1.96", "10 |"]
    assert line(text, "UniPC")[2] == "not measured"
