"""What a page names is there: files, modules, commands, options, words of code; its links lead somewhere."""

from __future__ import annotations

import ast
import builtins
import fnmatch
import importlib
import inspect
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import fields
from functools import cache
from typing import Any
from urllib.parse import unquote

from markdown_it.token import Token

import diffusion_engine
from diffusion_engine import SOLVERS, Sampler
from diffusion_engine.sampler.request import Request

from . import commands, given, shell
from .blocks import Page
from .sources import Sources

LONGEST = 110
ENDINGS = r"py|md|cpp|cu|cuh|h|csv|toml|sh|json|png|npz|safetensors|yml|txt|cff|nsys-rep|ncu-rep"
PATH = re.compile(rf"[\w.<>*-]*/[\w.<>*/-]*?(\.(?:{ENDINGS}))?|[\w.<>*-]+(\.(?:{ENDINGS}))")
PACKAGES = ("diffusion_engine", "benchmarks")


def faults(page: Page) -> list[str]:
    """What is wrong, each with page and line."""
    checks = (too_long, wrong_names, wrong_links)
    return [str(page.error(line, said)) for check in checks for line, said in check(page)]


# --- length


def too_long(page: Page) -> Iterator[tuple[int, str]]:
    """Of the front and the site, but for tables, addresses, and what programs write."""
    if page.path.parent not in (page.root, page.root / "docs"):
        return
    for number, line in enumerate(page.lines, 1):
        spared = number in page.generated or line.lstrip().startswith("|") or "://" in line
        if len(line) > LONGEST and not spared:
            yield number, f"{len(line)} characters, more than {LONGEST}"


# --- names


def spans(page: Page) -> Iterator[tuple[int, str]]:
    """The code in backticks, by line."""
    for line, token in inline(page):
        if token.type == "code_inline":
            yield line, token.content


def inline(page: Page) -> Iterator[tuple[int, Token]]:
    """The parts of the text by their line, but for what a program writes."""
    for token in page.tokens:
        if token.type != "inline" or token.map is None:
            continue
        line = token.map[0] + 1
        for part in token.children or []:
            if line not in page.generated:
                yield line, part
            line += part.type in ("softbreak", "hardbreak")
            line += part.content.count("\n") if part.type == "code_inline" else 0


def wrong_names(page: Page) -> Iterator[tuple[int, str]]:
    for line, code in spans(page):
        if said := wrong(code, page):
            yield line, f"`{code}`: {said}"


def wrong(code: str, page: Page) -> str | None:
    """What is wrong with code in backticks, None where nothing is known to be."""
    words = code.split()
    if not words or code in page.code or code in given.EXAMPLES.get(page.name, ()):
        return None
    if f"file: {code}" in (block.marker for block in page.blocks):  # the reader writes it
        return None
    if words[0] in commands.COMMANDS:
        return wrong_command(code, page)
    if words[0].startswith("--") and len(words) <= 2:
        return wrong_option(words[0].partition("=")[0], page)
    if is_path(code, page):
        return wrong_path(code, page)
    if re.fullmatch(rf"({'|'.join(PACKAGES)})(\.\w+)+(\(.*\))?", code):
        return wrong_dotted(code.partition("(")[0])
    return wrong_call(code) or wrong_words(code, page)


def is_path(code: str, page: Page) -> bool:
    """Whether it ends as a file or a folder does, or begins with a folder of the checkout."""
    match = PATH.fullmatch(code)
    folder = f"/{code.partition('/')[0]}/"
    return match is not None and (
        bool(match[1] or match[2])
        or code.endswith("/")
        or any(f"/{path}".endswith(folder) for path in Sources.of(page.root).paths)
    )


def wrong_command(code: str, page: Page) -> str | None:
    try:
        for command in shell.commands(code):
            commands.known_variables(command.environment, page)
            if len(command.words) > 1:  # alone it is the tool's name
                commands.check([w for w in command.words if w != "..."], page)
    except (commands.Refused, shell.Unread) as error:
        return str(error)
    return None


def wrong_option(option: str, page: Page) -> str | None:
    """Of the command line, of a module with a parser, of a tool, or of a command of the page."""
    if option in commands.options() or option in page.code:
        return None
    if f'"{option}"' in Sources.of(page.root).text:
        return None
    return "no command has this option"


def wrong_path(code: str, page: Page) -> str | None:
    """A path from the root or from some folder, with <op> and * for anything; `_gpu.py` ends one."""
    pattern = re.sub(r"<\w+>", "*", code).removeprefix("./")
    pattern = pattern if pattern.startswith("_") else f"/{pattern.lstrip('/')}"
    paths = [f"/{path}" for path in Sources.of(page.root).paths]
    paths += [f"/{made}" for made in Sources.of(page.root).made]
    both = [*paths, *(path.rstrip("/") for path in paths)]
    return None if fnmatch.filter(both, f"*{pattern}") else "the checkout has no such file"


