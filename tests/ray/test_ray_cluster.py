"""Two nodes, one of which is killed while it works: what comes out has the same bytes."""

import pytest
import ray_cases
import torch
from optional import needs
from safetensors.numpy import load_file

from diffusion_engine import Sampler
from diffusion_engine.ray import shards, table
from diffusion_engine.ray.generate import Failed, Maker, generate, network_of, weights_sum
from diffusion_engine.sampler.spec import Spec

needs("ray.data")
SPEC = {"solver": "dpmpp_2m", "steps": 6, "guidance": 1.5}
ROWS = table.span(0, 44, [i % 5 for i in range(44)])
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
        "executor": "eager", "threads": 1, "device": "cpu",
    }  # fmt: skip
    maker = Maker(job, str(out))
    for name, rows in ROWS.shards(4):
        said = maker({"name": name} | rows.signed())
        assert not said["error"], said
    return contents(out)


def contents(out):
    return {path.name: path.read_bytes() for path in out.glob("*.safetensors")}


def test_a_killed_nodes_shards_are_made_again_with_the_same_bytes(nodes, tmp_path):
    seen, cut = [], []

    def told(progress):
        seen.append(progress)
        if progress.node == ray_cases.OTHER and not cut:
            cut.append(progress.shards)
            nodes.cut()  # while it makes the next

    try:
        about = generate("ray_cases:slow", ROWS, tmp_path / "cut", SPEC, told=told, **HOW)
    finally:
        if cut:
            nodes.add()
    assert cut and cut[0] < len(about) == 11
    assert {p.node for p in seen} == {ray_cases.HEAD, ray_cases.OTHER}
    assert seen[-1].done == 44 and not any(p.kept for p in seen)
    whole = alone(tmp_path / "alone")
    assert contents(tmp_path / "cut") == whole
    assert not list((tmp_path / "cut").glob(f".*{shards.PART}"))
    again = Sampler(network_of("ray_cases:tiny"), "dpmpp_2m", steps=6, guidance=1.5)
    made = load_file(tmp_path / "cut" / "000000000008-000000000011.safetensors")
    recipe = shards.recipe_of(tmp_path / "cut" / "000000000008-000000000011.safetensors")
    for place, seed in enumerate(made["seed"].tolist()):
        one = again.sample(seeds=[seed], condition=[seed % 5], bucket=recipe["bucket"]).samples
        assert torch.equal(one[0], torch.from_numpy(made["samples"][place]))


def test_a_run_goes_on_where_it_stopped(nodes, tmp_path):
    out, seen = tmp_path / "out", []
    rows = table.span(2**40, 9, [0] * 9)
    generate("ray_cases:tiny", rows, out, SPEC, **HOW)
    whole = contents(out)
    first, second, third = sorted(out.glob("*.safetensors"))
    first.unlink()
    second.write_bytes(second.read_bytes()[:-1])
    (out / f".{third.stem}.0{shards.PART}").write_bytes(b"half")
    generate("ray_cases:tiny", rows, out, SPEC, told=seen.append, **HOW)
    assert contents(out) == whole and len(list(out.iterdir())) == 5
    assert {p.name: p.kept for p in seen} == {
        first.stem: False,
        second.stem: False,
        third.stem: True,
    }
    with pytest.raises(ValueError, match="samples of another recipe: its spec is"):
        generate("ray_cases:tiny", rows, out, SPEC | {"steps": 7}, **HOW)
    assert contents(out) == whole


def test_a_node_with_other_weights_stops_the_run(nodes, tmp_path, monkeypatch):
    monkeypatch.setattr("diffusion_engine.ray.generate.weights_sum", lambda network: "0" * 64)
    with pytest.raises(Failed, match="could not be written: the weights of 'ray_cases:tiny' on"):
        generate("ray_cases:tiny", ROWS, tmp_path / "out", SPEC, **HOW)
    assert contents(tmp_path / "out") == {}
