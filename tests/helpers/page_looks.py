"""What can be reckoned of a page's looks and of what a screen reader is told: WCAG 2.2, by hand."""

from __future__ import annotations

from pathlib import Path

SCRIPT = Path(__file__).with_suffix(".js").read_text().partition("\n")[2].rstrip().removesuffix(";")


def asked(page, what):
    """texts, edges, faults or outside of page_looks.js."""
    return page.evaluate(f"() => {SCRIPT}.{what}()")


def parsed(colour):
    """(r, g, b, alpha) of a computed colour."""
    numbers = [float(part) for part in colour[colour.index("(") + 1 : -1].replace(",", " ").split()]
    return (*numbers, 1.0)[:4]


def over(top, below):
    """A colour in front of an opaque one."""
    alpha = top[3]
    return (*(alpha * a + (1 - alpha) * b for a, b in zip(top[:3], below, strict=False)), 1.0)


def luminance(colour):
    parts = [c / 255 for c in colour[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def background(behind):
    below = (255.0, 255.0, 255.0, 1.0)
    for colour in reversed(behind):
        below = over(parsed(colour), below)
    return below


def contrast(one):
    """Of a text or an edge, 1 to 21."""
    below = background(one["behind"])
    lights = sorted((luminance(over(parsed(one["colour"]), below)), luminance(below)))
    return (lights[1] + 0.05) / (lights[0] + 0.05)


def faint(page):
    """Texts below 4.5 (3 where they are large) and edges below 3, as (text, contrast)."""
    found = []
    for one in asked(page, "texts"):
        large = one["size"] >= 24 or (one["size"] >= 18.66 and one["weight"] >= 700)
        if contrast(one) < (3 if large else 4.5):
            found.append((one["text"], round(contrast(one), 2)))
    found += [(e["text"], round(c, 2)) for e in asked(page, "edges") if (c := contrast(e)) < 3]
    return found
