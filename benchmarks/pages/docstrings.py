"""The house style of docstrings as sections for the API page, by an extension of griffe.

A docstring stays as it is read in the source: paragraphs, indented formulas, lists of names in aligned
columns, and "Raises ... where ...". `pieces` takes it apart; `Sections` gives the parts to griffe, whose
renderer makes a table of names, a block of a formula and a table of errors.
"""

import re
from collections.abc import Iterator
from itertools import groupby
from typing import NamedTuple

import griffe

NAMES = r"\*{0,2}\w+(?:, \*{0,2}\w+)*"
ITEM = re.compile(rf"({NAMES})( +)(\S.*)")
RAISES = re.compile(r"(?:(?<=^)|(?<=\. ))Raises (?=[A-Z]\w*(?:Error|Full)\b)")
ERROR = r"([A-Z]\w*(?:Error|Full)(?: or [A-Z]\w*(?:Error|Full))*),? (.*)"
NEXT_ERROR = re.compile(r"(?:[;,]|,? and) (?=[A-Z]\w*(?:Error|Full) )")
MARKUP = re.compile(r"([\\*_\[\]#])")


class Piece(NamedTuple):
    """A part of a docstring: its kind and what it holds.

    kind     "text", "formula", "names" or "raises"
    content  a string of "text" and "formula", pairs (name, what is said of it) of the others
    """

    kind: str
    content: str | list[tuple[str, str]]


def pieces(docstring: str) -> Iterator[Piece]:
    """A docstring's parts in their order."""
    for blank, lines in groupby(docstring.splitlines(), key=lambda line: not line.strip()):
        if not blank:
            yield from _paragraph(list(lines))


def _paragraph(lines: list[str]) -> Iterator[Piece]:
    """The parts of lines without an empty one between them."""
    column = _column(lines)
    while lines:
        items: list[tuple[str, str]] = []
        while lines and (item := _item(lines[0], column)):
            said = [item[1], *_indented(lines[1:])]
            items.append((item[0], " ".join(map(str.strip, said))))
            lines = lines[len(said) :]
        if items:
            yield Piece("names", items)
        if formula := _indented(lines):
            lines = lines[len(formula) :]
            yield Piece("formula", _dedented(formula))
        text = []
        while lines and not lines[0].startswith(" ") and not _item(lines[0], column):
            text.append(lines.pop(0))
        yield from _prose(" ".join(text))


def _column(lines: list[str]) -> int:
    """Where the text of a list begins, by its first item with two spaces or more; 0 where there is none."""
    found = (m for line in lines if (m := ITEM.fullmatch(line)) and len(m[2]) > 1)
    return next((match.start(3) for match in found), 0)


def _item(line: str, column: int) -> tuple[str, str] | None:
    """The name and the text of a line of a list; one space is enough where the column says so."""
    match = ITEM.fullmatch(line)
    if not match or not column or line.startswith("Raises "):
        return None
    return (match[1], match[3]) if len(match[2]) > 1 or match.start(3) == column else None


def _indented(lines: list[str]) -> list[str]:
    """The indented lines that come first."""
    end = next((i for i, line in enumerate(lines) if not line.startswith(" ")), len(lines))
    return lines[:end]


def _dedented(lines: list[str]) -> str:
    width = min(len(line) - len(line.lstrip()) for line in lines)
    return "\n".join(line[width:] for line in lines)


def _prose(text: str) -> Iterator[Piece]:
    """Sentences, and the errors that one of them tells."""
    before, *after = RAISES.split(text, maxsplit=1)
    if before:
        yield Piece("text", before.strip())
    if after:
        told, *more = re.split(r"(?<=[^.]\.) (?=[A-Z])", after[0], maxsplit=1)
        errors = [re.fullmatch(ERROR, part) for part in NEXT_ERROR.split(told)]
        yield Piece("raises", [(e[1], e[2].rstrip(".")) for e in errors if e])
        yield from _prose(" ".join(more))


def escaped(text: str) -> str:
    """Prose as Markdown: what is not in backticks means itself."""
    parts = text.split("`")
    parts[::2] = [MARKUP.sub(r"\\\1", part).replace("<", "&lt;") for part in parts[::2]]
    return "`".join(parts)


class Sections(griffe.Extension):
    """Gives griffe the parts of every docstring of a package, in place of a parser of its own."""

    def on_package(self, *, pkg: griffe.Module, **_: object) -> None:
        self._visit(pkg)

    def _visit(self, of: griffe.Object) -> None:
        if of.is_attribute and not of.docstring and (said := _comment(of)):
            of.docstring = griffe.Docstring(said, parent=of)
        if of.docstring:
            of.docstring.parsed = [_section(piece, of) for piece in pieces(of.docstring.value)]
        for member in of.members.values():
            if not member.is_alias:
                self._visit(member)


def _comment(of: griffe.Object) -> str:
    """The comment above a constant, which has no docstring."""
    above = of.lines_collection[of.filepath][: of.lineno - 1]
    lines = []
    while above and above[-1].startswith("# "):
        lines.insert(0, above.pop().removeprefix("# "))
    return "\n".join(lines)


def _section(piece: Piece, of: griffe.Object) -> griffe.DocstringSection:
    kind, content = piece
    if kind == "text":
        return griffe.DocstringSectionText(escaped(content))
    if kind == "formula":
        language = "python" if content.startswith(("from ", "import ")) else "text"
        return griffe.DocstringSectionText(f"```{language}\n{content}\n```")
    if kind == "raises":
        errors = [griffe.DocstringRaise(annotation=e, description=escaped(s)) for e, s in content]
        return griffe.DocstringSectionRaises(errors)
    known = {parameter.name: parameter for parameter in getattr(of, "parameters", ())}
    return _names([(name, escaped(said)) for name, said in content], known, of)


def _names(
    content: list[tuple[str, str]], known: dict[str, griffe.Parameter], of: griffe.Object
) -> griffe.DocstringSection:
    """Of a function its parameters, and of a class too where they are those it is made with."""
    if of.is_class and not all(n in known for name, _ in content for n in name.split(", ")):
        attributes = [
            griffe.DocstringAttribute(
                name=name, description=said, annotation=_one(_kinds(name, of.members | known))
            )
            for name, said in content
        ]
        return griffe.DocstringSectionAttributes(attributes)
    parameters = [
        griffe.DocstringParameter(
            name=name, description=said, annotation=_one(_kinds(name, known)),
            value=_one([_default(known[n]) for n in name.split(", ") if n in known]),
        )
        for name, said in content
    ]  # fmt: skip
    return griffe.DocstringSectionParameters(parameters)


def _default(parameter: griffe.Parameter) -> object:
    """griffe gives **options the default {}."""
    return None if "variadic" in parameter.kind.value else parameter.default


def _kinds(name: str, among: dict) -> list:
    """The types of one name, or of several with commas between them."""
    return [getattr(among[n], "annotation", None) for n in name.split(", ") if n in among]


def _one(said: list) -> object:
    """What is said of all names of an entry, where it is the same."""
    return said[0] if said and all(str(other) == str(said[0]) for other in said) else None
