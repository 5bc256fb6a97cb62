"""Runs a page as its reader does: its blocks in order, in one namespace and one empty folder."""

from __future__ import annotations

import ast
import contextlib
import difflib
import io
import json
import os
import re
import sys
import tempfile
import tomllib
import traceback
import types
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import tape
import torch

from diffusion_engine.executors import graph, stages

from . import commands, given, shell
from .blocks import Block, Page, PageError
from .server import WRITTEN, Server

NAME = "page"  # of the module that a page's Python is
KNOWN = "```python, ```bash, ```text for what the block before it prints, ```json, ```toml"


@dataclass
class Run:
    """A page that runs in a folder.

    names  what its Python knows
    after  marker -> what it knew after the block of that marker
    used   the substitutions that took place
    server  that the page started
    """

    page: Page
    folder: Path
    module: types.ModuleType = field(default_factory=lambda: types.ModuleType(NAME))
    after: dict[str, dict[str, Any]] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)
    server: Server | None = None

    @property
    def names(self) -> dict[str, Any]:
        return vars(self.module)

    def blocks(self) -> None:
        for block in self.page.blocks:
            if block.marker in given.ELSEWHERE:
                continue
            if block.line in self.page.generated:
                self._only_checked(block)
                continue
            printed = self.block(block)
            shown = self.page.output_of(block)
            if shown is not None:
                self._compare(shown, printed)
            if block.marker:
                self.after[block.marker] = dict(self.names)

    def block(self, block: Block) -> str:
        """Runs or reads a block; returns what it printed."""
        if block.marker.startswith("file:"):
            return self._file(block)
        match block.language:
            case "python":
                return self._python(block)
            case "bash":
                return self._bash(block)
            case "text" if block.of is not None:
                return ""
            case "json" | "toml":
                return self._parsed(block)
            case "text":
                raise self.page.error(block.line, "this text is the output of no block before it")
            case "indented":
                return self._formula(block)
        raise self.page.error(
            block.line, f"a block of {block.language or 'no language'}; say {KNOWN}"
        )

    def _only_checked(self, block: Block) -> None:
        """The commands that a program wrote beside its figures."""
        whole = block.language == "bash"
        for number, line in enumerate(
            [block.code] if whole else block.code.splitlines(), block.line
        ):
            if whole or (line.split() or [""])[0] in commands.COMMANDS:
                with self._located(number):
                    for command in shell.commands(line):
                        commands.check(list(command.words), self.page)

    def serve(self, words: list[str]) -> None:
        """Starts the page's server, in place of the one before."""
        self.close()
        self.server = Server(words, self.folder)

    def close(self) -> None:
        if self.server is not None:
            self.server.close()
        self.server = None

    def substituted(self, code: str) -> str:
        if self.server is not None:
            code = code.replace(WRITTEN, self.server.address)
        for old, new in given.SUBSTITUTIONS.get(self.page.name, {}).items():
            if old in code:
                self.used.add(old)
                code = code.replace(old, new)
        if not torch.cuda.is_available():
            for old, new in given.WITHOUT_GPU.items():
                code = code.replace(old, new)
        return code

    def _python(self, block: Block) -> str:
        path, printed = str(self.page.path), io.StringIO()
        try:
            tree = ast.parse(self.substituted(block.code), path)
        except SyntaxError as error:
            raise self.page.error(block.line + (error.lineno or 1) - 1, error.msg) from error
        code = compile(ast.increment_lineno(tree, block.line - 1), path, "exec")
        try:
            with contextlib.redirect_stdout(printed):
                exec(code, self.names)
        except Exception as error:
            frames = traceback.extract_tb(error.__traceback__)
            lines = [block.line, *(f.lineno for f in frames if f.filename == path and f.lineno)]
            raise self.page.error(lines[-1], f"{type(error).__name__}: {error}") from error
        return printed.getvalue()

    def _bash(self, block: Block) -> str:
        printed = ""
        with self._located(block.line):
            for command in shell.commands(self.substituted(block.code)):
                line = block.line + command.line
                with self._located(line), environment(command.environment):
                    commands.known_variables(command.environment, self.page)
                    code, said, error = commands.execute(list(command.words), self)
                if bool(code) != command.fails:
                    wanted = "fails" if command.fails else "does not fail"
                    said = f"exit status {code} of what {wanted} on the page: {error.strip()}"
                    raise self.page.error(line, said)
                printed += said + (error if command.fails else "")
        return printed

    @contextlib.contextmanager
    def _located(self, line: int) -> Iterator[None]:
        """Gives what is wrong with a command its place."""
        try:
            yield
        except shell.Unread as error:
            raise self.page.error(line + error.line, str(error)) from error
        except commands.Refused as error:
            raise self.page.error(line, str(error)) from error

    def _parsed(self, block: Block) -> str:
        try:
            (json if block.language == "json" else tomllib).loads(block.code)
        except ValueError as error:
            raise self.page.error(block.line, f"no {block.language}: {error}") from error
        return ""

    def _formula(self, block: Block) -> str:
        """What is indented is read, not run: each line is an equation or a path of arrows."""
        for number, line in enumerate(block.code.splitlines(), block.line):
            words = line.split()
            if words and (words[0] in commands.COMMANDS or not re.search(r"\s(=|->|<-)\s", line)):
                raise self.page.error(number, f"no formula; code is between fences: {KNOWN}")
        return ""

    def _file(self, block: Block) -> str:
        """A file that the reader writes; the comment before it, <!-- file: NAME -->, is not seen."""
        name = block.marker.removeprefix("file:").strip()
        if name not in self.page.text.replace(f"<!-- {block.marker} -->", ""):
            raise self.page.error(block.line, f"the page nowhere says that this is {name}")
        (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / name).write_text(self.substituted(block.code))
        return ""

    def _compare(self, shown: Block, printed: str) -> None:
        want, got = (text.rstrip().splitlines() for text in (shown.code, printed))
        if not alike(want, got):
            diff = "\n".join(difflib.unified_diff(want, got, "the page", "printed", lineterm=""))
            raise self.page.error(shown.line, f"the block before it prints something else:\n{diff}")


