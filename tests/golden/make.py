"""Makes the files beside it anew: samples.safetensors, recipes.json and the pictures of digits.

    PYTHONPATH=.:tests/helpers python tests/golden/make.py

They hold what the engine made when they were written, and tests/sampler/test_golden.py compares with them:
run this only where other bits are wanted (another generator, another rule of a solver), and say so in the
commit. The runs are in tests/helpers/golden_runs.py; one that is new there changes none of the others.
"""

from __future__ import annotations

import json
import runpy
import sys

from golden_runs import GOLDEN, PICTURES, RECIPES, RUNS, SAMPLES
from safetensors.torch import save_file


def main() -> None:
    """Writes all of them."""
    made = {name: run.made() for name, run in RUNS.items()}
    save_file({name: result.samples.contiguous() for name, result in made.items()}, SAMPLES)
    lines = [f"{json.dumps(name)}: {json.dumps(made[name].recipe)}" for name in made]
    RECIPES.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
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
    main()