def wrong_dotted(name: str) -> str | None:
    module, rest = name, []
    while module:
        try:
            found: Any = importlib.import_module(module)
            break
        except ImportError:
            module, _, last = module.rpartition(".")
            rest.insert(0, last)
    else:
        return "there is no such module"
    for part in rest:
        declared = getattr(found, "__dataclass_fields__", {})
        if not hasattr(found, part) and part not in declared:
            return f"{getattr(found, '__name__', found)} has no {part}"
        found = getattr(found, part, None)
    return None


def wrong_call(code: str) -> str | None:
    """Keywords of calls of the package's own are arguments of theirs."""
    try:
        tree = ast.parse(code.replace("...", "_"), mode="eval")
    except SyntaxError:
        return None
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and (called := resolved(node.func)) is not None:
            takes = inspect.signature(called).parameters
            passed_on = any(p.kind is p.VAR_KEYWORD for p in takes.values())
            known = {*takes, *(of_samplers() if passed_on else ())}
            if odd := [k.arg for k in node.keywords if k.arg and k.arg not in known]:
                return f"{ast.unparse(node.func)} does not take {', '.join(odd)}"
    return None


@cache
def of_samplers() -> set[str]:
    """The keywords that calls of a sampler pass on: of requests, runs and recipes, and solvers' options."""
    calls = (Sampler, Sampler.chunks, Request.of)
    found = {"plan"} | {name for call in calls for name in inspect.signature(call).parameters}
    return found | {f.name for kind in SOLVERS.values() for f in fields(kind)}


def resolved(func: ast.expr) -> Any:
    """The package's own of a name: `Sampler`, `Sampler.encode`, `sampler.encode`, `result.save`."""
    parts = ast.unparse(func).split(".")
    known = {name: getattr(diffusion_engine, name) for name in diffusion_engine.__all__}
    known |= {"sampler": diffusion_engine.Sampler, "network": diffusion_engine.ScoreNetwork}
    found = known.get(parts[0])
    for part in parts[1:]:
        found = getattr(found, part, None)
    return found if callable(found) else None


def wrong_words(code: str, page: Page) -> str | None:
    """Each word of three letters or more is in a source of the project, or in the page's own code."""
    known = Sources.of(page.root).words | set(re.findall(r"\w+", page.code)) | set(dir(builtins))
    known |= given.OF_OTHERS
    words = re.findall(r"[A-Za-z_]\w{2,}", code)
    missing = [word for word in words if word not in known and not of_torch(word)]
    return f"no source has {', '.join(missing)}" if missing else None


def of_torch(word: str) -> bool:
    import torch

    places = (torch, torch.nn, torch.nn.functional, torch.Tensor)
    return any(hasattr(place, word) for place in places)


# --- links


def wrong_links(page: Page) -> Iterator[tuple[int, str]]:
    for line, token in inline(page):
        target = str(token.attrGet("href") or token.attrGet("src") or "")
        if not target or "://" in target or target.startswith("mailto:"):
            continue
        if said := wrong_link(unquote(target), page):
            yield line, f"link to {target}: {said}"


def wrong_link(target: str, page: Page) -> str | None:
    name, _, anchor = target.partition("#")
    path = (page.path.parent / name).resolve() if name else page.path
    if not path.exists():
        return "there is no such file"
    docs = page.root / "docs"
    if page.path.parent == docs and not page.generated and not path.is_relative_to(docs):
        return "a page of docs/ links to pages of docs/ only; write the path as code"
    if anchor and anchor not in anchors(Page.at(path)):
        return "the page has no such heading"
    return None


def anchors(page: Page) -> set[str]:
    """The headings' addresses, as GitHub makes them, and ids that are written out."""
    seen: Counter[str] = Counter()
    found = set(re.findall(r"""(?:id|name)=["']([\w-]+)["']""", page.text))
    found |= set(re.findall(r"\{\s*#([\w-]+)\s*\}", page.text))
    for token, content in zip(page.tokens, page.tokens[1:], strict=False):
        if token.type == "heading_open":
            slug = slug_of(content)
            found.add(f"{slug}-{seen[slug]}" if seen[slug] else slug)
            seen[slug] += 1
    return found


def slug_of(heading: Token) -> str:
    text = "".join(t.content for t in heading.children or [] if t.type in ("text", "code_inline"))
    return re.sub(r"[^\w\- ]", "", text.lower()).strip().replace(" ", "-")
