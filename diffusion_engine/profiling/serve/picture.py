"""Seats taken and requests that wait, over time, as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from PIL import Image, ImageDraw, ImageFont

from .drive import Course

WIDTH, PANEL, LEFT, EDGE, GAP = 1600, 260, 90, 40, 90  # pixels
SEATS, WAIT, INK, PALE = "#1f6f8b", "#d98c3f", "#22272b", "#e6e9ec"


def draw(courses: Sequence[tuple[str, Course]], capacity: int) -> Image.Image:
    """A panel each: the seats that are taken, filled, and the requests that wait, a line over them."""
    image = Image.new("RGB", (WIDTH, 2 * EDGE + len(courses) * (PANEL + GAP)), "white")
    pen = ImageDraw.Draw(image)
    longest = max(seconds for _, course in courses for seconds, _, _ in course.seats)
    most = max(waiting for _, course in courses for _, _, waiting in course.seats)
    for i, (name, course) in enumerate(courses):
        y = EDGE + i * (PANEL + GAP)
        said = f"{name}: seats taken of {capacity}"
        pen.text((LEFT, y), said, SEATS, _font(26))
        right = LEFT + pen.textlength(said, _font(26)) + 40
        pen.text((right, y), f"requests waiting, at most {most}", WAIT, _font(26))
        _panel(pen, course, y + 40, capacity, max(most, 1), longest)
    return image


def _panel(
    pen: ImageDraw.ImageDraw, course: Course, top: int, seats: int, most: int, longest: float
) -> None:
    bottom, wide = top + PANEL, WIDTH - LEFT - EDGE
    points = [
        (LEFT + wide * seconds / longest, taken, waiting)
        for seconds, taken, waiting in course.seats
    ]
    for (x, taken, _), (following, _, _) in pairwise(points):
        pen.rectangle((x, bottom - PANEL * taken / seats, max(x, following), bottom), SEATS)
    line = [(x, bottom - PANEL * waiting / most) for x, _, waiting in points]
    if most > 0 and len(line) > 1:
        pen.line(line, WAIT, 4)
    pen.rectangle((LEFT, top, LEFT + wide, bottom), outline=PALE, width=3)
    for value, y in ((seats, top), (0, bottom)):
        pen.text((LEFT - 12, y), str(value), INK, _font(24), anchor="rm")
    for share, anchor in ((0.0, "la"), (0.5, "ma"), (1.0, "ra")):
        where = (LEFT + share * wide, bottom + 8)
        pen.text(where, f"{share * longest:.3g} s", INK, _font(22), anchor=anchor)


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
