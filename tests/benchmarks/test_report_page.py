"""docs/benchmarks.md says what the rows say."""

import re

import PIL.Image
import torch

from benchmarks import results
from benchmarks.pages import report

CPU = torch.device("cpu")


def row(**known):
    about = {"workload": "W1", "dtype": "float32", "shape": "2x3x8x8", "steps": 4, "max_error": 0.0}
    times = {"ms_per_image": 10.0, "p20_ms": 9.0, "p80_ms": 12.0, "date": "2026-01-02T03:04"}
    return results.row(CPU, results.RUN_KEYS, **(about | times | known))


def test_the_report_shows_the_last_run_side_by_side(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    old = [row(contender="ours", ms_per_image=99.0), row(contender="k-diffusion")]
    new = [
        row(contender=name, ms_per_image=time, date="2026-01-03T00:00")
        for name, time in (("ours", 10.0), ("diffusers", 11.5))
    ]
    stem = results.save(old + new, results.RUNS).name.removesuffix(results.RUNS)
    text = report.page(tmp_path)
    assert "| ours | 10 |" in text and "| diffusers | 11.5 |" in text
    assert "k-diffusion" not in text and "| 99 |" not in text
    assert "python -m benchmarks.run --workload W1 --device cpu --dtype float32 --steps 4" in text
    (picture,) = report.charts(tmp_path, tmp_path)
    assert picture.name == f"W1-{stem}.png" and picture.name in text
    with PIL.Image.open(picture) as image:
        assert image.width == 1800


def test_the_committed_report_is_that_of_the_rows():
    assert report.PAGE.read_text() == report.page(report.results.FOLDER), (
        "docs/benchmarks.md is not what the rows say: python -m benchmarks.pages.report"
    )
    shown = {path.name for path in report.CHARTS.iterdir()}
    assert shown == set(re.findall(r"\(charts/(.*?)\)", report.PAGE.read_text()))
