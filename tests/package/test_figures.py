"""Every measured figure of the pages is read from committed rows, and none is written by hand."""

import re

import pytest

from benchmarks import results
from benchmarks.pages import measured, report, rows, samplers

PAGES = measured.pages()
# Two pages are generated as a whole, one of them around texts.
GENERATED = {report.PAGE, samplers.PAGE}
# Blocks that are read from the networks' cards, or hold commands and their pictures.
OF_CARDS = {"models", "gallery"} | {name for name in measured.BLOCKS if name.startswith("editing_")}
BY_HAND = [*(page for page in PAGES if page not in GENERATED), samplers.INTRO, samplers.ENCODING]

NUMBER = r"(?<![\w.])\d+(?:,\d{3})*(?:\.\d+)?"
UNITS = (
    r"%|percent|[kKMGT]i?B(?:/s)?|[GT]?FLOPS?(?:/s)?|[numµ]s|s|(?:micro|milli|nano)?seconds?|minutes?|min|hours?|"
    r"(?:images|samples|steps|calls|rows)(?:/s| a second| per second)|times|fold"
)
FAST = (
    r"(?:faster|slower|as fast|as slow|quicker|less time|more time|the time|the memory|the speed)"
)
WORDS = r"(?:half|third|twice|two|three|four|five|six|seven|eight|nine|ten)"
FIGURE = re.compile(
    rf"{NUMBER} ?-?(?:{UNITS})(?![\w/])|{NUMBER} ?[x×](?!\w| \d| [a-zA-Z]\b)|"
    rf"\b{WORDS}(?: times)? {FAST}|{NUMBER} {FAST}|{NUMBER} to {NUMBER}x|"
    r"(?<=\|) *(?:\d*\.\d+|\d{3,}|\d\.?\d*e[-+]?\d+) *(?=\|)"  # of a table
)
# What is a rule, a setting or a limit that a reader meets, and not what was measured.
RULES = (
    "counts some 10,000 times (H^2 / 2)",  # arithmetic
    *(f"| {status} |" for status in (401, 422, 429, 503)),  # of HTTP
    "longer than its own and 64 MiB",  # limits of what reads a checkpoint, and of what is read
    "a header of more than 16 MiB",
    "a JSON object of up to 1 MiB",
    "files over 1 MiB",
)


def figures(text, page="a page"):
    """The (line, figure) that a text has outside generated blocks and code."""
    text = re.sub(r"^ *(```+).*?^ *\1 *$", blank, text, flags=re.DOTALL | re.MULTILINE)
    for _, start, end in reversed(measured.spans(text, page)):
        text = text[:start] + blank(text[start:end]) + text[end:]
    for rule in RULES:
        text = text.replace(rule, " " * len(rule))
    return [(text.count("\n", 0, it.start()) + 1, it[0]) for it in FIGURE.finditer(text)]


def blank(found):
    """As many lines, so that those after it keep their numbers."""
    return "\n" * (found if isinstance(found, str) else found[0]).count("\n")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(measured.ROOT)))
def test_blocks_say_what_the_rows_say(page):
    text = page.read_text()
    assert text == measured.written(text, page), "run: python -m benchmarks.pages.measured"


@pytest.mark.parametrize("page", BY_HAND, ids=lambda page: str(page.relative_to(measured.ROOT)))
def test_no_figure_is_written_by_hand(page):
    assert figures(page.read_text(), page) == [], (
        "measured figures belong in a block (benchmarks/README.md), or in RULES here if nothing was measured"
    )


@pytest.mark.parametrize(
    "text",
    [
        "It is 1.9x faster.", "a call takes 63 ms", "in 25 us a step", "1.5 ns each", "0.5 to 1 % of a run",
        "by 14%", "1.8 to 4 times the memory", "8.9x", "at 900 GB/s", "3.2 TFLOP/s", "twice as fast",
        "four times slower", "in 2.5 seconds", "takes 40 s.", "12 images/s", "24 images a second", "5 µs",
        "up to 1.4 times faster", "a 3-fold gain", "2 GiB of memory", "1.6x and 1.7x",
        "```bash\nsleep 1\n```\n7 ms", "| a step | 1442 |", "| error | 0.164 |", "| error | 2.9e-01 |",
    ],
)  # fmt: skip
def test_a_figure_is_found(text):
    assert figures(text)


@pytest.mark.parametrize(
    "text",
    [
        "a 3x3 convolution of 16x3x256x256", "within 1e-6", "in 20 steps", "a 2 x 2 matrix", "Python 3.11",
        "the 20th percentile", "order 2", "8 channels", "64 seats", "t = 0.4", "2 + 1 x N", "torch 2.13",
        "`dpmpp_2s`", "level 3 streams", "4 samples of the network", "s = 1 + w", "| order | 2 |",
        "of 8, x is",
        "```text\n5 ms\n```", "<!-- measured: steps -->\n5 ms\n<!-- end -->",
    ],
)  # fmt: skip
def test_what_is_no_figure_is_left(text):
    assert not figures(text)


def test_a_figure_is_found_at_its_line():
    assert figures(
        "one\n```\n1 ms\n```\n<!-- measured: ops -->\n2 ms\n<!-- end -->\nthen 3 ms"
    ) == [(8, "3 ms")]


def test_a_block_is_written_anew():
    old = "before\n<!-- measured: normals -->\n9x\n<!-- end -->\nafter 8 ms\n"
    new = measured.written(old, "a page")
    assert new == f"before\n{measured.block('normals')}\nafter 8 ms\n"
    assert measured.written(new, "a page") == new


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("<!-- measured: step -->\n<!-- end -->", r"page.md has a block 'step', .* there are front, steps"),
        ("<!-- measured: steps -->\n", "page.md: <!-- measured: steps --> has no <!-- end --> after it"),
        ("<!-- end -->", "page.md has an end without a marker"),
        ("<!-- measured: ops -->\n<!-- measured: steps -->\n<!-- end -->", "page.md has a second marker"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_block_is_said(text, said):
    with pytest.raises(ValueError, match=said):
        measured.written(text, "page.md")


@pytest.mark.parametrize("name", sorted(measured.BLOCKS.keys() - OF_CARDS))
def test_a_block_without_its_rows_says_what_to_do(name, tmp_path, monkeypatch):
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    with pytest.raises(rows.Lacking, match=r"there is no .*\.csv: measure it"):
        measured.BLOCKS[name]()


def test_a_lacking_row_is_named():
    with pytest.raises(rows.Lacking, match="no committed row has op=step, case=ddpm: measure it"):
        rows.one([{"op": "step", "case": "ddim"}], op="step", case="ddpm")


def test_the_first_page_has_five_figures_and_a_loss():
    lines = measured.BLOCKS["front"]().splitlines()
    assert len(lines) == 7 and max(map(len, lines)) <= 110
    assert [line.count(" faster |") + line.count(" slower |") for line in lines[2:]] == [1] * 5
    assert lines[-1].endswith("slower |")
