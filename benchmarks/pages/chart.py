"""Bars of whole runs: milliseconds of an image, one panel a batch."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from ..peers import PEERS

Row = Mapping[str, str]

WIDTH, LEFT, RIGHT, EDGE = 1800, 520, 330, 40  # pixels; names stand left of the bars, times right
TITLE, LEGEND, BAR, GAP = 84, 40, 44, 16
ENGINE, PEER, BEST, INK, PALE = "#1f6f8b", "#b9c0c7", "#7d8893", "#22272b", "#e6e9ec"


def draw(
    title: str, panels: Mapping[str, Sequence[Row]], path: Path, peers: Collection[str] = PEERS
) -> None:
    """Writes a PNG of the rows of each panel, in their order; whiskers are the percentiles."""
    bars = sum(len(rows) for rows in panels.values())
    height = 2 * EDGE + LEGEND + TITLE * (1 + len(panels)) + (BAR + GAP) * bars
    image = Image.new("RGB", (WIDTH, height), "white")
    pen = ImageDraw.Draw(image)
    pen.text((EDGE, EDGE), title, INK, _font(40))
    x = EDGE
    for color, name in ((ENGINE, "ours"), (BEST, "best peer"), (PEER, "peer")):
        pen.rectangle((x, EDGE + 70, x + 26, EDGE + 96), color)
        pen.text((x + 38, EDGE + 83), name, INK, _font(26), anchor="lm")
        x += 110 + round(pen.textlength(name, _font(26)))
    pen.text((x, EDGE + 83), "whiskers: 20th to 80th percentile", INK, _font(26), anchor="lm")
    y = EDGE + TITLE + LEGEND
    for name, rows in panels.items():
        pen.text((EDGE, y + 14), name, INK, _font(32))
        y = _panel(pen, rows, y + TITLE, peers)
    image.quantize(64).save(path, optimize=True)


def _panel(pen: ImageDraw.ImageDraw, rows: Sequence[Row], y: int, others: Collection[str]) -> int:
    longest = max(float(row["p80_ms"]) for row in rows)
    scale = (WIDTH - LEFT - RIGHT) / longest
    peers = [float(row["ms_per_image"]) for row in rows if row["contender"] in others]
    pen.line((LEFT, y - 6, LEFT, y + (BAR + GAP) * len(rows) - GAP + 6), PALE, 3)
    for row in rows:
        time, low, high = (float(row[key]) for key in ("ms_per_image", "p20_ms", "p80_ms"))
        peer = row["contender"] in others
        color = ENGINE if not peer else BEST if time == min(peers) else PEER
        middle = y + BAR // 2
        pen.text((LEFT - 16, middle), row["contender"], INK, _font(28), anchor="rm")
        pen.rectangle((LEFT, y, LEFT + time * scale, y + BAR), color)
        ends = [LEFT + value * scale for value in (low, high)]
        pen.line((ends[0], middle, ends[1], middle), INK, 3)
        for end in ends:
            pen.line((end, middle - 9, end, middle + 9), INK, 3)
        pen.text((ends[1] + 16, middle), f"{time:.4g} ms", INK, _font(28), anchor="lm")
        y += BAR + GAP
    return y


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
