"""How each command of a page is run or checked; a page may use no other."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import re
import runpy
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import typer
from packaging.requirements import Requirement

from diffusion_engine.cli import app as cli
from diffusion_engine.solvers import SOLVERS

from . import tools
from .blocks import Page
from .sources import Sources

if TYPE_CHECKING:
    from .runs import Run

Words = list[str]
Outcome = tuple[int, str, str]  # exit status, stdout, stderr
DONE: Outcome = (0, "", "")


class Refused(Exception):
    """Why a command is not one that works."""


def execute(words: Words, run: Run) -> Outcome:
    """Runs a command of a page, or checks it as COMMANDS says."""
    return handler(words)(words[1:], run.page, run)


def check(words: Words, page: Page) -> None:
    """Checks a command without running it."""
    handler(words)(words[1:], page, None)


def handler(words: Words) -> Callable[[Words, Page, Run | None], Outcome]:
    if not words or words[0] not in COMMANDS:
        known = ", ".join(sorted(COMMANDS))
        raise Refused(f"no test knows the command {words[0] if words else ''!r}; there are {known}")
    return COMMANDS[words[0]]


def known_variables(values: dict[str, str], page: Page) -> None:
    for name in values:
        if name not in Sources.of(page.root).words:
            raise Refused(f"no source of the project has the variable {name}")


# --- run in this process


def diffusion_engine(words: Words, page: Page, run: Run | None) -> Outcome:
    """The command line, in this process and the page's folder."""
    check_options(words)
    return DONE if run is None else in_process(cli.main, ["diffusion-engine", *words])


def in_process(call: Callable[[], object], argv: Words) -> Outcome:
    said, error, kept = io.StringIO(), io.StringIO(), sys.argv
    sys.argv, code = argv, 0
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(error):
            call()
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    finally:
        sys.argv = kept
    return code, said.getvalue(), error.getvalue()


@cache
def options_of() -> dict[str, set[str]]:
    """The options of each command of the command line."""
    known = typer.main.get_command(cli.app).commands  # type: ignore[attr-defined]
    return {
        name: {o for p in command.params for o in (*p.opts, *p.secondary_opts)} | {"--help"}
        for name, command in known.items()
    }


def options() -> set[str]:
    return set().union(*options_of().values())


def check_options(words: Words) -> None:
    """A command of the command line, and options of it."""
    known = options_of()
    if not words or words[0].startswith("-"):
        return
    if words[0] not in known:
        raise Refused(f"diffusion-engine has no command {words[0]!r}")
    for word in words[1:]:
        if word.startswith("--") and word.partition("=")[0] not in known[words[0]]:
            raise Refused(f"diffusion-engine {words[0]} has no option {word}")


def python(words: Words, page: Page, run: Run | None) -> Outcome:
    match words:
        case ["-m", "diffusion_engine.cli", *rest]:
            return diffusion_engine(rest, page, run)
        case ["-m", ("pip" | "pytest" | "ruff" | "mypy" | "build") as module, *rest]:
            return handler([module])(rest, page, run)
        case ["-m", "venv", folder] if not folder.startswith("-"):
            return DONE
        case ["-m", module, *rest]:
            return accepted(module, rest)
        case ["setup.py", "build_ext", "--inplace"]:
            return exists("setup.py", page)
        case [script] if script.endswith(".py"):
            if run is None:
                return DONE
            if not (run.folder / script).is_file():
                raise Refused(f"the page makes no {script}; write <!-- file: {script} --> before its code")
            return in_process(lambda: runpy.run_path(script, run_name="__main__"), [script])
    raise Refused(f"no test knows python {' '.join(words)}")


def accepted(module: str, words: Words) -> Outcome:
    """A module of the checkout whose parser takes the words; it is not run."""
    if module.partition(".")[0] not in ("benchmarks", "diffusion_engine"):
        raise Refused(f"no test knows python -m {module}")
    try:
        found = importlib.util.find_spec(module)
    except ModuleNotFoundError:
        found = None
    if found is None or found.origin is None:
        raise Refused(f"there is no module {module}")
    source = Path(found.origin).read_text()
    if "__main__" not in source:
        raise Refused(f"python -m {module} does nothing: it has no __main__")
    if "argparse" not in source:
        if words:
            raise Refused(f"python -m {module} takes no arguments")
        return DONE
    code, _, error = in_process(lambda: parse_alone(module), [module, *words])
    if code:
        raise Refused(f"python -m {module} {' '.join(words)}: {error.strip().splitlines()[-1]}")
    return DONE


def parse_alone(module: str) -> None:
    """Runs a module until its arguments are parsed."""

    class Parsed(Exception):
        pass

    parse = argparse.ArgumentParser.parse_args

    def stop(self: argparse.ArgumentParser, *args: Any, **named: Any) -> NoReturn:
        parse(self, *args, **named)
        raise Parsed

    argparse.ArgumentParser.parse_args = stop  # type: ignore[assignment]
    try:
        runpy.run_module(module, run_name="__main__")
    except Parsed:
        pass
    finally:
        argparse.ArgumentParser.parse_args = parse


