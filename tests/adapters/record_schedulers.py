"""Compares diffusers' schedulers with `like`, all or those that are named, and writes their rows:

PYTHONPATH=.:tests/helpers python tests/adapters/record_schedulers.py [CLASS]...
"""

import sys
from collections import Counter

import torch
from scheduler_fate import fate
from scheduler_grid import cases

from benchmarks import results
from benchmarks.pages import rows
from diffusion_engine.adapters.diffusers.classes import CLASSES


def written():
    try:
        return rows.committed(results.SCHEDULERS)
    except rows.Lacking:
        return []


def found(name):
    """The rows of a class; where a note says that diffusers is wrong, the other choice has its own."""
    for config, steps, asked in cases(name):
        made = fate(name, config, steps, asked)
        yield made.row(name, config, steps, asked)
        if "published" in made.said and made.outcome != "refused":
            other = asked | {"published": False}
            yield fate(name, config, steps, other).row(name, config, steps, other)


def main(names):
    torch.set_num_threads(1)
    for name in names or CLASSES:
        new = list(found(name))
        print(name, dict(Counter(row["outcome"] for row in new)), flush=True)
        known = {row["scheduler"]: [] for row in written()} | {name: new}
        for row in written():
            if row["scheduler"] != name:
                known[row["scheduler"]].append(row)
        results.replace([row for n in CLASSES for row in known.get(n, ())], results.SCHEDULERS)


if __name__ == "__main__":
    main(sys.argv[1:])
