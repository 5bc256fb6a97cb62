"""docs/serve.png, from the rows of benchmarks.runs.serve: python -m benchmarks.pages.serve."""

from __future__ import annotations

from pathlib import Path

from .. import results
from . import chart, rows
from .blocks.serve import CONTENDERS, MIXES, best

PATH = Path("docs/serve.png")


def draw(path: Path) -> None:
    """Bars of milliseconds an image, a panel for each mix."""
    found = rows.some(rows.committed(results.SERVE), executor="eager")
    panels = {
        f"{mix}: {about}": [_bar(best(found, mix, who)) for who in CONTENDERS]
        for mix, about in MIXES.items()
    }
    title = f"The digits network, 16 seats, {found[0]['device']}: ms an image"
    chart.draw(title, panels, path, CONTENDERS[1:])


def _bar(row: rows.Row) -> rows.Row:
    median, low, high = (f"{1e3 / float(row[key])}" for key in ("images_s", "p80", "p20"))
    return {"contender": row["contender"], "ms_per_image": median, "p20_ms": low, "p80_ms": high}


if __name__ == "__main__":
    draw(PATH)
