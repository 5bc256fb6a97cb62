"""A network that does harm in the middle of a row: to its own request alone, and not for long."""

import pytest
from fault_load import Load
from fault_networks import BREAKS, DIES, EXITS, HANGS, HOARDS, RAISES, SPOILS, STICKS
from served import serving

from diffusion_engine.client import Failed, Unavailable

FLAGS = ("--model", "faulty=fault_networks:faulty", "--capacity", "4")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("network"), *FLAGS) as server:
        yield server


def failing(server, label, said, steps=3, **how):
    """A request of that class fails with a sentence, and the others beside it are made."""
    load = Load(server)
    with server.client(timeout=120, retries=0) as client:
        with pytest.raises(Failed, match=said) as raised:
            client.sample("ddim", model="faulty", steps=steps, seed=1, condition=label)
        assert "secret" not in str(raised.value) and "/" not in str(raised.value)
        load.check_all_made()
        took = server.wait_ready()
        print(f"class {label}: ready again after {took:.1f} s")
        Load(server, 1, steps=2).check_all_made()
    server.wait_idle()


@pytest.mark.parametrize("label, said", [
    (RAISES, "the network raised RuntimeError"), (SPOILS, "a value that is not finite"),
    (HOARDS, "memory ran out in a call of the network"),
], ids=["raises", "spoils", "hoards"])  # fmt: skip
def test_a_request_fails_alone(server, label, said):
    workers = server.workers()
    failing(server, label, said)
    assert server.workers() == workers


def refused(server, label, steps):
    """A request that ends every worker it is at is told so, and what is like it is refused for a while."""
    before = server.counts().get("worker_restarts_total", 0)
    failing(server, label, "the 3 workers that made the request were lost", steps)
    assert server.counts()["worker_restarts_total"] == before + 3
    with server.client(retries=0) as client:
        with pytest.raises(Unavailable, match="ended the workers that ran them") as raised:
            client.sample("ddim", model="faulty", steps=steps, seed=2, condition=label)
        assert raised.value.code == "quarantined" and 3000 < raised.value.retry_after <= 3600
    assert len(server.workers()) == 1


def test_a_request_that_kills_is_refused(server):
    refused(server, DIES, 3)


@pytest.mark.slow
@pytest.mark.parametrize(
    "label", [EXITS, BREAKS, HANGS, STICKS], ids=["exits", "breaks", "hangs", "sticks"]
)
def test_every_request_that_ends_workers_is_refused(server, label):
    refused(server, label, 4)
