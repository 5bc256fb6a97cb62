"""bench-serve: the requests of a load, the contenders, and what is said of them."""

import itertools
import json
import threading

import pytest
import torch
from command import run
from PIL import Image

from diffusion_engine import Sampler, ScoreNetwork
from diffusion_engine.engine import Engine
from diffusion_engine.processes import VP
from diffusion_engine.profiling.serve import Bench, Kind, at_once, mix_of
from diffusion_engine.profiling.serve.drive import Course, Static, Timing, drive
from diffusion_engine.profiling.serve.load import arrivals
from diffusion_engine.profiling.serve.peers import Peers, in_turn
from diffusion_engine.profiling.serve.report import line
from diffusion_engine.testing import Mixture
from diffusion_engine.zoo import load_network

MIX = [
    {"weight": 2, "spec": "ddim", "class": 3},
    {"spec": {"solver": "heun", "steps": 2}, "n": 3, "guidance": 2.0, "preview": 0, "priority": 1},
]


def mix(*steps, **more):
    return [Kind.model_validate({"spec": {"solver": "ddim", "steps": s}, **more}) for s in steps]


def test_a_load_is_the_same_for_the_same_seed_and_comes_at_its_rate():
    network = load_network("digits")
    kinds = mix_of(json.dumps(MIX))
    load = arrivals(kinds, network, 2000, 50.0, seed=3)
    assert load == arrivals(kinds, network, 2000, 50.0, seed=3)
    assert load != arrivals(kinds, network, 2000, 50.0, seed=4)
    assert all(a.at < b.at for a, b in itertools.pairwise(load))
    # The mean of 2000 exponential gaps is off by 1 / sqrt(2000) of itself; four times that.
    assert abs(load[-1].at * 50.0 / 2000 - 1) < 4 / 2000**0.5
    often = sum(one.kind is kinds[0] for one in load) / 2000
    assert abs(often - 2 / 3) < 4 * (2 / 9 / 2000) ** 0.5
    seeds = [seed for one in load for seed in one.seeds]
    assert seeds == list(range(len(seeds)))
    assert {len(one.seeds) for one in load if one.kind is kinds[1]} == {3}


def test_requests_say_what_their_kind_asks():
    network = load_network("digits")
    first, second = mix_of(json.dumps(MIX))
    load = arrivals((first, second), network, 40, 1.0)
    one = next(a for a in load if a.kind is first)
    assert one.request == {"seeds": list(one.seeds), "condition": [3]}
    other = next(a for a in load if a.kind is second)
    assert other.request["guidance"] == 2.0 and len(other.request["condition"]) == 3
    assert all(a.at == 0 for a in at_once(load))
    assert "condition" not in arrivals(mix(4), Mixture().network(VP()), 1, 1.0)[0].request


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[", "the mix is no JSON"),
        ("{}", "a mix is a JSON list of requests"),
        ("[]", "a mix is a JSON list of requests"),
        ('[{"spec": "ddim"}, {"weight": 1}]', "request 1 of the mix: spec is missing"),
        ('[{"spec": "ddim", "wait": 1}]', "request 0 of the mix: a request of a mix has no wait"),
        ('[{"spec": {"solver": "ddim", "step": 3}}]', "a spec has no step; did you mean steps"),
        ('[{"spec": "ddim", "weight": 0}]', "weight=0: input should be greater than 0"),
    ],
)
def test_a_wrong_mix_is_one_sentence(text, said):
    with pytest.raises(ValueError, match=said):
        mix_of(text)


@pytest.mark.parametrize(
    ("kind", "sizes"),
    [(Static, [1, 2, 2, 1, 1, 1, 1, 1, 1]), (Engine, [1, 2, 2, 2, 2, 1, 1])],
)
def test_static_batches_admit_nobody_until_all_have_ended(kind, sizes):
    """Two seats; while one request holds them, others of 2, 6 and 2 steps come. Of static batches the last
    waits for the six; in an engine it draws its x beside the last row of the first two."""
    calls, called, all_here = [], threading.Event(), threading.Event()

    def half(x, t):
        calls.append(len(x))
        called.set()
        assert all_here.wait(60)
        return 0.5 * x

    with kind(ScoreNetwork(half, VP(), (1, 4, 4)), 2, probe=False) as engine:
        handles = [engine.submit({"solver": "ddim", "steps": 1})]
        assert called.wait(60)
        handles += [engine.submit({"solver": "ddim", "steps": steps}) for steps in (2, 6, 2)]
        all_here.set()
        for handle in handles:
            handle.result(60)
    assert calls == sizes


