"""The rows of measurements, as CSV and as lines on the screen."""

from __future__ import annotations

import csv
import datetime
import re
import subprocess
from collections.abc import Callable, Iterable
from functools import cache
from importlib import metadata
from pathlib import Path

import torch

from . import timing
from .timing import Spread

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
# Whole runs and errors have files of their own.
RUNS = "-runs.csv"
RUN_KEYS = (
    "workload", "contender", "device", "dtype", "shape", "steps", "ms_per_image", "p20_ms", "p80_ms",
    "least_ms", "first_s", "peak_mb", "outside_us", "kernels", "vs_best_peer", "floor_share", "max_error",
    "repeats", "threads", "others", "version", "torch", "diffusers", "commit", "date",
)  # fmt: skip
RUN_SHOWN = {
    "workload": 8, "contender": 25, "dtype": 8, "shape": 11, "ms_per_image": 12, "p20_ms": 8, "p80_ms": 8,
    "least_ms": 8, "first_s": 7, "peak_mb": 7, "outside_us": 10, "kernels": 7, "vs_best_peer": 12,
    "floor_share": 11, "max_error": 9, "others": 6,
}  # fmt: skip
TITLES = {
    "bytes_per_element": "B/el", "copy_share": "/copy", "vs_best_torch": "/torch",
    "vs_mul_add": "/mul+", "vs_diffusers": "/diffu", "ns_per_element": "ns/el", "ceiling_share": "/peak",
}  # fmt: skip

