"""Runs the small networks, all or those that are named, in other runtimes, and writes their rows of
docs/providers.md:

PYTHONPATH=.:tests/helpers python tests/providers/record_provided.py [NAME]...
"""

import sys
import time
from importlib import metadata

import torch
from small_networks import NETWORKS
from small_networks.provided import PROVIDERS, fates

from benchmarks import results
from benchmarks.pages import rows


def written():
    try:
        return {row["network"]: row for row in rows.committed(results.PROVIDED)}
    except rows.Lacking:
        return {}


def main(names):
    torch.set_num_threads(1)
    versions = {name: metadata.version(name) for name in ("torch", *PROVIDERS)}
    for name in names or NETWORKS:
        began = time.process_time()
        try:
            found = fates(name)
        except Exception as error:
            print(f"FAILED {name}: {type(error).__name__}: {error}", flush=True)
            continue
        known = written() | {name: found | versions}
        print(f"{time.process_time() - began:6.1f} s  {found}", flush=True)
        made = [known[n] for n in NETWORKS if n in known]
        results.replace(
            [{key: row[key] for key in results.PROVIDED_KEYS} for row in made], results.PROVIDED
        )


if __name__ == "__main__":
    main(sys.argv[1:])