def torchrun(words: Words, page: Page, run: Run | None) -> Outcome:
    """torchrun's own parser takes the words; the command runs as one rank of one.

    That several ranks make the samples of one is proved in tests/sampler/test_ranks.py.
    """
    from torch.distributed.run import get_args_parser

    parsed: list[argparse.Namespace] = []
    code, _, error = in_process(lambda: parsed.append(get_args_parser().parse_args(words)), ["torchrun"])
    if code:
        raise Refused(f"torchrun: {error.strip().splitlines()[-1]}")
    if not parsed[0].module or parsed[0].training_script != "diffusion_engine.cli":
        raise Refused("torchrun starts -m diffusion_engine.cli")
    from .runs import environment

    with environment({"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}):
        return diffusion_engine(parsed[0].training_script_args, page, run)


def nsys(words: Words, page: Page, run: Run | None) -> Outcome:
    """Its options are known ones; what it profiles runs without it."""
    if words[:1] == ["profile"]:
        rest = strip(words[1:], tools.NSYS_PROFILE, "nsys profile")
        return handler(rest)(rest[1:], page, run)
    if words[:1] == ["stats"]:
        files = strip(words[1:], tools.NSYS_STATS, "nsys stats")
        for name in files:
            if f"-o {name.removesuffix('.nsys-rep')} " not in page.code.replace("\\\n", " "):
                raise Refused(f"no nsys profile -o of the page writes {name}")
        return DONE
    raise Refused(f"no test knows nsys {' '.join(words)}")


def ncu(words: Words, page: Page, run: Run | None) -> Outcome:
    rest = strip(words, tools.NCU, "ncu")
    return handler(rest)(rest[1:], page, run)


def strip(words: Words, options: dict[str, str], tool: str) -> Words:
    """The words after the options of a tool, each a known one with a value that it takes."""
    while words and words[0].startswith("-"):
        name, equals, value = words[0].partition("=")
        words = words[1:]
        if name not in options:
            raise Refused(f"{tool} has no option {name} that tests know; see tests/helpers/pages/tools.py")
        pattern = options[name]
        if pattern and not equals:
            if not words:
                raise Refused(f"{tool} {name} has no value")
            value, words = words[0], words[1:]
        if not re.fullmatch(pattern, value):
            raise Refused(f"{tool} {name} does not take {value!r}")
    return words


# --- checked


def pip(words: Words, page: Page, run: Run | None) -> Outcome:
    """Extras are the project's, other packages are ones it depends on, bounds are not below its own."""
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
    return DONE


def pytest(words: Words, page: Page, run: Run | None) -> Outcome:
    """Files and marks are there, and the words of -k are in names of tests."""
    sources, words = Sources.of(page.root), list(words)
    while words:
        word = words.pop(0)
        if word in ("-n", "--dist", "-k", "-m"):
            value = words.pop(0)
            if word == "-k":
                selected(value, page)
            elif word == "-m" and not set(re.findall(r"\w+", value)) - {"not", "and", "or"} <= sources.marks:
                raise Refused(f"pyproject.toml has no mark {value!r}")
        elif not word.startswith("-"):
            name, _, test = word.partition("::")
            exists(name, page)
            if test and f"def {test}(" not in (page.root / name).read_text():
                raise Refused(f"{name} has no {test}")
        elif word not in ("-q", "-x", "-v", "--lf", "--collect-only"):
            raise Refused(f"no test knows pytest {word}")
    return DONE


def selected(expression: str, page: Page) -> None:
    """Each word is in a test's name or file, or is a solver: the page's own, or a shipped one."""
    names = [*Sources.of(page.root).tests, *SOLVERS, *re.findall(r'ClassVar\[str\] = "(\w+)"', page.code)]
    for word in set(re.findall(r"\w+", expression)) - {"not", "and", "or"}:
        if not any(word in name for name in names):
            raise Refused(f"pytest -k {expression!r} finds no test of {word}")


def exists(name: str, page: Page) -> Outcome:
    if not (page.root / name).exists():
        raise Refused(f"there is no {name}")
    return DONE


def bash(words: Words, page: Page, run: Run | None) -> Outcome:
    """Scripts of the checkout, which are not run; parts of gpu.sh are its own."""
    script = words[0] if words else ""
    exists(script or "a script", page)
    if script == "benchmarks/gpu.sh":
        parts = re.search(r"^parts=\((.*?)\)", (page.root / script).read_text(), re.MULTILINE)
        if parts is None or not set(words[2:]) <= set(parts[1].split()):
            raise Refused(f"{script} has no part {words[2:]}")
    elif words[1:]:
        raise Refused(f"no test knows arguments of {script}")
    return DONE


def of_ci(tool: str) -> Callable[[Words, Page, Run | None], Outcome]:
    """A tool that is used as the checks of a change use it."""

    def check(words: Words, page: Page, run: Run | None) -> Outcome:
        command = " ".join([tool, *words])
        if command not in tools.ALSO and not any(command in text for text in Sources.of(page.root).checks):
            raise Refused(f"{command!r} is not in .ci/ or .github/, which checks that it works")
        return DONE

    return check


def git(words: Words, page: Page, run: Run | None) -> Outcome:
    if not words or words[0] not in ("add", "checkout", "clone", "commit", "diff", "status", "switch"):
        raise Refused(f"no test knows git {' '.join(words)}")
    return DONE


def place(words: Words, page: Page, run: Run | None) -> Outcome:
    """`cd` and `. .venv/bin/activate`: the folder of a page stays."""
    if len(words) != 1:
        raise Refused("one folder, or one file to read")
    return DONE


COMMANDS: dict[str, Callable[[Words, Page, Run | None], Outcome]] = {
    "diffusion-engine": diffusion_engine,
    "python": python,
    "python3": python,
    "torchrun": torchrun,
    "nsys": nsys,
    "ncu": ncu,
    "pip": pip,
    "pytest": pytest,
    "bash": bash,
    ".ci/run": lambda words, page, run: bash([".ci/run", *words], page, run),
    "git": git,
    "cd": place,
    ".": place,
    "source": place,
    **{name: of_ci(name) for name in ("build", "codespell", "mypy", "ruff", "twine", "zensical")},
}