ERRORS = "-errors.csv"
ERROR_KEYS = (
    "op", "shape", "plain", "torch", "ours", "of_bound", "device", "version", "commit", "date",
)  # fmt: skip
# A file each, which a new run replaces: what samples are off by, where the time of a run goes, an engine
# under load, calls of recorded networks.
GENIE, ENCODING, PROFILE, SERVE = "genie.csv", "encoding.csv", "profile.csv", "serve.csv"
NATIVE = "native.csv"
NETWORKS = "networks.csv"  # what becomes of small networks that are recorded
QUALITY = "quality.csv"  # trajectories in bfloat16
AMX = "amx.csv"  # instructions of a call in bfloat16, counted
PROVIDERS = "providers.csv"  # rows of samplers by each executor, and by auto
PROVIDED = "networks-providers.csv"  # and of those that other runtimes run
PIPELINES = "pipeline-loops.csv"  # pipelines of diffusers with the engine's loop
SCHEDULERS = "schedulers.csv"  # how far diffusers' schedulers and `like` are apart
UPSTREAM = "upstream.csv"  # diffusers' own tests of schedulers on EngineScheduler
UPSTREAM_PIPELINES = "upstream-pipelines.csv"  # its tests of pipelines
SCALING = "scaling.csv"  # a queue in front of many engines, simulated
STEPS = "scheduler-steps.csv"  # the time of a step, beside that of diffusers' classes
ONNX_STEPS = "onnx-steps.csv"  # what a step takes beside the call of ONNX Runtime
SOAK = "soak.csv"  # a server under load for minutes
TUNE = "tune.csv"  # learned tables of the digits
COMPOSITION = "composition.csv"  # compositions with a Markov chain and without
RETRIEVAL = "retrieval.csv"  # what a network makes of neighbours
EVALUATION = "evaluation.csv"  # figures of samples of every network
BOUND = "bound.csv"  # VDM's bound under two schedules
EMOJI = "emoji.csv"  # pictures from words
HTTP = "http.csv"  # requests over HTTP beside the same ones in a process
ABOUT = ("device", "threads", "torch", "commit", "date")
GENIE_KEYS = ("quantity", "guidance", "contender", "grid", "calls", "value", *ABOUT)
COMPOSITION_KEYS = (
    "composition", "contender", "calls", "samples", "quantity", "value", "spread", *ABOUT,
)  # fmt: skip
RETRIEVAL_KEYS = (
    "way", "weights", "calls", "guidance", "samples", "quantity", "value", "spread", *ABOUT,
)  # fmt: skip
BOUND_KEYS = ("steps", "schedule", "images", "times", "value", "spread", *ABOUT)
# of one sample: prompt to distance; of a set: quantity to spread
EMOJI_KEYS = (
    "part", "model", "weights", "calls", "guidance", "samples", "prompt", "name", "nearest", "rank",
    "distance", "quantity", "value", "spread", *ABOUT,
)  # fmt: skip
ENCODING_KEYS = ("solver", "refine", "data", "steps", "error", *ABOUT)
PROFILE_KEYS = (
    "part", "within", "calls_per_row", "us_per_row", "share", "solver", "samples", "rows", "others", *ABOUT,
)  # fmt: skip
SCHEDULER_KEYS = (
    "scheduler", "steps", "configuration", "asked", "outcome", "difference", "said",
)  # fmt: skip
UPSTREAM_KEYS = ("part", "of", "passed", "tests", "failed", "why", "diffusers")
STEP_KEYS = (
    "scheduler", "shape", "theirs_us", "ours_us", "theirs_median_us", "ours_median_us", "repeats", "others",
    "diffusers", *ABOUT,
)  # fmt: skip
ONNX_STEP_KEYS = (
    "executor", "shape", "runtime_us", "row_us", "outside_us", "runtime_median_us", "row_median_us",
    "repeats", "others", "onnxruntime", *ABOUT,
)  # fmt: skip
NETWORK_KEYS = ("network", "operations", "callbacks", "refused")
PROVIDED_KEYS = (
    "network", "batch", "onnxruntime_error", "onnxruntime_refused", "openvino_error", "openvino_refused",
    "torch", "onnxruntime", "openvino",
)  # fmt: skip
SERVE_KEYS = (
    "mix", "executor", "contender", "waiting", "load", "images_s", "p20", "p80", "latency_p50_ms",
    "latency_p95_ms", "latency_p99_ms", "preview_p50_ms", "preview_p95_ms", "preview_p99_ms", "occupancy",
    "us_row", "requests", "repeats", "others", *ABOUT,
)  # fmt: skip
SERVE_SHOWN = {
    "mix": 6, "executor": 8, "contender": 13, "threads": 7, "waiting": 8, "load": 5, "images_s": 8,
    "p20": 7, "p80": 7, "latency_p50_ms": 14, "latency_p99_ms": 14, "preview_p50_ms": 14,
    "preview_p99_ms": 14, "occupancy": 9, "us_row": 7, "others": 6,
}  # fmt: skip
# minute: its number, or all. Of all: growth and drift after the first minute, and what was made again
SOAK_KEYS = (
    "minute", "at_once", "batch", "done", "cancelled", "bad", "refused", "failed", "images_s", "p50_ms",
    "p99_ms", "server_mb", "worker_mb", "growth_mb", "p99_drift", "checked", "wrong", "others", *ABOUT,
)  # fmt: skip
SOAK_SHOWN = {
    "minute": 6, "done": 6, "cancelled": 9, "bad": 4, "refused": 7, "failed": 6, "images_s": 8, "p50_ms": 7,
    "p99_ms": 7, "server_mb": 9, "worker_mb": 9, "growth_mb": 9, "p99_drift": 9, "checked": 7, "wrong": 5,
    "others": 6,
}  # fmt: skip
# part: call, run (20 steps, ms an image), floor or memory; isa: what all were restricted to; no dtype is
# float32
NATIVE_KEYS = (
    "part", "network", "batch", "contender", "dtype", "waiting", "load", "isa", "ms", "p20_ms", "p80_ms",
    "error", "repeats",
    "operation", "size", "count", "gflop", "mbyte", "floor_ms", "gflop_s", "gb_s",
    "peak_mb", "held_mb", "export_s", "first_s", "further_s", "version", "others", *ABOUT,
)  # fmt: skip
NATIVE_SHOWN = {
    "part": 6, "network": 7, "batch": 5, "contender": 19, "threads": 7, "waiting": 8, "load": 5, "isa": 4,
    "ms": 8, "p20_ms": 8, "p80_ms": 8, "error": 8, "repeats": 7, "operation": 12, "size": 34, "count": 5,
    "floor_ms": 8, "peak_mb": 7, "held_mb": 7, "export_s": 8, "first_s": 7, "further_s": 9, "others": 6,
}  # fmt: skip
# changed: the share of digits that a classifier of this accuracy labels otherwise than those in float32
QUALITY_KEYS = (
    "network", "contender", "dtype", "form", "samples", "steps", "guidance", "psnr_db", "largest", "changed",
    "as_asked", "accuracy", *ABOUT,
)  # fmt: skip
QUALITY_SHOWN = {
    "network": 7,
    "contender": 30,
    "form": 32,
    "psnr_db": 7,
    "largest": 8,
    "changed": 7,
}
# wanted and done: multiplications, in 1e9
AMX_KEYS = (
    "network", "batch", "dots", "loads", "stores", "wanted", "done", "useful", "dot_cycles",
    "load_cycles", "ms", *ABOUT,
)  # fmt: skip
AMX_SHOWN = dict.fromkeys(AMX_KEYS[: -len(ABOUT)], 11)
# ms of a row: the call and its step; of_best: of auto, over the fastest of the others
PROVIDER_KEYS = (
    "network", "batch", "executor", "dtype", "ms", "p20_ms", "p80_ms", "chosen", "of_best", "error",
    "repeats", "form", "others", *ABOUT,
)  # fmt: skip
PROVIDERS_SHOWN = {
    "network": 7, "batch": 5, "executor": 11, "dtype": 8, "ms": 8, "p20_ms": 8, "p80_ms": 8, "chosen": 24,
    "of_best": 7, "error": 8, "repeats": 7, "others": 6,
}  # fmt: skip
PIPELINE_KEYS = (
    "pipeline", "contender", "waiting", "ms", "p20_ms", "p80_ms", "outside_us_step", "error", "repeats",
    "version", "others", *ABOUT,
)  # fmt: skip
PIPELINES_SHOWN = {
    "pipeline": 17, "contender": 17, "threads": 7, "waiting": 8, "ms": 8, "p20_ms": 8, "p80_ms": 8,
    "outside_us_step": 15, "error": 9, "repeats": 7, "others": 6,
}  # fmt: skip
# value beside expected: what was simulated and what is known or measured; pages say of what
SCALING_KEYS = (
    "part", "network", "mix", "gpus", "load", "routing", "requests", "p50_s", "p95_s", "p99_s", "slow_p50",
    "slow_p99", "wait_p99_s", "quantity", "value", "expected", "replicas", "shard", *ABOUT,
)  # fmt: skip
SCALING_SHOWN = {
    "part": 6, "network": 14, "mix": 5, "gpus": 5, "load": 4, "routing": 7, "p50_s": 7, "p99_s": 7,
    "slow_p50": 8, "slow_p99": 8, "wait_p99_s": 10, "quantity": 30, "value": 8, "expected": 8, "replicas": 8,
}  # fmt: skip
HTTP_KEYS = (
    "executor", "part", "contender", "steps", "waiting", "p50_ms", "p20_ms", "p80_ms", "over_ms", "images_s",
    "of_engine", "requests", "repeats", *ABOUT,
)  # fmt: skip
HTTP_SHOWN = {
    "executor": 8, "threads": 7, "waiting": 8, "part": 13, "contender": 10, "steps": 5, "p50_ms": 8,
    "p20_ms": 8, "p80_ms": 8, "over_ms": 8, "images_s": 8, "of_engine": 9,
}  # fmt: skip
# distance: of held-out seeds, from the fine solution; seconds and steps of learning
TUNE_KEYS = (
    "calls", "guidance", "contender", "grid", "distance", "samples", "seconds", "steps", *ABOUT,
)  # fmt: skip
# what was asked, figures with their spreads, and how long they took: as diffusion_engine.evaluation has them
EVALUATION_KEYS = (
    "model", "weights", "solver", "steps", "grid", "guidance", "n", "seed", "calls", "evaluations", "frechet",
    "frechet_spread", "precision", "precision_spread", "recall", "recall_spread", "accuracy",
    "accuracy_spread", "seconds", "executor", *ABOUT,
)  # fmt: skip
TUNE_SHOWN = {"calls": 5, "guidance": 8, "contender": 16, "grid": 22, "distance": 8, "seconds": 7}

