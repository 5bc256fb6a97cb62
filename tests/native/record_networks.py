"""Records the small networks, all or those that are named, and writes their rows of docs/native.md:

PYTHONPATH=.:tests/helpers python tests/native/record_networks.py [NAME]...
"""

import sys
import time

import torch
from small_networks import NETWORKS
from small_networks.fate import fate

from benchmarks import results
from benchmarks.pages import rows


def written():
    try:
        return {row["network"]: row for row in rows.committed(results.NETWORKS)}
    except rows.Lacking:
        return {}


def main(names):
    torch.set_num_threads(1)
    for name in names or NETWORKS:
        began = time.process_time()
        try:
            found = fate(name)
        except Exception as error:
            print(f"FAILED {name}: {type(error).__name__}: {error}", flush=True)
            continue
        known = written() | {name: found.row(name)}
        print(f"{time.process_time() - began:6.1f} s  {name}: {found}", flush=True)
        results.replace([known[n] for n in NETWORKS if n in known], results.NETWORKS)


if __name__ == "__main__":
    main(sys.argv[1:])
