"""Threads are chosen by measurement, the choice is kept on disk, and no bits depend on it."""

import json
import os
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from native_cases import small

from diffusion_engine import Sampler
from diffusion_engine.native import Native, choice
from diffusion_engine.native.choice import Choices, fewest, folder

GIVEN = {"seeds": [1, 2, 3], "condition": [0, 1, 0]}


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("DIFFUSION_ENGINE_CACHE", str(tmp_path))
    return tmp_path / "threads"


@pytest.fixture
def three_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def timed(monkeypatch):
    """What a measurement finds, and how often it was asked."""
    asked = []

    def measured(runs):
        for run in runs.values():
            run()
        asked.append(sorted(runs))
        return {threads: 1.0 / threads for threads in runs}

    monkeypatch.setattr("diffusion_engine.native.recording.measured", measured)
    return asked


def made(network, executor):
    return Sampler(network, "ddim", 2, executor=executor).sample(**GIVEN).samples


def test_it_is_measured_once_and_read_by_later_ones(cache, three_threads, timed):
    network, first = small(), Native()
    samples = made(network, first)
    assert timed == [[1, 2, 3]] and first.recorded(network).threads == {3: 3}
    (file,) = cache.iterdir()
    assert json.loads(file.read_text()) == {"3": 3}
    second = Native()
    assert torch.equal(made(small(), second), samples)
    assert len(timed) == 1
    assert torch.equal(made(small(seed=1), Native()), made(small(seed=1), Native(threads=1)))
    assert len(timed) == 2  # other weights are another network


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_no_bits_depend_on_it(threads, cache, timed):
    assert torch.equal(made(small(), Native(threads=threads)), made(small(), Native(threads=1)))
    assert not timed and not cache.exists()


def test_programs_of_other_threads_share_memory(three_threads, timed, monkeypatch):
    network, executor = small(), Native()
    made(network, executor)
    (recording,) = executor.recorded(network).recordings
    before = recording.bytes
    recording.threads.clear()
    monkeypatch.setattr(Choices, "get", lambda *_: None)
    recording.program(3)
    assert recording.bytes == before and len(timed) == 2


@pytest.mark.parametrize("found", ["", "{", "[]", '{"3": "2"}', '{"3": 0}', "\x00\xff"])
def test_a_damaged_file_is_as_none(found, cache):
    one = Choices("one", [])
    one.put(1, 2)
    one.path.write_text(found)
    assert one.get(3) is None
    one.put(3, 2)
    assert json.loads(one.path.read_text()) == {"3": 2}


def test_a_number_that_cannot_be_is_measured_anew(cache, three_threads, timed):
    made(small(), Native())
    (file,) = cache.iterdir()
    file.write_text('{"3": 7}')
    made(small(), Native())
    assert len(timed) == 2 and json.loads(file.read_text()) == {"3": 3}


def test_a_folder_that_cannot_be_written(monkeypatch, tmp_path, three_threads, timed):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DIFFUSION_ENGINE_CACHE", str(tmp_path / "file"))
    made(small(), Native())
    assert len(timed) == 1


def test_where_it_is_kept(monkeypatch):
    monkeypatch.delenv("DIFFUSION_ENGINE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/some/where")
    assert str(folder()) == "/some/where/diffusion_engine/threads"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert folder().relative_to(os.path.expanduser("~")).parts[0] == ".cache"


def test_old_ones_go(cache, monkeypatch):
    monkeypatch.setattr(choice, "FILES", 3)
    for i in range(6):
        Choices(str(i), []).put(1, 2)
        os.utime(Choices(str(i), []).path, (i, i))
    assert len(list(cache.iterdir())) == 3
    assert Choices("5", []).get(1) == 2 and Choices("0", []).get(1) is None


def test_several_write_at_a_time(cache):
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda i: Choices("one", []).put(i % 2, 2), range(40)))
    (file,) = cache.iterdir()
    assert set(json.loads(file.read_text())) <= {"0", "1"}


def test_fewer_threads_win_where_times_are_nearly_the_same():
    assert fewest({1: 1.02, 2: 1.0}) == 1
    assert fewest({1: 1.04, 2: 1.0}) == 2
    assert fewest({}) == 1
    assert choice.measured({1: None}) == {}  # one alone is not run


def test_it_is_measured_in_turns(monkeypatch):
    ran = []
    monkeypatch.setattr(choice, "ROUNDS", (3, 3))
    times = choice.measured({1: lambda: ran.append(1), 2: lambda: ran.append(2)})
    assert ran == [1, 2] * 4 and set(times) == {1, 2}


@pytest.mark.parametrize("threads", [0, -1, 1.5, "two", True, 10**6])
def test_numbers_that_make_no_sense(threads):
    with pytest.raises(ValueError, match="threads"):
        Native(threads=threads)
