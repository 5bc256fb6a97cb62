"""Memory that recorded networks are replayed on."""

import mmap

import pytest
import torch

from diffusion_engine.native.memory import LARGE, moved, zeros


@pytest.mark.parametrize("size", [64, LARGE - 1, LARGE, 3 * LARGE + 4])
def test_zeros(size):
    memory = zeros(size)
    assert memory.shape == (size,) and not memory.any()
    assert memory.data_ptr() % 64 == 0
    memory.fill_(1)


def test_a_system_without_large_pages(monkeypatch):
    monkeypatch.setattr(mmap, "MADV_HUGEPAGE", -1)  # as it refuses what it does not know
    assert not zeros(LARGE).any()


def test_a_copy_lives_longer_than_what_it_is_of():
    given = torch.randn(2, LARGE // 8)
    copy, kept = moved(given), given.clone()
    given.zero_()
    assert torch.equal(copy, kept)
