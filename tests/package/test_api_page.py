"""docs/api.md holds every public name with what its docstring says, and each says its arguments."""

import importlib
import re
from functools import cache
from pathlib import Path

from optional import needs

griffe = needs("griffe")
docstrings = importlib.import_module("benchmarks.pages.docstrings")

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "api.md").read_text()
# The names, and where the page chooses among a class's members, which.
ENTRIES = re.split(r"^::: diffusion_engine\.", PAGE, flags=re.MULTILINE)[1:]
CHOSEN = {entry.split()[0]: re.findall(r"(?<= members: \[).*(?=\])", entry) for entry in ENTRIES}
NAMES = list(CHOSEN)
# Names that mean the same everywhere: the page's beginning says them once.
GLOSSARY = set(re.findall(r"`(\w+)`", PAGE.partition("\n## ")[0]))
EXPORTING = (
    "accelerate", "client", "engine", "executors", "genie", "ops.functional", "processes", "profiling",
    "rollouts", "solvers", "testing",
)  # fmt: skip

DOCSTRING = """\
One sentence of `code`
in two lines:

    out = w x
      + b

weight, bias  [C], of
              any dtype
scale  [B, C]
silu   whether it is
Raises ValueError on a shape, TypeError on a dtype; KeyError or BatchFull where both are. More.

It ends here. Raises ValueError where
it must."""


def test_a_docstring_is_taken_apart():
    kinds, contents = zip(*docstrings.pieces(DOCSTRING), strict=True)
    assert kinds == ("text", "formula", "names", "raises", "text", "text", "raises")
    assert contents[0] == "One sentence of `code` in two lines:"
    assert contents[1] == "out = w x\n  + b"
    assert contents[2][0] == ("weight, bias", "[C], of any dtype")
    assert [name for name, _ in contents[2]] == ["weight, bias", "scale", "silu"]
    assert contents[3][0] == ("ValueError", "on a shape")
    assert contents[3][1] == ("TypeError", "on a dtype")
    assert contents[3][2] == ("KeyError or BatchFull", "where both are")
    assert contents[4:] == ("More.", "It ends here.", [("ValueError", "where it must")])


def test_one_space_is_enough_for_a_name_as_wide_as_its_column():
    ((kind, items),) = docstrings.pieces("by    a\nwhole b\n      and c")
    assert (kind, items) == ("names", [("by", "a"), ("whole", "b and c")])


def test_prose_is_no_markup():
    assert docstrings.escaped("[n, *a] of `*b`, c_d < e") == r"\[n, \*a\] of `*b`, c\_d &lt; e"


@cache
def package():
    extensions = griffe.load_extensions("dataclasses", docstrings.__file__)
    return griffe.load(
        "diffusion_engine", search_paths=[ROOT], extensions=extensions, resolve_aliases=True
    )


def found(name):
    thing = package()[name]
    if thing.is_module and thing.name in thing.members:  # its function hides it
        thing = thing.members[thing.name]
    return thing.final_target if thing.is_alias else thing


@cache
def classes():
    """All classes of the package by name."""

    def below(thing):
        for member in thing.members.values():
            if not member.is_alias and (member.is_class or member.is_module):
                yield from below(member)
                if member.is_class:
                    yield member

    return {kind.name: kind for kind in below(package())}


def shown():
    """Everything on the page: the names and the functions of classes among them."""
    for name, chosen in CHOSEN.items():
        thing = found(name)
        yield thing
        for member in thing.members.values() if thing.is_class else ():
            public = member.name in chosen[0].split(", ") if chosen else member.name[0] != "_"
            if public and member.is_function and member.docstring:
                yield member


def words(thing, seen):
    """The words of a docstring, and of those of its class, of classes and of neighbours that it names."""
    if thing.path in seen or not (thing.is_class or thing.is_function):
        return set()
    seen.add(thing.path)
    text = thing.docstring.value if thing.docstring else ""
    if "__init__" in thing.members and thing.members["__init__"].docstring:
        text += thing.members["__init__"].docstring.value
    own = set(re.findall(r"\w+", text))
    near = [m for name, m in thing.parent.members.items() if name in own and not m.is_alias]
    named = [thing.parent, *near, *(classes()[word] for word in own & set(classes()))]
    return own.union(*(words(other, seen) for other in named))


def arguments(thing):
    listed = getattr(thing, "parameters", ())
    return [p.name for p in listed if p.name not in ("self", "cls", "request", "how")]


def test_every_exported_name_is_on_the_page():
    listed = {
        name: importlib.import_module(f"diffusion_engine.{name}").__all__ for name in EXPORTING
    }
    names = [f"{module}.{name}" for module, all_of in listed.items() for name in all_of]
    names += importlib.import_module("diffusion_engine").__all__
    on_page = {found(name).path for name in NAMES} | {"diffusion_engine.processes"}
    assert [name for name in names if found(name).path not in on_page] == []


def test_what_the_pages_import_is_on_the_page():
    """But for modules, which it holds by their names."""
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    text = "\n".join(page.read_text() for page in pages)
    pairs = re.findall(r"^ *from diffusion_engine\.?([\w.]*) import ([\w, ]+)", text, re.MULTILINE)
    names = {".".join(filter(None, (m, n.split()[0]))) for m, ns in pairs for n in ns.split(",")}
    assert len(names) > 10
    on_page = {found(name).path for name in NAMES}
    imported = [found(name) for name in sorted(names)]
    assert [t.path for t in imported if not t.is_module and t.path not in on_page] == []


def test_every_name_has_a_docstring_that_says_its_arguments():
    assert [name for name in NAMES if not found(name).docstring] == []
    silent = {}
    for thing in shown():
        known = words(thing, set()) | GLOSSARY
        if missing := [name for name in arguments(thing) if name not in known]:
            silent[thing.path] = missing
    assert silent == {}


def test_what_a_docstring_lists_is_a_parameter_of_the_page():
    """With the type that the signature gives it."""
    lost, untyped = [], []
    for thing in shown():
        sections = [
            s for s in thing.docstring.parsed if s.kind.value in ("parameters", "attributes")
        ]
        entries = [entry for section in sections for entry in section.value]
        on_page = {name for entry in entries for name in entry.name.split(", ")}
        heads = re.findall(r"^(\w+(?:, \w+)*)  +\S", thing.docstring.value, re.MULTILINE)
        lost += [(thing.path, n) for head in heads for n in head.split(", ") if n not in on_page]
        types = {p.name: str(p.annotation) for p in getattr(thing, "parameters", ())}
        kinds = {entry.name: str(entry.annotation) for entry in entries if entry.name in types}
        untyped += [(thing.path, n) for n, kind in kinds.items() if kind != types[n]]
    assert (lost, untyped) == ([], [])


def test_names_as_wide_as_their_column_are_parameters():
    sections = found("Sampler").docstring.parsed
    (parameters,) = [s.value for s in sections if s.kind.value == "parameters"]
    listed = [parameter.name for parameter in parameters]
    assert listed == [n for n in arguments(found("Sampler")) if n != "options"]
