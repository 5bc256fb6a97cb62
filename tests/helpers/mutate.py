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

# The tests of a file, by the longest beginning of its path, those that see most of it first.
SAMPLING = (
    "errors requests conditions learned_variance consistency levels compute_dtype outputs weights "
    "given_noise reuse batches recipes plan sampler_options sampler graph objects guidance "
    "classifier composition entrance entrance_networks decoder ddgan own_recipes own_solver "
    "public_reports from_diffusers trace accelerate_changes genie genie_derivative genie_guided "
    "genie_attached genie_networks churn grids pure_noise cld_states cld_solvers encoding brownian "
    "cld_runs"
)
TESTS = {
    "sampler/runner.py": f"sampler weights {SAMPLING}",
    "sampler/branches.py": f"conditions batches {SAMPLING}",
    "sampler/jobs.py": f"batches given_noise {SAMPLING}",
    "sampler/sampler.py": f"sampler requests sampler_options weights entrance {SAMPLING}",
    "sampler/request.py": f"requests sampler batches given_noise guidance entrance {SAMPLING}",
    "sampler/recipe.py": f"recipes own_recipes from_plan errors recipe_files {SAMPLING} files",
    "sampler/spec.py": f"recipes own_recipes entrance errors cli files {SAMPLING}",
    "sampler/model.py": "recipes own_recipes files",
    "sampler/plans.py": f"sampler_options objects {SAMPLING}",
    "sampler/saved.py": "from_plan cli",
    "plan/plan.py": f"plan errors sampler guidance {SAMPLING} solvers",
    "plan/row.py": f"plan errors sampler guidance {SAMPLING} solvers",
    "plan/guidance.py": f"guidance classifier composition {SAMPLING}",
    "executors/": f"batch any_order graph reuse capture budget graph_networks {SAMPLING} profile",
    "accelerate/": "accelerate_derivatives accelerate_places accelerate accelerate_calls "
    "accelerate_convolutions accelerate_choice accelerate_blocks "
    "accelerate_changes accelerate_peft conv3x3 layers_library profile cld_runs",
}
# (file, line as changed): why nobody can tell the mutant from the original.
DUMPS = 'return json.dumps({**body, "rows": [to_dict(row) for row in self.rows]}%s)'
EQUIVALENT = {
    ("plan/plan.py", DUMPS % ending): "blanks between JSON's values"
    for ending in (", indent=0", ", indent=2", "")
} | {
    (
        "sampler/sampler.py",
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
    return [path for path in paths if path.startswith(tuple(TESTS)) and path.startswith(module)]


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
    best = max((start for start in TESTS if path.startswith(start)), key=len)
    names = dict.fromkeys(TESTS[best].split())
    return [str(next(TREE.rglob(f"test_{name}.py")).relative_to(ROOT)) for name in names]


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
