"""Several processes share the samples of a request, and make the same ones as a single process."""

import os
import subprocess
import sys

import numpy as np
import pytest

from diffusion_engine.ranks import Ranks


def test_parts_cover_all_samples_once_in_whole_batches():
    for n in (1, 7, 64, 100):
        for batch in (1, 3, 64):
            for world in (1, 2, 3, 8):
                parts = [Ranks(r, world).part(n, batch) for r in range(world)]
                assert [i for part in parts for i in part] == list(range(n))
                assert all(part.start % batch == 0 for part in parts if part)
                sizes = [-(-len(part) // batch) for part in parts]
                assert max(sizes) - min(sizes) <= 1


def test_environment(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    assert Ranks.of_environment() == Ranks()
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert Ranks.of_environment() == Ranks(3, 4, 1)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="RANK=3 of WORLD_SIZE=2; start with torchrun"):
        Ranks.of_environment()
    monkeypatch.setenv("RANK", "first")
    with pytest.raises(ValueError, match="no whole numbers"):
        Ranks.of_environment()


def sample(tmp_path, processes, *more):
    out = tmp_path / f"{processes}.npz"
    start = [sys.executable, "-m"]
    if processes > 1:
        start += ["torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "-m"]
    command = [*start, "diffusion_engine.cli", "sample", "--out", out, "--steps", "2", *more]
    # torchrun gives each process one thread, and torch's bits may depend on their number.
    alike = os.environ | {"OMP_NUM_THREADS": "1"}
    return out, subprocess.run(command, capture_output=True, text=True, check=False, env=alike)


def test_any_number_of_processes_makes_the_same_samples(tmp_path):
    options = ("--seeds", "3-9", "--batch-size", "2", "--solver", "ddpm")
    one, done = sample(tmp_path, 1, *options)
    assert done.returncode == 0, done.stderr
    for processes in (2, 3):
        several, done = sample(tmp_path, processes, *options)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("7 samples") == 1
        with np.load(one) as a, np.load(several) as b:
            assert sorted(a) == sorted(b)
            assert all(np.array_equal(a[name], b[name]) for name in a)


def test_more_processes_than_batches(tmp_path):
    _, done = sample(tmp_path, 3, "--seeds", "0-3", "--batch-size", "2")
    assert done.returncode == 0, done.stderr
    assert "lower the batch size" in done.stderr
