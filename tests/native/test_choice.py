"""Threads are chosen by measurement, the choice is kept on disk, and no bits depend on it."""

import json

import pytest
import torch
from native_cases import small

from diffusion_engine import Sampler
from diffusion_engine.choices import Kept, files
from diffusion_engine.native import Native

GIVEN = {"seeds": [1, 2, 3], "condition": [0, 1, 0]}


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

    def in_turns(counts, seconds):
        asked.append(sorted(counts))
        assert all(seconds(count) > 0 for count in counts)
        return {count: 1.0 / count for count in counts}

    monkeypatch.setattr("diffusion_engine.native.recording.in_turns", in_turns)
    return asked


def made(network, executor):
    return Sampler(network, "ddim", 2, executor=executor).sample(**GIVEN).samples


def test_it_is_measured_once_and_read_by_later_ones(three_threads, timed):
    network, first = small(), Native()
    samples = made(network, first)
    assert timed == [[1, 2, 3]] and first.recorded(network).threads == {3: 3}
    (file,) = files("threads")
    assert json.loads(file.read_text()) == {"3": 3}
    second = Native()
    assert torch.equal(made(small(), second), samples)
    assert len(timed) == 1
    assert torch.equal(made(small(seed=1), Native()), made(small(seed=1), Native(threads=1)))
    assert len(timed) == 2  # other weights are another network


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_no_bits_depend_on_it(threads, timed):
    assert torch.equal(made(small(), Native(threads=threads)), made(small(), Native(threads=1)))
    assert not timed and not list(files("threads"))


def test_programs_of_other_threads_share_memory(three_threads, timed, monkeypatch):
    network, executor = small(), Native()
    made(network, executor)
    (recording,) = executor.recorded(network).recordings
    before = recording.bytes
    recording.threads = {}
    monkeypatch.setattr(Kept, "get", lambda *_: None)
    recording.program(3)
    assert recording.bytes == before and len(timed) == 2


def test_a_number_that_cannot_be_is_measured_anew(three_threads, timed):
    made(small(), Native())
    (file,) = files("threads")
    file.write_text('{"3": 7}')
    made(small(), Native())
    assert len(timed) == 2 and json.loads(file.read_text()) == {"3": 3}


def test_a_folder_that_cannot_be_written(monkeypatch, tmp_path, three_threads, timed):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DIFFUSION_ENGINE_CACHE", str(tmp_path / "file"))
    made(small(), Native())
    assert len(timed) == 1


@pytest.mark.parametrize("threads", [0, -1, 1.5, "two", True, 10**6])
def test_numbers_that_make_no_sense(threads):
    with pytest.raises(ValueError, match="threads"):
        Native(threads=threads)