def alike(want: list[str], got: list[str]) -> bool:
    """Whether lines are what a page shows: its "..." stands for any number of them."""
    if "..." not in want:
        return [line.rstrip() for line in want] == [line.rstrip() for line in got]
    at = want.index("...")
    if not alike(want[:at], got[:at]):
        return False
    rest = got[at:]
    return any(alike(want[at + 1 :], rest[i:]) for i in range(len(rest) + 1))


@contextlib.contextmanager
def environment(values: dict[str, str]) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in values.items():
            patch.setenv(name, value)
        yield


@contextlib.contextmanager
def as_a_reader(folder: Path) -> Iterator[None]:
    """In a folder, one thread; where there is no GPU, tapes stand in for CUDA graphs."""
    threads, modules, path = torch.get_num_threads(), dict(sys.modules), list(sys.path)
    torch.set_num_threads(1)
    try:
        with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng(devices=[]):
            if not torch.cuda.is_available():
                patch.setattr(graph, "CudaRecorder", tape.TapeRecorder)
                patch.setattr(stages, "resolve", tape.taped(stages.resolve))
            patch.chdir(folder)
            patch.syspath_prepend(str(folder))
            yield
    finally:
        torch.set_num_threads(threads)
        sys.path[:] = path
        for name in sys.modules.keys() - modules.keys():  # the reader's own, in his folder
            if str(getattr(sys.modules[name], "__file__", "")).startswith(str(folder)):
                del sys.modules[name]


def run(page: Page) -> Run:
    """Runs a page to its end. Raises PageError."""
    with tempfile.TemporaryDirectory() as folder, as_a_reader(Path(folder)):
        made = Run(page, Path(folder))
        made.module.__dict__.update(given.names(page.name))
        given.files(page.name, made.folder)
        sys.modules[NAME] = made.module
        try:
            made.blocks()
        finally:
            made.close()
            del sys.modules[NAME]
        given.check_used(page, made.used)
        made.written = sorted(os.listdir(folder))
    return made


__all__ = ["PageError", "Run", "run"]
