"""Makes the files beside it: samples.safetensors, recipes.json and the pictures of digits.

    PYTHONPATH=.:tests/helpers python tests/golden/make.py NAME ...

makes the runs of these names and keeps the others as they are: so a new solver comes in. Without names all
is made anew. The files hold what the engine made when they were written, and tests/sampler/test_golden.py
compares with them: make an old one anew only where other bits are wanted (another generator, another rule of
a solver), and say so in the commit. The runs are in tests/helpers/golden_runs.py.
"""

from __future__ import annotations

import json
import runpy
import sys
from collections.abc import Sequence

from golden_runs import GOLDEN, PICTURES, RECIPES, RUNS, SAMPLES
from safetensors.torch import load_file, save_file


def main(names: Sequence[str]) -> None:
    """Writes the runs of these names, or all of them and the pictures.

    Raises KeyError where there is no such run.
    """
    made = {name: RUNS[name].made() for name in names or RUNS}
    samples, recipes = {}, {}
    if names:
        samples, recipes = load_file(SAMPLES), json.loads(RECIPES.read_text(encoding="utf-8"))
    samples |= {name: result.samples.contiguous() for name, result in made.items()}
    recipes |= {name: result.recipe for name, result in made.items()}
    save_file({name: samples[name] for name in RUNS if name in samples}, SAMPLES)
    lines = [f"{json.dumps(name)}: {json.dumps(recipes[name])}" for name in RUNS if name in recipes]
    RECIPES.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    if not names:
        draw()


def draw() -> None:
    """The pictures."""
    for name, (solver, steps, guidance) in PICTURES.items():
        about = [f"--solver={solver}", f"--steps={steps}", f"--guidance={guidance}"]
        which = ["--class=0-7", "--seeds=0-7"]
        sys.argv = ["diffusion-engine", "sample", f"--out={GOLDEN / name}", *about, *which]
        try:
            runpy.run_module("diffusion_engine.cli", run_name="__main__")
        except SystemExit as stop:
            if stop.code:
                raise


if __name__ == "__main__":
    main(sys.argv[1:])
