"""Writes docs/benchmarks.md and docs/charts/ from the rows in results/: python -m benchmarks.pages.report."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from .. import ops, results
from . import chart
from .rows import Row, grouped, latest_ops, latest_runs, read, table

PAGE = Path(__file__).parents[2] / "docs" / "benchmarks.md"
CHARTS = PAGE.parent / "charts"

# column -> its head; those without a value are left out
RUN_COLUMNS = {
    "contender": "contender", "ms_per_image": "ms an image", "p20_ms": "20 %", "p80_ms": "80 %",
    "least_ms": "least", "vs_best_peer": "over the best peer", "floor_share": "lower bound / time",
    "outside_us": "us a step outside", "kernels": "kernels a step", "first_s": "first run, s",
    "peak_mb": "memory, MB", "max_error": "difference", "version": "version",
}  # fmt: skip
OP_COLUMNS = {
    "case": "case", "shape": "shape", "layout": "layout", "dtype": "dtype", "provider": "provider",
    "median_us": "us", "p20_us": "20 %", "p80_us": "80 %", "copy_share": "of a copy's rate",
    "ceiling_share": "of a product's rate", "vs_best_torch": "over torch's best",
    "vs_diffusers": "over diffusers", "max_error": "error",
}  # fmt: skip
ERROR_COLUMNS = {
    "op": "op", "shape": "shape", "plain": "plain sum", "torch": "torch", "ours": "ours",
    "of_bound": "ours / allowed",
}  # fmt: skip
INTRO = """\
# Benchmarks, row by row

Written by `python -m benchmarks.pages.report` from the rows in `benchmarks/results/`, which hold more
columns and everybody's rows; [Measured](measured.md) is their summary. `benchmarks/README.md` says who takes
part, what is checked before anything is timed, and how times are taken. "Over" says how many times faster
ours is.
"""
RUNS = """\
The same DDIM run by everybody: the same weights, noise and timesteps, samples compared before anything is
timed. `lower bound / time` is the least time the machine allows over what it took; `us a step outside` the
loop around a network that returns a ready tensor; `memory` what making the contender and its first run added;
`difference` that of the samples from the formula's, relative to the largest element.
"""
ERRORS = """\
Of the largest value, against float64, over the layers of W1. What is allowed is twice the error of the plain
float32 sum and a rounding unit, on every processor the same; torch's error depends on its vectors.
"""


def main() -> None:
    CHARTS.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(page(results.FOLDER))
    print(f"wrote {PAGE}")
    for path in charts(results.FOLDER):
        print(f"wrote {path}")


def page(folder: Path) -> str:
    """The text of docs/benchmarks.md."""
    parts = [INTRO.rstrip()]
    for path in sorted(folder.glob(f"*{results.RUNS}")):
        for (device, workload), rows in grouped(latest_runs(read(path)), "device", "workload"):
            parts.append(f"## {workload} on {device}\n\n{RUNS.rstrip()}")
            parts.append(f"![milliseconds of an image]({_picture(path, workload)})")
            for _, batch in grouped(rows, "dtype", "shape"):
                parts.append(_about(batch[0]) + "\n\n" + table(batch, RUN_COLUMNS))
    for path in sorted(folder.glob("*.csv")):
        if results.columns(path) is not results.KEYS:
            continue
        shown = [row for row in latest_ops(read(path)) if _shown(row)]
        for (device, op), rows in grouped(shown, "device", "op"):
            which = "--op" if op in ops.NAMES else "--run"
            command = f"python -m benchmarks.run {which} {op} --device {_kind(device)}"
            parts.append(f"## {op} on {device}\n\n    {command}\n\n" + table(rows, OP_COLUMNS))
    for path in sorted(folder.glob(f"*{results.ERRORS}")):
        rows = read(path)
        head = f"## Errors on {rows[0]['device']}, torch {rows[0]['version']}\n\n{ERRORS.rstrip()}"
        command = "    python -m benchmarks.errors"
        parts.append(f"{head}\n\n{command}\n\n" + table(rows, ERROR_COLUMNS))
    return "\n\n".join(parts) + "\n"


def charts(folder: Path, to: Path = CHARTS) -> Iterator[Path]:
    """Draws a picture of every workload and device, and yields its path."""
    for path in sorted(folder.glob(f"*{results.RUNS}")):
        for (device, workload), rows in grouped(latest_runs(read(path)), "device", "workload"):
            panels = {f"{s}, {d}": batch for (d, s), batch in grouped(rows, "dtype", "shape")}
            title = f"{workload} on {device}: DDIM, {rows[0]['steps']} steps, ms an image"
            picture = to / f"{workload}-{_stem(path)}.png"
            chart.draw(title, panels, picture)
            yield picture


def _about(row: Row) -> str:
    command = (
        f"python -m benchmarks.run --workload {row['workload']} --device {_kind(row['device'])} "
        f"--dtype {row['dtype']} --steps {row['steps']} --batch {row['shape'].split('x')[0]} "
        f"--repeats {row['repeats']}"
    )
    where = f"{row['threads']} threads, " if _kind(row["device"]) == "cpu" else ""
    return (
        f"**{row['shape']} {row['dtype']}**, {row['steps']} steps, {where}torch {row['torch']}, "
        f"{row['commit']}, {row['date']}\n\n    {command}"
    )


def _shown(row: Row) -> bool:
    """The page shows the engine's rows, not the reference's, and all of `accelerate`, whose bar is two."""
    engine = row["provider"].startswith("ours:") and row["provider"] != "ours:torch"
    return engine or row["op"] == "accelerate"


def _kind(device: str) -> str:
    return "cuda" if device.startswith("NVIDIA") else "cpu"


def _stem(path: Path) -> str:
    return path.name.removesuffix(results.RUNS)


def _picture(path: Path, workload: str) -> str:
    return f"{CHARTS.name}/{workload}-{_stem(path)}.png"


if __name__ == "__main__":
    main()
