"""What executors keep, by a budget; and what they do when the memory is full."""

from dataclasses import replace

import pytest
import tape
import torch
from batches import capacity
from executor_cases import CONDITIONAL, PLAIN, SHAPE, elementwise, same
from tape import TapeRecorder, taping

from diffusion_engine import Sampler, ScoreNetwork
from diffusion_engine.executors import Eager, Graph, GraphError, Job
from diffusion_engine.executors.buffers import Buffers
from diffusion_engine.executors.lru import Lru
from diffusion_engine.executors.packing import bucket
from diffusion_engine.networks.contents import within
from diffusion_engine.processes import VP

launches_are_recorded = tape.launches_are_recorded


def of_budget(budget, bytes=1000):
    return Graph(recorder=TapeRecorder(bytes), budget=budget)


@pytest.mark.parametrize(
    "network, request_",
    [
        (PLAIN, {"noise": "brownian", "mask": torch.ones(SHAPE), "known": torch.zeros(SHAPE)}),
        (CONDITIONAL, {"condition": [1, 2], "guidance": 2.0, "on_step": print}),
        (ScoreNetwork(lambda x, label, z: x * z.mean(), VP(), SHAPE, latent=6), {}),
    ],
)
def test_a_budget_counts_every_buffer(network, request_, capsys):
    used = Eager()
    Sampler(network, "dpmpp_sde", 3, executor=used).sample(2, **request_)
    ((_, room),) = used._idle
    buffers = Buffers(room)
    assert (buffers.step.denoised is None) == (
        "on_step" not in request_
    )  # kept for a callback alone
    values = (v for d in within(buffers) for v in (d.values() if isinstance(d, dict) else d))
    storages = [v.untyped_storage() for v in values if isinstance(v, torch.Tensor)]
    assert buffers.bytes == sum({s.data_ptr(): s.nbytes() for s in storages}.values())


def test_the_least_recently_used_graphs_go_first():
    one = _bytes(2) + 5000
    shared = of_budget(2 * one + one // 2, bytes=1000)
    made = Sampler(PLAIN, "ddim", 3, executor=shared)
    for n in (2, 3, 2, 1):  # 3 was used before 2
        made.sample(n)
    kept = [key[1].seats for key in shared._kept]
    assert kept == [2, 1]
    assert shared._kept.bytes <= shared._kept.budget


def _bytes(n):
    """Of the buffers of n samples."""
    job = Job(Sampler(PLAIN, "ddim", 3).plan(), 0)
    return Buffers(capacity(PLAIN, [job], n).padded()).bytes


def test_a_bucket_larger_than_the_budget():
    need = _bytes(4)
    made = Sampler(PLAIN, "ddim", 3, executor=of_budget(need + 2000))
    with pytest.raises(GraphError, match=r"buffers of 32 samples.*lower batch_size"):
        made.sample(32)
    assert same(Sampler(PLAIN, "ddim", 3).sample(4), made.sample(4))
    made = Sampler(PLAIN, "ddim", 3, executor=of_budget(need + 2000, bytes=5000))
    with pytest.raises(GraphError, match=r"graphs of 4 samples.*give Graph\(budget="):
        made.sample(4)


def test_out_of_memory_drops_other_graphs_and_tries_once_more():
    full = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
    recorder = TapeRecorder()
    shared = Graph(recorder=recorder)
    made = Sampler(PLAIN, "ddim", 3, executor=shared)
    made.sample(1)
    for n, where in ((4, "record"), (5, "warm_up")):
        recorder.failures[where] = [full]
        assert same(Sampler(PLAIN, "ddim", 3).sample(n), made.sample(n))
        assert [key[1].seats for key in shared._kept] == [n]
    recorder.failures["record"] = [full, full]
    with pytest.raises(GraphError, match=r"ran out of memory while 2 samples.*lower batch_size"):
        made.sample(2)
    assert same(Sampler(PLAIN, "ddim", 3).sample(2), made.sample(2))


def test_out_of_memory_in_the_comparison():
    calls = []

    def module(x, label):
        calls.append(len(x))
        if len(calls) == 3:  # after a warm-up and the capture: the eager step to compare with
            raise torch.OutOfMemoryError("CUDA out of memory")
        return elementwise(x, label)

    made = Sampler(ScoreNetwork(module, VP(), SHAPE), "ddim", 3, executor=taping())
    assert same(Sampler(PLAIN, "ddim", 3).sample(2), made.sample(2))


def test_lru():
    kept = Lru(100)
    assert kept.put("a", 1, 40) and kept.put("b", 2, 40)
    assert kept.get("a") == 1
    assert kept.put("c", 3, 40)
    assert list(kept) == ["a", "c"] and kept.get("b") is None
    assert kept.put("a", 1, 90)  # grown
    assert list(kept) == ["a"]
    assert not kept.put("d", 4, 101)  # the others stay
    assert list(kept) == ["a"] and kept.bytes == 90
    assert kept.put("a", 1, 100)
    assert not kept.put("a", 1, 101)
    assert len(kept) == 0 and kept.take("a") is None


def test_buckets_pad_by_a_fifth_at_most():
    for n in range(1, 3000):
        size = bucket(n)
        assert n <= size <= max(n, 1.25 * n) and bucket(size) == size
    assert [bucket(n) for n in (1, 8, 9, 17, 33, 64, 65)] == [1, 8, 10, 20, 40, 64, 80]


def test_runs_of_about_as_many_rows_share_their_buffers():
    room = capacity(PLAIN, [Job(Sampler(PLAIN, "ddim", 3).plan(), 0)])
    padded = [replace(room, rows=n).padded().rows for n in (2, 256, 257, 512, 513)]
    assert padded == [256, 256, 512, 512, 1024]


@pytest.mark.parametrize("kind", [lambda: Eager(), taping, lambda: taping(whole_run=True)])
def test_more_packings_than_are_kept(kind, monkeypatch):
    """Tables of former runs go, but for those that graphs read."""
    monkeypatch.setattr("diffusion_engine.executors.placed.PACKINGS", 3)
    made = Sampler(CONDITIONAL, "ddim", 3, executor=kind())
    eager = Sampler(CONDITIONAL, "ddim", 3)
    scales = [[1.0, 2.0], [2.0, 1.0], [1.0, 1.0], [2.0, 2.0], [1.0, 2.0], [2.0, 1.0]]
    for scale in scales + scales:
        how = {"condition": [1, 2], "guidance": scale}
        assert same(eager.sample(2, **how), made.sample(2, **how))


def test_whole_runs_of_one_signature_make_room_for_each_other():
    need = _bytes(4)
    shared = Graph(recorder=TapeRecorder(6000), budget=need + 17000, whole_run=True)
    for steps in (3, 4, 5, 6, 7, 3):
        made = Sampler(PLAIN, "ddim", steps, executor=shared).sample(4)
        assert same(Sampler(PLAIN, "ddim", steps).sample(4), made)
        assert shared._kept.bytes <= shared._kept.budget
