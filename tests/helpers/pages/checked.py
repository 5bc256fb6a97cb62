"""Commands that are checked against the checkout and not run; each raises Refused with what is wrong."""

from __future__ import annotations

import re
from collections.abc import Callable

from packaging.requirements import Requirement

from diffusion_engine.solvers import SOLVERS

from . import tools
from .blocks import Page
from .sources import Sources

Words = list[str]
GIT = ("add", "checkout", "clone", "commit", "diff", "status", "switch")
LOGIC = {"not", "and", "or"}


class Refused(Exception):
    """Why a command is not one that works."""


def pip(words: Words, page: Page) -> None:
    """Extras are the project's, other packages are ones it depends on, bounds are not below its own."""
    if words == ["uninstall", "diffusion-engine"]:
        return
    if words[:1] != ["install"]:
        raise Refused(f"no test knows pip {' '.join(words)}")
    for word in words[1:]:
        if word == "-e":
            continue
        if match := re.fullmatch(r"(?:\.|diffusion-engine)(?:\[([\w,-]+)\])?", word):
            extras = set(filter(None, (match[1] or "").split(",")))
            if missing := extras - Sources.of(page.root).extras.keys():
                raise Refused(f"pyproject.toml has no extra {', '.join(missing)}")
            continue
        try:
            asked = Requirement(word)
        except ValueError as error:
            raise Refused(f"pip install {word}: {error}") from error
        bound = Sources.of(page.root).requirements.get(asked.name)
        if bound is None:
            raise Refused(f"the project does not depend on {asked.name}")
        for one in asked.specifier:
            if not bound.specifier.contains(one.version.removesuffix(".*")):
                raise Refused(f"pip install {word} is outside of {bound}")


def pytest(words: Words, page: Page) -> None:
    """Files and marks are there, and the words of -k are in names of tests."""
    sources, words = Sources.of(page.root), list(words)
    while words:
        word = words.pop(0)
        if word in ("-n", "--dist", "-k", "-m"):
            value = words.pop(0)
            if word == "-k":
                selected(value, page)
            elif word == "-m" and not set(re.findall(r"\w+", value)) - LOGIC <= sources.marks:
                raise Refused(f"pyproject.toml has no mark {value!r}")
        elif not word.startswith("-"):
            name, _, test = word.partition("::")
            exists(name, page)
            if test and f"def {test}(" not in (page.root / name).read_text():
                raise Refused(f"{name} has no {test}")
        elif word not in ("-q", "-x", "-v", "--lf", "--collect-only"):
            raise Refused(f"no test knows pytest {word}")


def selected(expression: str, page: Page) -> None:
    """Each word is in a test's name or file, or is a solver: the page's own, or a shipped one."""
    own = re.findall(r'ClassVar\[str\] = "(\w+)"', page.code)
    names = [*Sources.of(page.root).tests, *SOLVERS, *own]
    for word in set(re.findall(r"\w+", expression)) - LOGIC:
        if not any(word in name for name in names):
            raise Refused(f"pytest -k {expression!r} finds no test of {word}")


def known(words: Words, page: Page) -> None:
    """What a script of the checkout is given: names of the sources, or the page's own."""
    for word in words:
        if word not in Sources.of(page.root).words and f'"{word}"' not in page.code:
            raise Refused(f"no source has the name {word}")


def exists(name: str, page: Page) -> None:
    if not (page.root / name).exists():
        raise Refused(f"there is no {name}")


def bash(words: Words, page: Page) -> None:
    """Scripts of the checkout, which are not run; parts of gpu.sh are its own."""
    script = words[0] if words else ""
    exists(script or "a script", page)
    if script == "benchmarks/gpu.sh":
        parts = re.search(r"^parts=\((.*?)\)", (page.root / script).read_text(), re.MULTILINE)
        if parts is None or not set(words[2:]) <= set(parts[1].split()):
            raise Refused(f"{script} has no part {words[2:]}")
    elif words[1:]:
        raise Refused(f"no test knows arguments of {script}")


def of_ci(tool: str) -> Callable[[Words, Page], None]:
    """A tool that is used as the checks of a change use it."""

    def check(words: Words, page: Page) -> None:
        command, checks = " ".join([tool, *words]), Sources.of(page.root).checks
        if command not in tools.ALSO and not any(command in text for text in checks):
            raise Refused(f"{command!r} is not in .ci/ or .github/, which checks that it works")

    return check


def git(words: Words, page: Page) -> None:
    if not words or words[0] not in GIT:
        raise Refused(f"no test knows git {' '.join(words)}")


def place(words: Words, page: Page) -> None:
    """`cd` and `. .venv/bin/activate`: the folder of a page stays."""
    if len(words) != 1:
        raise Refused("one folder, or one file to read")
