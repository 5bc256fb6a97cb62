"""What the generator of docs/models.md takes out of the committed rows."""

from benchmarks import results
from benchmarks.pages import models


def test_figures_are_those_of_a_run_as_the_card_says(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    card = {"solver": {"name": "sscs", "options": {"x": 1}}, "steps": 50, "guidance": 1.5}
    assert models.measured("cld", card) == {}
    head = ["model", "solver", "grid", "steps", "guidance", "n"]
    values = [f"{key}{end}" for key in models.FIGURES for end in ("", "_spread")]
    said = [
        ("cld", "sscs:x=1", "", 50, 1.5, 1000, 7),
        ("cld", "sscs:x=1", "", 50, 1.5, 2000, 3),
        ("cld", "sscs", "", 50, 1, 9000, 1),
        ("cld", "cld_em", "", 50, 1.5, 9000, 1),
        ("flow", "sscs", "", 50, 1.5, 9000, 1),
        ("cld", "sscs", "", "", "", 9000, 1),
    ]
    lines = [[*head, *values], *((*row[:6], *[row[6]] * len(values)) for row in said)]
    text = "\n".join(",".join(map(str, line)) for line in lines)
    (tmp_path / models.ROWS).write_text(text)
    found = models.measured("cld", card)
    assert found["frechet"] == found["frechet_spread"] == 3.0 and found["of_samples"] == 2000
