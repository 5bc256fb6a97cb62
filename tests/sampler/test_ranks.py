"""Several processes share the samples of a request, and make the same ones as a single process."""

import json
import os
import subprocess
import sys
from typing import ClassVar

import numpy as np
import pytest
import torch

from diffusion_engine import Sampler, ScoreNetwork
from diffusion_engine.processes import VP
from diffusion_engine.sampler.ranks import Ranks, sample_shared


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


class Together(Ranks):
    """Ranks that take turns in one process, the first one last; `rooms` are what they gave."""

    rooms: ClassVar[dict] = {}

    def gather(self, own, n, batch):
        assert len(own) == len(self.part(n, batch))
        self.rooms.setdefault(self.rank, []).append(own)
        if self.rank:
            return None
        which = len(self.rooms[0]) - 1
        return torch.cat([self.rooms[rank][which] for rank in range(self.world)])


def together(world, sampler, n, **request):
    """What rank 0 returns; the others return nothing."""
    Together.rooms.clear()
    made = [
        sample_shared(
            Together(rank, world), sampler, n, **({"seeds": None, "condition": None} | request)
        )
        for rank in range(world - 1, -1, -1)
    ]
    assert made[:-1] == [None] * (world - 1)
    return made[-1]


def loses(x, label, y):
    """A network that loses the samples of class 3."""
    return 0.5 * x + torch.where(y == 3, torch.nan, 0.1 * y)[:, None]


REQUESTS = {
    "first seeds": {"condition": [1] * 7},
    "seeds": {"seeds": [9, 3, 2**64 - 1, 7, 5, 0, 1], "condition": [0, 1, 2, 4, 5, 6, 7]},
    "a lost sample": {"condition": [0, 1, 2, 4, 5, 3, 7]},
    "images": {"x": torch.linspace(-1.0, 1.0, 14).view(7, 2), "start": 0.5, "condition": [1] * 7},
    "states": {"x": torch.linspace(-1.0, 1.0, 14).view(7, 2), "noised": True, "condition": [1] * 7},
    "paths": {"noise": "brownian", "condition": [1] * 7},
}


@pytest.mark.filterwarnings("ignore:samples of seeds")
@pytest.mark.parametrize("world", [2, 3, 5])
@pytest.mark.parametrize("kind", REQUESTS)
def test_the_result_of_all_is_that_of_one(kind, world, capsys):
    """Samples, seeds, counts, flags and recipe; the fifth of five has nothing to do."""
    network = ScoreNetwork(loses, VP(), (2,), null=9, classes=9)
    sampler = Sampler(network, "ddpm", 3, guidance=2.0, batch_size=2)
    want, got = (together(count, sampler, 7, **REQUESTS[kind]) for count in (1, world))
    assert torch.equal(got.samples.nan_to_num(), want.samples.nan_to_num())
    for name in ("seeds", "nfe", "evaluations", "finite", "recipe"):
        assert getattr(got, name) == getattr(want, name), name
    assert want.evaluations == 7 * 3 * 2 and all(want.finite) == (kind != "a lost sample")
    assert ("lower the batch size" in capsys.readouterr().err) == (world == 5)


def test_composed_conditions_and_a_known_image_of_each_sample():
    network = ScoreNetwork(loses, VP(), (2,), null=9, classes=9)
    sampler = Sampler(network, "ddpm", 3, batch_size=2)
    known = torch.linspace(-1.0, 1.0, 14).view(7, 2)
    asked = {"compose": [(1, 2.0), (4, -0.5)], "mask": torch.tensor([0.0, 1.0]), "known": known}
    want, got = (together(count, sampler, 7, **asked) for count in (1, 3))
    assert torch.equal(got.samples, want.samples) and torch.equal(got.samples[:, 0], known[:, 0])
    assert got.recipe == want.recipe and len(want.recipe["compose"]) == 7
    free = (torch.arange(14) % 3 > 0).float().view(7, 2)
    want, got = (together(count, sampler, 7, **(asked | {"mask": free})) for count in (1, 3))
    assert torch.equal(got.samples, want.samples)


def test_seeds_for_another_number_of_samples():
    sampler = Sampler(ScoreNetwork(lambda x, label: x, VP(), (2,)), "ddpm", 3)
    with pytest.raises(ValueError, match="n=7 samples and 2 seeds; give one seed a sample"):
        together(2, sampler, 7, seeds=[1, 2])


def sample(tmp_path, processes, *more):
    out = tmp_path / f"{processes}.npz"
    start = [sys.executable, "-m"]
    if processes > 1:
        start += ["torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "-m"]
    command = [*start, "diffusion_engine.cli", "sample", "--out", out, "--steps", "2", *more]
    # torchrun gives each process one thread, and torch's bits may depend on their number.
    alike = os.environ | {"OMP_NUM_THREADS": "1"}
    return out, subprocess.run(command, capture_output=True, text=True, check=False, env=alike)


def test_processes_make_the_samples_of_one(tmp_path):
    """Also where the last of them has none to make."""
    options = (
        "--seeds",
        "3-9",
        "--batch-size",
        "4",
        "--solver",
        "ddpm",
        "--guidance",
        "2",
        "--json",
    )
    one, done = sample(tmp_path, 1, *options)
    assert done.returncode == 0, done.stderr
    alone = json.loads(done.stdout)
    assert (alone["n"], alone["nfe"], alone["evaluations"]) == (7, 2, 7 * 2 * 2)
    several, done = sample(tmp_path, 3, *options)
    assert done.returncode == 0, done.stderr
    about = json.loads(done.stdout)  # of one process alone
    assert all(about[name] == alone[name] for name in ("n", "nfe", "evaluations", "recipe"))
    assert done.stderr.count("lower the batch size") == 1
    with np.load(one) as a, np.load(several) as b:
        assert sorted(a) == sorted(b)
        assert all(np.array_equal(a[name], b[name]) for name in a)


FORMS = """\
import sys
import torch
from diffusion_engine import Sampler, ScoreNetwork
from diffusion_engine.accelerate import network
from diffusion_engine.processes import VP
from diffusion_engine.sampler.ranks import Ranks, sample_shared

ranks = Ranks.of_environment()
network.min = lambda times, key: ("fused", "original")[ranks.rank]  # what each would find
torch.manual_seed(0)
conv = torch.nn.Conv2d(3, 3, 3, padding=1)

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = conv, torch.nn.GroupNorm(1, 3)

    def forward(self, x, label):
        return self.norm(self.conv(x))

sampler = Sampler(ScoreNetwork(Net(), VP(), (3, 8, 8)), "ddim", 2, accelerate=True, batch_size=2)
made = sample_shared(ranks, sampler, 4, None, None)
sys.stderr.write(f"form {sampler.form}\\n")
"""


def test_all_run_the_form_that_the_first_one_found(tmp_path):
    (tmp_path / "forms.py").write_text(FORMS)
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    nowhere = os.environ | {"OMP_NUM_THREADS": "1", "DIFFUSION_ENGINE_CACHE": os.devnull}
    done = subprocess.run(
        [*start, tmp_path / "forms.py"], capture_output=True, text=True, check=False, env=nowhere
    )
    assert done.returncode == 0, done.stderr
    forms = [line for line in done.stderr.splitlines() if line.startswith("form ")]
    assert len(forms) == 2 and len(set(forms)) == 1 and "/fused/" in forms[0]