COLUMNS = {
    RUNS: RUN_KEYS, ERRORS: ERROR_KEYS,
    GENIE: GENIE_KEYS, ENCODING: ENCODING_KEYS, PROFILE: PROFILE_KEYS, SERVE: SERVE_KEYS,
    NATIVE: NATIVE_KEYS, QUALITY: QUALITY_KEYS, AMX: AMX_KEYS, PROVIDERS: PROVIDER_KEYS,
    NETWORKS: NETWORK_KEYS,
    PROVIDED: PROVIDED_KEYS,
    PIPELINES: PIPELINE_KEYS,
    SCHEDULERS: SCHEDULER_KEYS,
    UPSTREAM: UPSTREAM_KEYS,
    UPSTREAM_PIPELINES: UPSTREAM_KEYS,
    STEPS: STEP_KEYS,
    ONNX_STEPS: ONNX_STEP_KEYS,
    SOAK: SOAK_KEYS,
    SCALING: SCALING_KEYS,
    HTTP: HTTP_KEYS,
    TUNE: TUNE_KEYS,
    COMPOSITION: COMPOSITION_KEYS,
    RETRIEVAL: RETRIEVAL_KEYS,
    EVALUATION: EVALUATION_KEYS,
    BOUND: BOUND_KEYS,
    EMOJI: EMOJI_KEYS,
}  # fmt: skip

