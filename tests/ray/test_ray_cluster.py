"""Two nodes, one of which is killed while it works: what comes out has the same bytes."""

import io
import json
import socket
import threading
import time

import httpx
import numpy as np
import pytest
import ray_cases
import torch
from optional import needs
from safetensors.numpy import load_file

from diffusion_engine import Sampler
from diffusion_engine.models import network_of
from diffusion_engine.ray import shards, table
from diffusion_engine.ray.generate import Failed, Maker, generate, weights_sum
from diffusion_engine.sampler.spec import Spec

needs("ray.data")
SPEC = {"solver": "dpmpp_2m", "steps": 6, "guidance": 1.5}
COUNT = 22  # shards: the second node has work left when its actor is there
ROWS = table.span(0, 4 * COUNT, [i % 5 for i in range(4 * COUNT)])
NPZ = {"accept": "application/x-npz"}
HOW = {"samples_per_shard": 4, "capacity": 4}


@pytest.fixture(scope="module")
def nodes():
    with ray_cases.two_nodes() as made:
        yield made


def alone(out):
    """The bytes of every shard, made by one actor's code in this process."""
    out.mkdir()
    job = {
        "model": "ray_cases:tiny", "weights": weights_sum(ray_cases.tiny()),
        "spec": Spec.model_validate(SPEC).model_dump(mode="json"), "capacity": 4,
        "executor": "eager", "threads": 1, "device": "cpu", "dtype": None,
    }  # fmt: skip
    maker = Maker(job, str(out))
    for name, rows in ROWS.shards(4):
        said = maker({"name": name} | rows.signed())
        assert not said["error"], said
    return contents(out)


def contents(out):
    return {path.name: path.read_bytes() for path in out.glob("*.safetensors")}


@pytest.fixture(scope="module")
def cut(nodes, tmp_path_factory):
    """A folder, one of whose makers was killed; and what was told meanwhile."""
    out, seen, when = tmp_path_factory.mktemp("cut") / "out", [], []

    def told(progress):
        seen.append(progress)
        if progress.node == ray_cases.OTHER and not when:
            when.append(progress.shards)
            nodes.cut()  # while it makes the next

    try:
        about = generate("ray_cases:slow", ROWS, out, SPEC, told=told, **HOW)
    finally:
        if when:
            nodes.add()
    assert when and when[0] < len(about) == COUNT
    return out, seen


def test_a_killed_nodes_shards_are_made_again_with_the_same_bytes(cut, tmp_path):
    out, seen = cut
    assert {p.node for p in seen} == {ray_cases.HEAD, ray_cases.OTHER}
    assert seen[-1].done == 4 * COUNT and not any(p.kept for p in seen)
    assert contents(out) == alone(tmp_path / "alone")
    path = out / "000000000008-000000000011.safetensors"
    again = Sampler(network_of("ray_cases:tiny"), "dpmpp_2m", steps=6, guidance=1.5, threads=1)
    made, recipe = load_file(path), shards.recipe_of(path)
    for place, seed in enumerate(made["seed"].tolist()):
        one = again.sample(seeds=[seed], condition=[seed % 5], bucket=recipe["bucket"]).samples
        assert torch.equal(one[0], torch.from_numpy(made["samples"][place]))


def test_a_run_goes_on_where_it_stopped(cut):
    out, seen = cut[0], []
    whole = contents(out)
    first, second, third, *_ = sorted(out.glob("*.safetensors"))
    first.unlink()
    second.write_bytes(second.read_bytes()[:-1])
    left = out / f".{third.stem}.0{shards.PART}"
    left.write_bytes(b"half")
    with pytest.raises(ValueError, match="samples of another recipe: its spec is"):
        generate("ray_cases:slow", ROWS, out, SPEC | {"steps": 7}, **HOW)
    generate("ray_cases:slow", ROWS, out, SPEC, told=seen.append, **HOW)
    assert contents(out) == whole and not left.exists()
    assert {p.name for p in seen if not p.kept} == {first.stem, second.stem} and len(seen) == COUNT


@pytest.mark.slow
def test_a_node_with_other_weights_stops_the_run(nodes, tmp_path, monkeypatch):
    monkeypatch.setattr("diffusion_engine.ray.generate.weights_sum", lambda network: "0" * 64)
    with pytest.raises(Failed, match="could not be written: the weights of 'ray_cases:tiny' on"):
        generate("ray_cases:tiny", ROWS, tmp_path / "out", SPEC, **HOW)
    assert contents(tmp_path / "out") == {}


def free_port():
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return bound.getsockname()[1]


@pytest.fixture(scope="module")
def served(nodes):
    """The address of two replicas, one on each node."""
    from ray import serve as ray_serve

    from diffusion_engine.ray import serve
    from diffusion_engine.server.settings import Settings

    models = {"tiny": "ray_cases:slow"}
    settings = Settings(models=models, capacity=4, batch="fixed", threads=1, port=free_port())
    try:
        yield serve.start(settings, replicas=2)
    finally:
        ray_serve.shutdown()


def asked(seed, **more):
    spec = {"solver": "ddim", "steps": 5}
    return {"model": "tiny", "spec": spec, "seeds": [seed], "condition": [seed % 5]} | more


def answer(address, seed, until):
    """The samples of a request, which is sent again where it got no answer, and how often it was sent."""
    sent = 0
    while time.monotonic() < until:
        sent += 1
        try:
            said = httpx.post(f"{address}/v1/samples", json=asked(seed), headers=NPZ, timeout=20)
        except httpx.TransportError:
            continue
        if said.status_code == 200:
            return said.content, sent
        assert said.status_code >= 500, said.text
        time.sleep(0.1)
    return None, sent


def test_a_request_is_known_to_its_own_replica_alone(served):
    said = httpx.post(f"{served}/v1/samples", json=asked(1, wait=False), headers=NPZ, timeout=20)
    name, codes = said.json()["id"], set()
    for _ in range(200):
        found = httpx.get(f"{served}/v1/requests/{name}", headers=NPZ, timeout=20)
        codes.add(found.status_code)
        if found.status_code == 404:
            assert "each knows its own" in found.json()["error"]["message"]
        if codes == {200, 404}:
            return
    raise AssertionError(f"of two replicas one should know it, and only {codes} was seen")


def test_requests_are_answered_while_a_node_is_killed(nodes, served):
    until, found, lock = time.monotonic() + 100, {}, threading.Lock()
    seeds = iter(range(60))

    def client():
        for seed in iter(lambda: next(seeds, None), None):
            made = answer(served, seed, until)
            with lock:
                found[seed] = made

    threads = [threading.Thread(target=client, daemon=True) for _ in range(6)]
    for thread in threads:
        thread.start()
    while len(found) < 15 and time.monotonic() < until:
        time.sleep(0.02)
    nodes.cut()
    try:
        for thread in threads:
            thread.join(until - time.monotonic())
    finally:
        nodes.add()
    assert sorted(found) == list(range(60)) and all(made for made, _ in found.values())
    print("sent again:", sum(sent - 1 for _, sent in found.values()))
    size = {}
    for seed, (made, _) in found.items():
        with np.load(io.BytesIO(made)) as file:
            samples, recipe = file["samples"], json.loads(str(file["recipe"]))
        bucket = recipe["bucket"]
        sampler = size.setdefault(bucket, Sampler(ray_cases.tiny(), "ddim", steps=5, threads=1))
        alone = sampler.sample(seeds=[seed], condition=[seed % 5], bucket=bucket)
        assert np.array_equal(alone.samples.numpy(), samples), seed
