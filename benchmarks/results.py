"""Rows: what is known of one measurement, as CSV and as a line on the screen."""

from __future__ import annotations

import csv
import datetime
import re
import subprocess
from functools import cache
from pathlib import Path

import torch

from . import peers, timing

FOLDER = Path(__file__).parent / "results"

KEYS = (
    "op", "case", "provider", "device", "dtype", "shape", "layout", "cache",
    "median_us", "p20_us", "p80_us", "bytes_per_element", "gb_s", "copy_share",
    "vs_best_torch", "vs_mul_add", "vs_diffusers", "ns_per_element", "max_error",
    "repeats", "threads", "others", "torch", "diffusers", "commit", "date", "gflop_s", "ceiling_share",
)  # fmt: skip
SHOWN = {
    "case": 12, "provider": 18, "dtype": 8, "shape": 18, "layout": 13, "cache": 6,
    "median_us": 10, "p20_us": 10, "p80_us": 10, "bytes_per_element": 5, "gb_s": 6, "copy_share": 6,
    "gflop_s": 7, "ceiling_share": 6,
    "vs_best_torch": 7, "vs_mul_add": 7, "vs_diffusers": 7, "ns_per_element": 8, "max_error": 9, "others": 6,
}  # fmt: skip
TITLES = {
    "bytes_per_element": "B/el", "copy_share": "/copy", "vs_best_torch": "/torch",
    "vs_mul_add": "/mul+", "vs_diffusers": "/diffu", "ns_per_element": "ns/el", "ceiling_share": "/peak",
}  # fmt: skip

Row = dict[str, str | int | float | None]


@cache
def commit() -> str:
    """Of the checkout, with -dirty where the timed code has changes."""
    root = Path(__file__).parents[1]

    def git(*words: str) -> str:
        done = subprocess.run(
            ["git", *words], cwd=root, capture_output=True, text=True, check=False
        )
        return done.stdout.strip()

    changed = git("status", "--porcelain", "--", "csrc", "kernels", "diffusion_engine")
    return (git("rev-parse", "--short", "HEAD") or "unknown") + ("-dirty" if changed else "")


def row(device: torch.device, **known: str | int | float | None) -> Row:
    """A row with what every measurement of this process shares."""
    shared: Row = {
        "device": timing.device_name(device),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "diffusers": peers.diffusers_version(),
        "commit": commit(),
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M"),
    }
    return {key: (shared | known).get(key) for key in KEYS}


def save(rows: list[Row]) -> Path:
    """Appends to the device's file."""
    name = re.sub(r"[^a-z0-9.]+", "-", str(rows[0]["device"]).lower()).strip("-")
    path = FOLDER / f"{name}.csv"
    FOLDER.mkdir(exist_ok=True)
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, KEYS, lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerows({k: _text(v) for k, v in r.items()} for r in rows)
    return path


def show(row: Row, header: bool) -> None:
    if header:
        print(f"{row['device']}, {row['threads']} threads, torch {row['torch']}, {row['commit']}")
        print(" ".join(TITLES.get(k, k).rjust(w) for k, w in SHOWN.items()))
    print(" ".join(_text(row[k]).rjust(w) for k, w in SHOWN.items()), flush=True)


def _text(value: str | int | float | None) -> str:
    if value is None:
        return ""
    return (
        f"{value:.4g}"
        if isinstance(value, float) and value < 1000
        else (f"{value:.0f}" if isinstance(value, float) else str(value))
    )
