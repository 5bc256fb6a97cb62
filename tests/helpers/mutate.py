"""Tries mutants of the package: does a test fail of each?

    python tests/helpers/mutate.py --count 60 --seed 1         # the test that each died of, or LIVES
    python tests/helpers/mutate.py --module executors/ --list  # the changes alone

A mutant is tried in a copy of the checkout, on the tests that belong to its file, until one fails. A seed
draws lines, so many of each file as it has, and a mutant of each.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from mutants import Mutant, mutants

ROOT = Path(__file__).parents[2]
PACKAGE = "diffusion_engine"
TREE = ROOT / "tests"
MEMORY = 8 << 30  # bytes for the tests of a mutant

# Folders of the package that are mutated -> what sees them beside the tests of their own folder, in order:
# folders of tests, or files of them.
SAMPLING = (
    "sampler plan executors networks genie processes/levels processes/grids processes/cld_states "
    "solvers/consistency solvers/ddgan solvers/own_solver solvers/pure_noise solvers/cld_solvers "
    "solvers/encoding adapters/from_diffusers profiling ops/brownian accelerate/accelerate_changes "
    "solvers/cld_runs"
)
SEEN_BY = {
    "sampler": f"{SAMPLING} cli",
    "plan": f"{SAMPLING} solvers/solvers",
    "executors": SAMPLING,
    "accelerate": "ops/conv3x3 ops/layers_library profiling/profile solvers/cld_runs",
}
APART = ("gpu", "ranks", "threads")  # need a GPU, or processes of their own and minutes
# (file, line as changed): why nobody can tell the mutant from the original.
DUMPS = 'return json.dumps({**body, "rows": [to_dict(row) for row in self.rows]}%s)'
EQUIVALENT = {
    ("plan/plan.py", DUMPS % ending): "blanks between JSON's values"
    for ending in (", indent=0", ", indent=2", "")
} | {
    (
        "sampler/runner.py",
        "with seen or nullcontext(), evaluating(unwrapped(network.module), network.module):",
    ): "the modules in any order",
    (
        "sampler/request.py",
        "made, concepts = parts[0], tuple(c for c in parts[1:] if True)",
    ): "no composed condition is None",
}


def files(module: str = "") -> list[str]:
    """The files of the package that have tests here, of a module or folder."""
    package = ROOT / PACKAGE
    paths = sorted(path.relative_to(package).as_posix() for path in package.rglob("*.py"))
    return [path for path in paths if path.split("/")[0] in SEEN_BY and path.startswith(module)]


def sample(paths: Iterable[str], seed: int, count: int) -> list[Mutant]:
    """`count` sound mutants that are not known to be equivalent, each of a line of its own."""
    lines: dict[tuple[str, int], list[Mutant]] = defaultdict(list)
    for path in paths:
        for mutant in mutants(path, (ROOT / PACKAGE / path).read_text()):
            lines[path, mutant.line].append(mutant)
    chance, drawn = random.Random(seed), []
    for line in chance.sample(sorted(lines), len(lines)):
        mutant = chance.choice(lines[line])
        if mutant.sound and (mutant.path, mutant.change[1]) not in EQUIVALENT:
            drawn.append(mutant)
        if len(drawn) == count:
            break
    return sorted(drawn, key=lambda mutant: (mutant.path, mutant.line))


def tests_of(path: str) -> list[str]:
    """Those of its folder, of its own name first, then what else sees it."""
    folder, name = path.split("/")[0], Path(path).stem
    own = sorted(tests_in(folder), key=lambda test: name not in test.stem)
    seen_by = (test for place in SEEN_BY[folder].split() for test in tests_in(place))
    return list(dict.fromkeys(str(test.relative_to(ROOT)) for test in (*own, *seen_by)))


def tests_in(place: str) -> list[Path]:
    """Of a folder, or the one of a file's name."""
    if not (TREE / place).is_dir():
        folder, name = place.split("/")
        return [TREE / folder / f"test_{name}.py"]
    found = sorted((TREE / place).glob("test_*.py"))
    return [test for test in found if not any(part in test.stem for part in APART)]


def outcomes(
    made: Iterable[Mutant], tree: Path = ROOT, of: Callable[[str], list[str]] = tests_of
) -> Iterator[tuple[Mutant, str | None]]:
    """Each mutant with the test that it died of, None where it lives.

    tree  the checkout, which is copied
    of    the tests of a path
    Raises RuntimeError where the tests fail without a mutant.
    """
    made = list(made)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, "tree")
        left = shutil.ignore_patterns(".*", "__pycache__", "build", "dist", "*.egg-info")
        shutil.copytree(tree, copy, symlinks=True, ignore=left)
        start = time.monotonic()
        every = dict.fromkeys(name for mutant in made for name in of(mutant.path))
        if failed := first_failure(copy, every):
            raise RuntimeError(f"{failed} fails without a mutant")
        limit = 60 + 4 * (time.monotonic() - start)
        for mutant in made:
            file = copy / PACKAGE / mutant.path
            write(file, mutant.mutated)
            yield mutant, first_failure(copy, of(mutant.path), limit)
            write(file, mutant.text)


def write(path: Path, text: str) -> None:
    """Bytecode is known by second and size, which two mutants may have in common."""
    path.write_text(text)
    for old in path.parent.glob(f"__pycache__/{path.stem}.*"):
        old.unlink()


def within_memory() -> None:
    """A loop that never ends may fill a list."""
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))


def first_failure(tree: Path, tests: Iterable[str], seconds: float | None = None) -> str | None:
    """The test that fails in a tree, or how else the run ended; None where all pass."""
    command = [sys.executable, "-m", "pytest", "-xq", "--tb=no", "-p", "no:cacheprovider", *tests]
    own = {"PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
    run = subprocess.Popen(
        command, cwd=tree, env=os.environ | own, text=True, errors="replace", start_new_session=True,
        preexec_fn=within_memory, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        said, _ = run.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        return f"more than {seconds:.0f} s"
    finally:
        with suppress(ProcessLookupError):
            os.killpg(run.pid, signal.SIGKILL)
        run.wait()
    if run.returncode == 0:
        return None
    failed = re.search(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", said, re.MULTILINE)
    return failed[1] if failed else f"exit status {run.returncode}: {said[-300:]}"


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument(
        "--module", default="", help="a file of the package, or a folder as accelerate/"
    )
    parser.add_argument("--list", action="store_true", help="print the changes and run nothing")
    asked = parser.parse_args()
    made = sample(files(asked.module), asked.seed, asked.count)
    if asked.list:
        print(*made, sep="\n")
        return
    lives = 0
    for mutant, killer in outcomes(made):
        lives += killer is None
        print(f"{mutant}\n    {killer or 'LIVES'}", flush=True)
    print(f"{len(made) - lives} of {len(made)} killed")


if __name__ == "__main__":
    main()
