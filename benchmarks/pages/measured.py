"""Writes the measured blocks of the pages from the committed rows: python -m benchmarks.pages.measured.

A block lies between `<!-- measured: NAME -->` and `<!-- end -->`; NAME is a function of `blocks/`.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

from .blocks import (
    bound,
    composition,
    editing,
    emoji,
    encoding,
    evaluation,
    front,
    gallery,
    genie,
    half,
    http,
    models,
    native,
    networks,
    ops,
    pipelines,
    profile,
    provided,
    providers,
    published,
    retrieval,
    runs,
    scaling,
    schedulers,
    serve,
    tune,
    upstream,
)  # fmt: skip
from .rows import Lacking

ROOT = Path(__file__).parents[2]

BLOCKS: dict[str, Callable[[], str]] = {
    made.__name__: made
    for made in (
        front.front, ops.steps, ops.normals, ops.ops, runs.accelerate, runs.W1, runs.digits, runs.sscs,
        runs.joining, profile.profile, encoding.encoding, genie.genie, genie.genie_gains, genie.genie_setting,
        scaling.scaling_assumed, scaling.scaling_checked, scaling.scaling_loads, scaling.scaling_routing,
        scaling.scaling_step, scaling.scaling_loss, scaling.scaling_bulk,
        serve.serve, serve.serve_native, native.native, native.native_busy, native.native_avx2,
        native.native_runs,
        native.native_floor, native.native_memory, half.native_bf16, half.native_quality, half.native_amx,
        providers.providers, providers.onnx_steps, networks.networks, provided.networks_providers,
        schedulers.schedulers, schedulers.schedulers_both, schedulers.schedulers_differ,
        schedulers.schedulers_refused, upstream.upstream, upstream.upstream_pipelines,
        upstream.scheduler_steps, pipelines.pipelines, http.http, tune.tune,
        composition.composition, retrieval.retrieval, models.models, gallery.gallery,
        evaluation.quality_networks, evaluation.quality_orders,
        published.quality_published, bound.quality_bound,
        emoji.emoji_features, emoji.emoji_found, emoji.emoji_copies, emoji.emoji_paraphrases,
        emoji.emoji_words, emoji.emoji_guidance, emoji.emoji_calls, emoji.emoji_time,
        editing.editing_source, editing.editing_image, editing.editing_inpainting, editing.editing_encoding,
        editing.editing_negative, editing.editing_composition,
    )
}  # fmt: skip

MARKER = re.compile(r"^<!-- measured: (?P<name>.*?) -->$|^<!-- end -->$", re.MULTILINE)


def main() -> None:
    try:
        new = {path: written(path.read_text(), path.relative_to(ROOT)) for path in pages()}
    except (ValueError, Lacking) as error:
        sys.exit(str(error))
    for path, text in new.items():
        if text != path.read_text():
            path.write_text(text)
            print(f"wrote {path}")


def pages() -> list[Path]:
    """Every page that may hold a block."""
    return [
        path
        for folder in ("", "benchmarks", "docs", "docs/drivers")
        for path in sorted((ROOT / folder).glob("*.md"))
    ]


def written(text: str, page: object) -> str:
    """The text with what the rows say in every block; `page` is its name, for errors."""
    parts, at = [], 0
    for name, start, end in spans(text, page):
        if name not in BLOCKS:
            raise ValueError(
                f"{page} has a block {name!r}, which nothing writes; there are {', '.join(BLOCKS)}"
            )
        parts += [text[at:start], f"\n{BLOCKS[name]()}\n"]
        at = end
    return "".join([*parts, text[at:]])


def block(name: str) -> str:
    """A block with its markers, for pages that are generated as a whole."""
    return f"<!-- measured: {name} -->\n{BLOCKS[name]()}\n<!-- end -->"


def spans(text: str, page: object) -> list[tuple[str, int, int]]:
    """The (name, start, end) of what lies between the markers of each block."""
    found = []
    opened: re.Match[str] | None = None
    for marker in MARKER.finditer(text):
        if (marker["name"] is None) == (opened is None):
            what = "a second marker" if opened else "an end without a marker"
            raise ValueError(f"{page} has {what}, {marker[0]!r}: each block needs its own end")
        if opened:
            found.append((opened["name"], opened.end(), marker.start()))
        opened = marker if opened is None else None
    if opened:
        raise ValueError(f"{page}: {opened[0]} has no <!-- end --> after it")
    return found


if __name__ == "__main__":
    main()
