"""What a checkout holds: files, words of its sources, extras, tests, marks."""

from __future__ import annotations

import ast
import os
import re
import tomllib
from functools import cache, cached_property
from pathlib import Path

from packaging.requirements import Requirement

LEFT_OUT = {".git", "build", "dist", "site", ".venv", "node_modules"}
SOURCES = {".py", ".cpp", ".cu", ".cuh", ".h", ".hpp", ".toml", ".sh", ".cff", ".yml", ".typed"}


class Sources:
    def __init__(self, root: Path) -> None:
        self.root = root

    @staticmethod
    @cache
    def of(root: Path) -> Sources:
        return Sources(root)

    @cached_property
    def paths(self) -> list[str]:
        """Files, and folders with a / at their end, from the root."""
        found = []
        for folder, folders, files in os.walk(self.root):
            hidden = {f for f in folders if f.endswith(("_cache", "__pycache__", ".egg-info"))}
            folders[:] = sorted(set(folders) - LEFT_OUT - hidden)
            here = Path(folder).relative_to(self.root)
            found += [(here / name).as_posix() for name in files]
            found += [(here / name).as_posix() + "/" for name in folders]
        return found

    @cached_property
    def made(self) -> list[str]:
        """What programs make and git ignores."""
        ignored = self.root / ".gitignore"
        return ignored.read_text().split() if ignored.is_file() else []

    @cached_property
    def text(self) -> str:
        """All sources; what stands on pages, and in what checks them, does not count."""
        files = [p for p in self.paths if Path(p).suffix in SOURCES or Path(p).parent.name == ".ci"]
        files = [p for p in files if not p.endswith("/")]
        own = "tests/helpers/pages/"
        return "\n".join((self.root / p).read_text(errors="ignore") for p in files if own not in p)

    @cached_property
    def words(self) -> set[str]:
        """The words of the sources and of the files' names."""
        return set(re.findall(r"\w+", self.text)) | set(re.findall(r"\w+", " ".join(self.paths)))

    @cached_property
    def project(self) -> dict:
        return tomllib.loads((self.root / "pyproject.toml").read_text())

    @property
    def extras(self) -> dict[str, list[str]]:
        return self.project["project"]["optional-dependencies"]

    @cached_property
    def requirements(self) -> dict[str, Requirement]:
        texts = [
            *self.project["build-system"]["requires"],
            *self.project["project"]["dependencies"],
        ]
        texts += [text for texts in self.extras.values() for text in texts]
        return {made.name: made for made in map(Requirement, texts)}

    @cached_property
    def marks(self) -> set[str]:
        marks = self.project["tool"]["pytest"]["ini_options"]["markers"]
        return {text.partition(":")[0] for text in marks}

    @cached_property
    def tests(self) -> set[str]:
        """Names of tests, and of their files."""
        found = set()
        for path in (self.root / "tests").rglob("test_*.py"):
            nodes = ast.parse(path.read_text()).body
            found |= {n.name for n in nodes if isinstance(n, ast.FunctionDef)} | {path.stem}
        return found

    @cached_property
    def checks(self) -> list[str]:
        """The texts of what checks a change."""
        folders = (self.root / ".ci", self.root / ".github" / "workflows")
        return [p.read_text() for f in folders for p in sorted(f.glob("*")) if p.is_file()]
