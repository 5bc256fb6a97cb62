"""A page and its code blocks."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

TITLE = re.compile(r'title="(.*?)"')
COMMENT = re.compile(r"<!--\s*(.*?)\s*-->")
GENERATED = re.compile(r"\s*<!--\s*(measured:|end\b)")
NOTE = re.compile(r"""\s*(!!!|\?\?\?\+?|===\+?!?)\s+["\w]""")  # or a fold, or a tab, of the site
INCLUDES = re.compile(r'--8<-- "(.*)"\n(\s*\[.*\]: .*\n)*\s*')  # and says where its links lead
FRONT = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)


class PageError(AssertionError):
    """What is wrong, with page and line."""


@dataclass(frozen=True)
class Block:
    """A block of code.

    language  the first word of its info string, "" without one, "indented" where it has no fence
    line      of the page, from 1, on which its code begins
    marker    what the HTML comment before it says, or else the title in its info string
    of        the line on which the block begins that this is the output of
    """

    language: str
    code: str
    line: int
    last: int
    marker: str = ""
    of: int | None = None


@dataclass
class Page:
    """A page of a checkout, its folder `root`."""

    path: Path
    root: Path
    tokens: list[Token] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.text = self.path.read_text(encoding="utf-8")
        self.tokens = MarkdownIt("commonmark").enable("table").parse(flat(self.text))

    @classmethod
    def at(cls, path: Path) -> Page:
        """The page of a path, or the one that it does nothing but include."""
        path = path.resolve()
        root = next(folder for folder in path.parents if (folder / "pyproject.toml").is_file())
        other = INCLUDES.fullmatch(path.read_text(encoding="utf-8"))
        return cls(root / other[1] if other else path, root)

    @property
    def name(self) -> str:
        return self.path.relative_to(self.root).as_posix()

    def error(self, line: int, message: str) -> PageError:
        return PageError(f"{self.name}:{line}: {message}")

    @property
    def lines(self) -> list[str]:
        return self.text.splitlines()

    @cached_property
    def generated(self) -> set[int]:
        """The lines that a program writes: all, or those between <!-- measured: --> and <!-- end -->."""
        if re.search(r"^Written by `python -m ", self.text, re.MULTILINE):
            return set(range(1, len(self.lines) + 1))
        marks = [i for i, line in enumerate(self.lines, 1) if GENERATED.match(line)]
        opened = [i for i in marks if "measured:" in self.lines[i - 1]]
        if marks[::2] != opened or len(marks) % 2:
            raise self.error(
                marks[0], "a <!-- measured: NAME --> and its <!-- end --> are not in turn"
            )
        return {
            i for low, high in zip(marks[::2], marks[1::2], strict=True) for i in range(low, high)
        }

    @cached_property
    def blocks(self) -> list[Block]:
        """The blocks in the order of the page."""
        found: list[Block] = []
        for before, token in pairwise([Token("", "", 0), *self.tokens]):
            if token.type not in ("fence", "code_block") or token.map is None:
                continue
            first, last = token.map
            language = (token.info.split() or [""])[0] if token.type == "fence" else "indented"
            marker = COMMENT.findall(before.content) if before.type == "html_block" else []
            line = first + 1 + (token.type == "fence")
            of = found[-1] if found and self._nothing_between(found[-1].last, first) else None
            shown = language == "text" and of is not None and of.language in ("python", "bash")
            name = (marker or TITLE.findall(token.info) or [""])[-1]
            source = of.line if of is not None and shown else None
            found.append(Block(language, token.content, line, last, name, source))
        return found

    def _nothing_between(self, last: int, first: int) -> bool:
        return not COMMENT.sub("", "\n".join(self.lines[last:first])).strip()

    def output_of(self, block: Block) -> Block | None:
        """The block that shows what this one prints."""
        return next((b for b in self.blocks if b.of == block.line), None)

    @cached_property
    def code(self) -> str:
        """All code of the page."""
        return "\n".join(block.code for block in self.blocks)


def flat(text: str) -> str:
    """The text with the contents of notes, folds and tabs one level up, on the lines where they were."""
    text = FRONT.sub(lambda front: "\n" * front[0].count("\n"), text)
    made, inside = [], None
    for line in text.splitlines():
        indent = len(line) - len(line.lstrip())
        if inside is not None and line.strip() and indent <= inside:
            inside = None
        if inside is not None:
            made.append(line[inside + 4 :])
            continue
        if NOTE.match(line):
            inside = indent
            line = ""
        made.append(line)
    return "\n".join(made) + "\n"


def pages_of(root: Path) -> list[Page]:
    """The pages of a checkout; one that only includes another is that one."""
    names = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "benchmarks/README.md")
    paths = [root / name for name in names if (root / name).is_file()]
    paths += sorted((root / "docs").rglob("*.md"))
    return [Page.at(p) for p in paths if INCLUDES.fullmatch(p.read_text()) is None]
