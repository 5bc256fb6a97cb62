"""Would the tests notice? Changes the code by rule, one place at a time, and runs the tests of that place.

    python tests/mutate.py --count 60 --seed 1 [--area guidance] [--list]

A mutant is killed where a test fails, or runs out of time. What tests are of what code is in AREAS.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import os
import queue
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
SECONDS = 900  # a mutant, on a busy machine
# area -> its code under diffusion_engine/, and tests, those that notice soonest first.
AREAS = {
    "sampler": (
        "sampler.py",
        "sampler entrance errors encoding objects own_solver conditions public_reports",
    ),
    "request": (
        "request.py",
        "entrance sampler conditions errors guidance decoder public_reports objects",
    ),
    "recipes": ("recipes.py", "own_recipes objects errors encoding decoder cli"),
    "executors": (
        "executors/*.py",
        "executors capture outputs brownian learned_variance sampler ddgan threads",
    ),
    "plan": ("plan.py", "sampler guidance brownian solvers"),
    "guidance": ("guidance.py", "guidance levels entrance genie public_reports"),
    "accelerate": (
        "accelerate/*.py",
        "accelerate accelerate_places accelerate_changes accelerate_derivatives compute_dtype objects",
    ),
}
SWAPS = {
    ast.Lt: ("<", "<="), ast.LtE: ("<=", "<"), ast.Gt: (">", ">="), ast.GtE: (">=", ">"),
    ast.Eq: ("==", "!="), ast.NotEq: ("!=", "=="), ast.Is: ("is", "is not"), ast.IsNot: ("is not", "is"),
    ast.In: ("in", "not in"), ast.NotIn: ("not in", "in"), ast.And: ("and", "or"), ast.Or: ("or", "and"),
    ast.Add: ("+", "-"), ast.Sub: ("-", "+"), ast.Mult: ("*", "/"), ast.Div: ("/", "*"),
    ast.FloorDiv: ("//", "*"), ast.Mod: ("%", "*"),
}  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    """Bytes start ... end of a file become others."""

    area: str
    file: str
    line: int
    start: int
    end: int
    new: str

    def of(self, source: bytes) -> bytes:
        return source[: self.start] + self.new.encode() + source[self.end :]


class Places(ast.NodeVisitor):
    """Collects (node, start, end, new text) of what can be changed in a source."""

    def __init__(self, source: bytes) -> None:
        self.source, self.found = source, []
        lines = source.splitlines(keepends=True)
        self.starts = [sum(map(len, lines[:i])) for i in range(len(lines))]
        self.visit(ast.parse(source))

    def at(self, node: ast.AST) -> tuple[int, int]:
        return (
            self.starts[node.lineno - 1] + node.col_offset,
            self.starts[node.end_lineno - 1] + node.end_col_offset,
        )

    def text(self, node: ast.AST) -> str:
        start, end = self.at(node)
        return self.source[start:end].decode()

    def put(
        self, node: ast.AST, new: str, start: int | None = None, end: int | None = None
    ) -> None:
        own = self.at(node)
        self.found.append(
            (node.lineno, own[0] if start is None else start, own[1] if end is None else end, new)
        )

    def swap(self, kind: type, left: ast.AST, right: ast.AST) -> None:
        """The operator between two operands."""
        if kind not in SWAPS:
            return
        old, new = SWAPS[kind]
        begin, stop = self.at(left)[1], self.at(right)[0]
        where = self.source.find(old.encode(), begin, stop)
        if where >= 0:
            self.put(left, new, where, where + len(old))

    def skip(self, node: ast.AST) -> None:
        """Texts, annotations and imports say nothing that a test should notice."""

    visit_JoinedStr = visit_Raise = visit_Import = visit_ImportFrom = visit_Assert = skip

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        if node.name not in ("__repr__", "__str__"):
            for part in (*node.args.defaults, *node.args.kw_defaults, *node.body):
                if part is not None:
                    self.visit(part)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.visit(node.value)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        for part in node.body:
            self.visit(part)

    def visit_If(self, node: ast.If) -> None:
        if self.text(node.test) != "TYPE_CHECKING":
            self.put(node.test, f"not ({self.text(node.test)})")
            if any(isinstance(part, ast.Raise) for part in node.body):
                self.put(node.test, "False")
            self.generic_visit(node)

    def visit_IfExp(self, node: ast.IfExp) -> None:
        self.put(node.test, f"not ({self.text(node.test)})")
        self.generic_visit(node)

    def visit_Compare(self, node: ast.Compare) -> None:
        for left, op, right in zip(
            [node.left, *node.comparators], node.ops, node.comparators, strict=False
        ):
            self.swap(type(op), left, right)
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        for left, right in zip(node.values, node.values[1:], strict=False):
            self.swap(type(node.op), left, right)
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        self.swap(type(node.op), node.left, node.right)
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        if isinstance(node.op, ast.Not):
            self.put(node, self.text(node.operand))
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, bool):
            self.put(node, str(not node.value))
        elif isinstance(node.value, int):
            self.put(node, str(node.value + 1))

    def visit_Expr(self, node: ast.Expr) -> None:
        if isinstance(node.value, ast.Call):
            self.put(node, "pass")
        if not isinstance(node.value, ast.Constant):
            self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> None:
        if all(isinstance(target, (ast.Attribute, ast.Subscript)) for target in node.targets):
            self.put(node, "pass")
        self.generic_visit(node)

    def visit_keyword(self, node: ast.keyword) -> None:
        if node.arg != "strict":  # of zip, where lengths agree
            self.visit(node.value)

    def visit_Call(self, node: ast.Call) -> None:
        first, second = [*node.args[:2], None, None][:2]
        if second is not None and not any(isinstance(arg, ast.Starred) for arg in node.args[:2]):
            swapped = f"{self.text(second)}, {self.text(first)}"
            self.put(first, swapped, self.at(first)[0], self.at(second)[1])
        self.generic_visit(node)


def mutants(area: str) -> Iterator[Mutant]:
    """All of an area."""
    for path in sorted((ROOT / "diffusion_engine").glob(AREAS[area][0])):
        source = path.read_bytes()
        for line, start, end, new in Places(source).found:
            yield Mutant(area, str(path.relative_to(ROOT)), line, start, end, new)


def said(mutant: Mutant) -> str:
    """The changed lines before and after."""
    source = (ROOT / mutant.file).read_bytes()
    begin, stop = source.rfind(b"\n", 0, mutant.start) + 1, source.find(b"\n", mutant.end)
    after = source[begin : mutant.start] + mutant.new.encode() + source[mutant.end : stop]
    lines = (" ".join(text.decode().split()) for text in (source[begin:stop], after))
    return f"{mutant.file}:{mutant.line}  " + "  ->  ".join(lines)


def sampled(areas: list[str], count: int, seed: int) -> list[Mutant]:
    """So many mutants, as good as evenly from all areas, no two of one line."""
    rng, made = random.Random(seed), []
    for i, area in enumerate(areas):
        found = list(mutants(area))
        rng.shuffle(found)
        lines = {(m.file, m.line): m for m in found}
        share = (count * (i + 1)) // len(areas) - (count * i) // len(areas)
        made += list(lines.values())[:share]
    return made


def copied(folder: str) -> Path:
    """A copy of the tree, with its compiled modules, that may be changed."""
    ignored = shutil.ignore_patterns(
        ".git", "__pycache__", "build", ".venv", "*.egg-info", ".*_cache"
    )
    return Path(shutil.copytree(ROOT, Path(folder, "tree"), symlinks=True, ignore=ignored))


def killer(mutant: Mutant, tree: Path) -> str | None:
    """The test that notices a mutant in a copy of the tree; None where none does."""
    path = tree / mutant.file
    source = path.read_bytes()
    path.write_bytes(mutant.of(source))
    tests = [f"tests/test_{name}.py" for name in AREAS[mutant.area][1].split()]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
    environment |= {"PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests],
            cwd=tree, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return "out of time"
    finally:
        path.write_bytes(source)
    if done.returncode == 0:
        return None
    lines = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return lines[0].split()[1] if lines else f"exit status {done.returncode}"


def killers(chosen: list[Mutant], jobs: int) -> Iterator[str | None]:
    """What kills each, so many at a time in copies of the tree of their own."""
    with contextlib.ExitStack() as stack, ThreadPoolExecutor(jobs) as pool:
        trees: queue.Queue[Path] = queue.Queue()
        for _ in range(jobs):
            trees.put(copied(stack.enter_context(tempfile.TemporaryDirectory())))

        def run(mutant: Mutant) -> str | None:
            tree = trees.get()
            try:
                return killer(mutant, tree)
            finally:
                trees.put(tree)

        yield from pool.map(run, chosen)


def main(words: list[str] | None = None) -> list[Mutant]:
    """Prints every mutant with what killed it; returns those that live."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--area", choices=AREAS, action="append")
    parser.add_argument(
        "--list", action="store_true", help="say what would change, and run nothing"
    )
    options = parser.parse_args(words)
    chosen = sampled(options.area or list(AREAS), options.count, options.seed)
    if options.list:
        print("\n".join(map(said, chosen)))
        return []
    alive = []
    for mutant, by in zip(chosen, killers(chosen, options.jobs), strict=True):
        print(f"{said(mutant)}\n    {by or 'LIVES'}", flush=True)
        alive += [mutant] if by is None else []
    print(f"{len(chosen) - len(alive)} of {len(chosen)} killed")
    return alive


if __name__ == "__main__":
    main()
