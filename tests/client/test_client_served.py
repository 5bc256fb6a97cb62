"""Clients and a server, each in its process."""

import socket
import threading

import numpy as np
import pytest
import torch
from fault_networks import RAISES, SHAPE, SLOW, SPOILS, harmless
from served import serving

from diffusion_engine import Sampler, Spec
from diffusion_engine.client import Failed, GivenUp, Lost, Refused

TWO = {"model": "faulty", "seeds": [5, 2**63], "condition": [1, 2]}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    flags = ("--model", "faulty=fault_networks:faulty", "--capacity", "4", "--max-queue", "8")
    with serving(tmp_path_factory.mktemp("served"), *flags) as server:
        yield server


@pytest.fixture
def client(server, clients):
    return clients(**server.place)


def alone(solver, steps, **request):
    return Sampler(harmless(), solver, steps).sample(progress=False, **request)


def test_samples_are_those_of_a_sampler_here(client):
    made = client.sample(Spec(solver="unipc", steps=4), guidance=[1.0, 2.0], **TWO)
    own = alone("unipc", 4, seeds=[5, 2**63], condition=[1, 2], guidance=[1.0, 2.0])
    assert np.array_equal(made.samples, own.samples.numpy()) and made.samples.dtype == np.float32
    assert (made.seeds, made.nfe, made.evaluations) == (own.seeds, own.nfe, own.evaluations)
    assert made.finite == [True, True] and made.about["model"] == "faulty"
    again = Sampler.replay(harmless(), made.recipe)
    assert torch.equal(again.samples, own.samples)


def test_arrays_reach_the_sampler(client):
    x = np.random.default_rng(0).standard_normal((2, *SHAPE)).astype(np.float32)
    mask = (x > 0).astype(np.float32)
    given = {"x": x, "start": 0.5, "mask": mask, "known": x[:1]}
    made = client.sample("ddim", steps=3, **given, **TWO)
    arrays = {k: torch.from_numpy(v) if isinstance(v, np.ndarray) else v for k, v in given.items()}
    own = alone("ddim", 3, seeds=[5, 2**63], condition=[1, 2], **arrays)
    assert np.array_equal(made.samples, own.samples.numpy()) and {"x", "mask"} <= {
        *made.recipe["needs"]
    }


def test_a_stream_shows_the_estimates_and_ends_with_the_samples(client):
    *events, done = client.stream("ddim", steps=6, preview=2, **TWO | {"condition": SLOW})
    kinds = [event.kind for event in events]
    assert kinds[:2] == ["queued", "started"] and {*kinds[2:]} == {"row", "preview"}
    previews = [event for event in events if event.kind == "preview"]
    assert {p.row for p in previews} == {2, 4, 6} and {p.sample for p in previews} == {0, 1}
    assert all(p.denoised.shape == SHAPE and p.denoised.dtype == np.float32 for p in previews)
    own = alone("ddim", 6, seeds=[5, 2**63], condition=[SLOW] * 2)
    assert done.kind == "done" and np.array_equal(done.made.samples, own.samples.numpy())


def test_who_leaves_a_stream_gives_its_request_up(client, server):
    slow = {"model": "faulty", "condition": SLOW, "n": 16, "steps": 1000}  # a minute and more
    with client.stream("ddim", **slow) as events:
        assert next(iter(events)).kind == "queued"
        assert client.request(next(events).id).status() == "running"
    server.wait_idle()


def test_a_request_is_left_and_fetched(client):
    request = client.submit("ddim", steps=3, **TWO)
    assert request.result(30).seeds == [5, 2**63]
    assert request.status() == "done" and request.about()["model"] == "faulty"
    assert client.request(request.id).result().samples.shape == (2, *SHAPE)
    assert request.cancel() is False
    with pytest.raises(Refused, match="there is no request"):
        request.status()


def test_a_request_that_was_left_is_cancelled(client, server):
    request = client.submit("ddim", 16, model="faulty", condition=SLOW, steps=1000)
    with pytest.raises(TimeoutError):
        request.result(0.1)
    assert request.cancel() is True
    server.wait_idle()


def test_what_fails_says_why(client):
    for label, said in ((RAISES, "the network raised RuntimeError"), (SPOILS, "not finite")):
        with pytest.raises(Failed, match=said) as raised:
            client.sample("ddim", model="faulty", condition=label, steps=2)
        assert "secret" not in str(raised.value)
        with pytest.raises(Failed, match=said):
            list(client.stream("ddim", model="faulty", condition=label, steps=2))
        with pytest.raises(Failed, match=said):
            client.submit("ddim", model="faulty", condition=label, steps=2).result()
    with pytest.raises(GivenUp):
        client.sample("ddim", model="faulty", condition=SLOW, steps=900, deadline=0.2)


def test_what_is_wrong_says_so(client):
    for given, said in (
        ({"steps": 0}, "steps=0"), ({"condition": 99}, "classes 0 to"), ({"model": "none"}, "no model"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=said):
            client.sample("ddim", **{"model": "faulty", "condition": 1, **given})


def test_what_is_served(client):
    (model,) = client.models()
    assert model["id"] == "faulty" and model["shape"] == list(SHAPE) and client.ready() is True


def test_a_full_server_is_asked_again(server, clients):
    client = clients(**server.place, retries=60)
    slow = [client.submit("ddim", model="faulty", condition=SLOW, steps=40) for _ in range(8)]
    made = client.sample("ddim", steps=3, **TWO)
    assert np.array_equal(
        made.samples, alone("ddim", 3, seeds=[5, 2**63], condition=[1, 2]).samples.numpy()
    )
    for request in slow:
        request.cancel()


def test_nobody_is_there(clients):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nobody listens
        client = clients(f"http://127.0.0.1:{taken.getsockname()[1]}", retries=1)
        assert client.ready() is False
        with pytest.raises(Lost, match="cannot be reached"):
            client.sample("ddim")


def test_threads_share_a_client(server):
    with server.client() as client:
        made = {}

        def work(seed):
            made[seed] = client.sample(
                "ddim", steps=3, model="faulty", seed=seed, condition=3
            ).samples

        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    own = alone("ddim", 3, seeds=list(range(8)), condition=[3] * 8).samples
    assert all(np.array_equal(made[seed][0], own[seed].numpy()) for seed in range(8))
