"""Errors that show when samples are read: they fail who sits in that batch, and nobody else."""

import pytest
import torch
from engine_cases import TIMEOUT, Network, one, running, same, spec

from diffusion_engine.engine import Engine


def broken_after(times, kept):
    """A method that raises from then on."""
    left = [times]

    def called(*given):
        left[0] -= 1
        if left[0] < 0:
            raise torch.OutOfMemoryError("late")
        return kept(*given)

    return called


def lane_of(engine, network=""):
    (lane,) = engine._served[network].lanes.values()
    return lane


@pytest.mark.parametrize("where", ["finite", "read", "denoised"])
def test_an_error_of_a_read_fails_that_batch_alone(where, monkeypatch):
    networks = {"a": Network(), "b": Network()}
    named = {name: network.score for name, network in networks.items()}
    with Engine(named, 4, probe=False) as engine:
        for name in named:  # their batches are there
            assert same(engine.submit(spec(), **one(1), network=name), **one(1))
        batch = lane_of(engine, "a").batch
        with monkeypatch.context() as patch:
            patch.setattr(batch, where, broken_after(0, getattr(batch, where)))
            with networks["a"].held(engine, 1, network="a") as first:
                asked = [
                    engine.submit(spec(steps=4), **one(i), network="a", preview=2) for i in (1, 2)
                ]
                events = asked[0].events()
                other = engine.submit(spec(steps=8), **one(3), network="b")
                if where == "denoised":
                    first = asked[0]
            for handle in (first, *asked):
                with pytest.raises(torch.OutOfMemoryError, match="late"):
                    handle.result(TIMEOUT)
                assert handle.status == "failed"
            assert [event.kind for event in events][-1] == "failed"
        assert same(other, steps=8, **one(3))
        assert same(engine.submit(spec(), **one(2), network="a"), **one(2))
        found = engine.snapshot()
        assert found["occupied"] == found["running"] == found["queued"] == 0


def test_those_read_before_the_error_are_done(monkeypatch):
    """Three come to their ends in one row, and the second of them cannot be read."""
    network = Network()
    with running(8, network) as (_, engine):
        assert same(engine.submit(spec(), **one(1)), **one(1))
        with network.held(engine):
            asked = [engine.submit(spec(steps=3), **one(i)) for i in (1, 2, 3)]
            # Of a request that is failed all samples are, those too that were read.
            pair = engine.submit(spec(steps=3), seeds=[4, 5], condition=[4, 5])
            longer = engine.submit(spec(steps=9), **one(6))
            batch = lane_of(engine).batch
            monkeypatch.setattr(batch, "read", broken_after(2, batch.read))
        handles = [*asked, pair, longer]
        failed = [handle for handle in handles if isinstance(error_of(handle), Exception)]
        assert failed == handles[1:]
        assert same(asked[0], steps=3, **one(1))
        monkeypatch.undo()
        assert same(engine.submit(spec(steps=2), **EIGHT), steps=2, **EIGHT)
        assert engine.snapshot()["occupied"] == 0


EIGHT = {"seeds": range(8), "condition": range(8)}


def error_of(handle):
    try:
        handle.result(TIMEOUT)
    except Exception as error:
        return error
