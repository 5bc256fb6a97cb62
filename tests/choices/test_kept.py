"""Choices are kept on disk by machine and network; what is damaged, or cannot be written, is as none."""

import json
import os
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

from diffusion_engine.choices import Kept, fewest, files, folder, in_turns, kept, structure
from diffusion_engine.choices.turns import is_count, numbers


def one(*about):
    return Kept("threads", about, is_count)


@pytest.mark.parametrize("found", ["", "{", "[]", '{"3": "2"}', '{"3": 0}', "\x00\xff", "[" * 9999])
def test_a_damaged_file_is_as_none(found):
    one().put(1, 2)
    one().path.write_text(found)
    assert one().get(3) is None
    one().put(3, 2)
    assert json.loads(one().path.read_text()) == {"3": 2}


def test_a_folder_that_cannot_be_written(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(kept.VARIABLE, str(tmp_path / "file"))
    one().put(1, 2)
    assert one().get(1) is None and not list(files("threads"))


def test_without_a_home(monkeypatch):
    def no_home():
        raise RuntimeError("Could not determine home directory.")

    for name in (kept.VARIABLE, "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(kept.Path, "home", no_home)
    one().put(1, 2)
    assert one().get(1) is None and not list(files("threads"))


def test_where_it_is_kept(monkeypatch):
    monkeypatch.delenv(kept.VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", "/some/where")
    assert str(folder()) == "/some/where/diffusion_engine"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert folder().relative_to(os.path.expanduser("~")).parts[0] == ".cache"


@pytest.mark.parametrize(
    "name", ["backends.machine.processor", "version.__version__", "choices.kept.torch.__version__"]
)
def test_another_machine(name, monkeypatch):
    one().put(1, 2)
    other = (lambda: "other") if name.endswith("processor") else "other"
    monkeypatch.setattr(f"diffusion_engine.{name}", other)
    assert one().get(1) is None
    monkeypatch.undo()


def test_another_number_of_threads_and_another_way_to_wait(monkeypatch):
    one().put(1, 2)
    torch.set_num_threads(torch.get_num_threads() + 1)
    assert one().get(1) is None
    torch.set_num_threads(torch.get_num_threads() - 1)
    assert one().get(1) == 2
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    assert one().get(1) is None


def test_old_ones_go(monkeypatch):
    monkeypatch.setattr(kept, "FILES", 3)
    for i in range(6):
        one(i).put(1, 2)
        os.utime(one(i).path, (i, i))
    assert len(list(files("threads"))) == 3
    assert one(5).get(1) == 2 and one(0).get(1) is None


def test_several_write_at_a_time():
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda i: one().put(i % 2, 2), range(40)))
    (file,) = files("threads")
    assert set(json.loads(file.read_text())) <= {"0", "1"}


def net(width=3, **options):
    return nn.Sequential(nn.Conv2d(1, width, 3, **options), nn.SiLU())


def function(x):
    return x


def replaced():
    made = net()
    made[0].forward = function
    return made


def test_what_tells_networks_apart():
    """Not the values of weights, on which no time depends."""
    others = [net(4), net(padding=1), net().double(), replaced(), function, lambda x: x, print]
    made = [json.dumps(structure(module)) for module in (net(), *others)]
    assert len(set(made)) == len(made)
    assert structure(net()) == structure(net())


def test_fewer_threads_win_where_times_are_nearly_the_same():
    assert fewest({1: 1.02, 2: 1.0}) == 1
    assert fewest({1: 1.04, 2: 1.0}) == 2


def test_numbers_that_are_tried():
    assert [numbers(most) for most in (1, 2, 3, 8)] == [[1], [1, 2], [1, 2, 3], [1, 2, 4, 8]]


def test_ways_are_timed_in_turns():
    ran = []

    def seconds(way):
        ran.append(way)
        return len(ran)

    assert in_turns("ab", seconds, (3, 3)) == {"a": 3, "b": 4}
    assert ran == list("ababab")


def test_a_measurement_ends_with_its_budget():
    ran = []
    in_turns("ab", lambda way: ran.append(way) or 1.0, (2, 9), budget=0.0)
    assert ran == list("abab")
