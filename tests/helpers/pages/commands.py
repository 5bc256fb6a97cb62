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

from diffusion_engine.cli import app as cli

from . import checked, server, tools
from .blocks import Page
from .checked import Refused, Words
from .sources import Sources

if TYPE_CHECKING:
    from .runs import Run

Outcome = tuple[int, str, str]  # exit status, stdout, stderr
Command = Callable[[Words, Page, "Run | None"], Outcome]  # without a run it is only checked
DONE: Outcome = (0, "", "")


def execute(words: Words, run: Run) -> Outcome:
    """Runs a command of a page, or checks it as COMMANDS says."""
    return handler(words)(words[1:], run.page, run)


def check(words: Words, page: Page) -> None:
    """Checks a command without running it."""
    handler(words)(words[1:], page, None)


def handler(words: Words) -> Command:
    if not words or words[0] not in COMMANDS:
        known = ", ".join(sorted(COMMANDS))
        raise Refused(f"no test knows the command {words[0] if words else ''!r}; there are {known}")
    return COMMANDS[words[0]]


def known_variables(values: dict[str, str], page: Page) -> None:
    for name in values:
        if name not in Sources.of(page.root).words:
            raise Refused(f"no source of the project has the variable {name}")


def diffusion_engine(words: Words, page: Page, run: Run | None) -> Outcome:
    """The command line, in this process and the page's folder."""
    check_options(words)
    if run is not None and words[:1] == ["serve"] and "--print-config" not in words:
        run.serve(words)
        return DONE
    return DONE if run is None else in_process(cli.main, ["diffusion-engine", *words])


def curl(words: Words, page: Page, run: Run | None) -> Outcome:
    return DONE if run is None else server.curl(words, run)


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
        name: {
            o
            for one in (command, *getattr(command, "commands", {}).values())
            for p in one.params
            for o in (*p.opts, *p.secondary_opts)
        }
        | {"--help"}
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
            checked.exists("setup.py", page)
            return DONE
        case [script, *rest] if script.endswith(".py") and (page.root / script).is_file():
            checked.known(rest, page)
            return DONE
        case [script] if script.endswith(".py"):
            if run is None:
                return DONE
            if not (run.folder / script).is_file():
                raise Refused(f"the page makes no {script}: put <!-- file: {script} --> before it")
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
    path = Path(found.origin)
    if path.name == "__init__.py" and path.with_name("__main__.py").exists():
        path, module = path.with_name("__main__.py"), f"{module}.__main__"
    source = path.read_text()
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
    parser = get_args_parser()
    code, _, error = in_process(lambda: parsed.append(parser.parse_args(words)), ["torchrun"])
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
            raise Refused(f"{tool} {name} is not in tests/helpers/pages/tools.py")
        pattern = options[name]
        if pattern and not equals:
            if not words:
                raise Refused(f"{tool} {name} has no value")
            value, words = words[0], words[1:]
        if not re.fullmatch(pattern, value):
            raise Refused(f"{tool} {name} does not take {value!r}")
    return words


def only(check: Callable[[Words, Page], None]) -> Command:
    """A command that is checked and not run."""

    def checks(words: Words, page: Page, run: Run | None) -> Outcome:
        check(words, page)
        return DONE

    return checks


COMMANDS: dict[str, Command] = {
    "diffusion-engine": diffusion_engine,
    "python": python,
    "python3": python,
    "torchrun": torchrun,
    "nsys": nsys,
    "ncu": ncu,
    "curl": curl,
    "pip": only(checked.pip),
    "pytest": only(checked.pytest),
    "bash": only(checked.bash),
    ".ci/run": only(lambda words, page: checked.bash([".ci/run", *words], page)),
    "git": only(checked.git),
    "cd": only(checked.place),
    ".": only(checked.place),
    "source": only(checked.place),
    **{
        name: only(checked.of_ci(name))
        for name in ("build", "codespell", "mypy", "ruff", "twine", "zensical")
    },
}