Row = dict[str, str | int | float | None]
# Times one case and gives its rows; raises Disagreement where there is nothing to compare.
Comparison = Callable[[], list[Row]]


@cache
def commit() -> str:
    """The checkout's commit, with -dirty where the timed code has changes; or "unknown"."""
    root = Path(__file__).parents[1]

    def git(*words: str) -> str:
        try:
            done = subprocess.run(
                ["git", *words], cwd=root, capture_output=True, text=True, check=False
            )
        except OSError:  # it is not installed
            return ""
        return done.stdout.strip()

    changed = git("status", "--porcelain", "--", "csrc", "kernels", "diffusion_engine")
    return (git("rev-parse", "--short", "HEAD") or "unknown") + ("-dirty" if changed else "")


def version(package: str) -> str | None:
    """The version of a package, or None where it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def now() -> str:
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M")


def row(
    device: torch.device, keys: tuple[str, ...] = KEYS, **known: str | int | float | None
) -> Row:
    """A row with what every measurement of this process shares."""
    shared: Row = {
        "device": timing.device_name(device),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "diffusers": version("diffusers"),
        "commit": commit(),
        "date": now(),
    }
    return {key: (shared | known).get(key) for key in keys}


def dims(shape: Iterable[int]) -> str:
    """A shape as rows have it: 1x3x32x32."""
    return "x".join(map(str, shape))


def dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def moved(time: Spread, elements: int, count: float) -> Row:
    """The columns of an op that moves `count` bytes an element."""
    found: Row = {"bytes_per_element": count, "gb_s": count * elements / time.median * 1e-3}
    return found | time.columns() | {"ns_per_element": time.median * 1e3 / elements}


def device_file(device: object, end: str) -> Path:
    """The file of a device: its name in small letters, and `end`."""
    return FOLDER / (re.sub(r"[^a-z0-9.]+", "-", str(device).lower()).strip("-") + end)


def columns(path: Path) -> tuple[str, ...]:
    """The columns of a file of rows, by the end of its name, the longest that is known."""
    known = max((end for end in COLUMNS if path.name.endswith(end)), key=len, default=None)
    return KEYS if known is None else COLUMNS[known]


def save(rows: list[Row], end: str = ".csv") -> Path:
    """Appends to the device's file, whose columns are those of the rows."""
    path = device_file(rows[0]["device"], end)
    _write(path, rows, "a")
    return path


def replace(rows: list[Row], name: str) -> Path:
    """Writes the file of a run anew."""
    path = FOLDER / name
    _write(path, rows, "w")
    return path


def _write(path: Path, rows: list[Row], mode: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    headed = mode == "a" and path.exists()
    with path.open(mode, newline="") as file:
        writer = csv.DictWriter(file, tuple(rows[0]), lineterminator="\n")
        if not headed:
            writer.writeheader()
        writer.writerows({k: _text(v) for k, v in r.items()} for r in rows)


def show(row: Row, header: bool, shown: dict[str, int] = SHOWN) -> None:
    if header:
        print(f"{row['device']}, {row['threads']} threads, torch {row['torch']}, {row['commit']}")
        print(" ".join(TITLES.get(k, k).rjust(w) for k, w in shown.items()))
    print(" ".join(_text(row[k]).rjust(w) for k, w in shown.items()), flush=True)


def _text(value: str | int | float | None) -> str:
    if value is None:
        return ""
    return (
        f"{value:.4g}"
        if isinstance(value, float) and value < 1000
        else (f"{value:.0f}" if isinstance(value, float) else str(value))
    )