def test_static_batches_make_the_samples_of_an_engine():
    network = Mixture().network(VP())
    with Static(network, 2) as engine:
        handles = [engine.submit({"solver": "ddim", "steps": s}, seeds=[s]) for s in (2, 5, 3)]
        made = [handle.result(60).samples for handle in handles]
    alone = [Sampler(network, "ddim", s).sample(seeds=[s]).samples for s in (2, 5, 3)]
    assert all(map(torch.equal, made, alone))


def test_a_course_knows_when_requests_came_showed_and_were_done():
    network = Mixture().network(VP())
    kinds = mix(3, 5)
    with Bench(network, kinds, capacity=4) as bench:
        course = drive(bench.engines["engine"], bench.load(12, 200.0))
    assert all(t.came < t.preview <= t.done for t in course.timings)
    assert course.images == 12 and 0 < course.occupancy <= 1
    assert all(taken <= 4 for _, taken, _ in course.seats)


def test_who_is_refused_is_counted_and_the_others_are_served():
    """A deadline that the one request cannot meet: it is lost, and no latency is said of it."""
    network = Mixture().network(VP())
    kinds = [*mix(3), *mix(400, deadline=1e-6)]
    load = [a for kind in kinds for a in arrivals([kind], network, 1, 1.0)]
    with Bench(network, kinds, capacity=2) as bench:
        course = drive(bench.engines["engine"], at_once(load))
    said = line("engine", 1.0, course)
    assert said.lost == 1 and course.images == 1
    assert course.timings[1].done is None


def test_in_turn_is_the_queue_of_one_server():
    """Three requests that take 2 s each, at 0, 1 and 10 s: the second waits for the first."""
    network = Mixture().network(VP())
    (kind,) = mix(4)
    load = [type(a)(at, kind, a.seeds, None) for at, a in
            zip((0.0, 1.0, 10.0), arrivals([kind], network, 3, 1.0), strict=True)]  # fmt: skip
    course = in_turn(load, [(0.5, 2.0)] * 3)
    assert [(t.preview, t.done) for t in course.timings] == [(0.5, 2.0), (2.5, 4.0), (10.5, 12.0)]
    assert course.seconds == 12.0


def test_lockstep_and_evaluations_count_every_sample():
    network = load_network("digits")
    kinds = mix_of(json.dumps(MIX))
    peers = Peers(network, kinds, 2, {})
    assert [peers.evaluations(kind) for kind in kinds] == [20, 2 * 3]
    assert peers.lockstep(arrivals(kinds[1:], network, 2, 1.0)) > 0


def test_quantiles_are_those_of_the_requests_that_were_done():
    course = Course([Timing(0.0, 1, 1.0, 2.0), Timing(1.0, 2, None, 5.0), Timing(0.0, 1)])
    said = line("it", 7.0, course)
    assert said.images_s == 3 / 5.0 and said.lost == 1
    assert said.latency[0] == 3.0 and said.preview == (1.0, 1.0, 1.0)


def test_the_command_prints_its_contenders_and_draws_the_seats(capsys, tmp_path):
    (tmp_path / "mix.json").write_text(json.dumps(MIX[1:]))
    out, _ = run(
        capsys, "bench-serve", "--requests", 6, "--rate", 100, "--capacity", 4, "--mix",
        tmp_path / "mix.json", "--json", "--picture", tmp_path / "seats.png",
    )  # fmt: skip
    found = json.loads(out)
    names = [c["name"] for c in found["contenders"]]
    assert names == ["engine", "static", "one at a time", "lockstep"]
    assert found["images"] == 18 and found["evaluations"] == 18 * 6
    assert all(c["at_once"] > 0 and c["lost"] == 0 for c in found["contenders"])
    with Image.open(tmp_path / "seats.png") as image:
        assert image.size[0] == 1600


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--rate", 0), "give requests a second, more than 0"),
        (("--capacity", 0), "capacity=0"),
        (("--batch", "some"), "batch='some'"),
        (("--picture", "no/such/folder/x.png"), "no/such/folder"),
    ],
)
def test_a_wrong_option_of_the_command_is_one_sentence(capsys, given, said):
    _, err = run(capsys, "bench-serve", "--requests", 1, *given, code=2)
    assert said in err and err.count("\n") == 1
