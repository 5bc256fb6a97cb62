"""The simulated queue against what is known in closed form, and against its own books."""

import copy
import math
import random
import threading
from collections import deque

import pytest
import torch

from benchmarks.runs.queue_model import Request, Simulation, poisson
from diffusion_engine import Engine, ScoreNetwork
from diffusion_engine.processes import VP


def mean(values):
    values = list(values)
    return sum(values) / len(values)


def exponential(made):
    """One row whose time is its entries, exponential with mean 1."""
    return 1, made.expovariate(1.0)


def same(entries):
    return entries


def erlang_c(c, load):
    """The chance to wait in M/M/c, load in Erlang."""
    last = load**c / math.factorial(c) * c / (c - load)
    return last / (sum(load**k / math.factorial(k) for k in range(c)) + last)


def waited(request):
    """Its time but for its own rows, of one seat a replica and rows of `entries` seconds."""
    return request.latency - request.rows * request.entries


def spread(found, blocks=20):
    """The mean wait and its standard error, by means of consecutive blocks."""
    waits = [waited(r) for r in sorted(found, key=lambda r: r.at)]
    size = len(waits) // blocks
    means = [mean(waits[i * size : (i + 1) * size]) for i in range(blocks)]
    middle = mean(means)
    return middle, math.sqrt(sum((m - middle) ** 2 for m in means) / (blocks - 1) / blocks)


@pytest.mark.parametrize("load", [0.5, 0.8])
def test_one_server_is_m_m_1(load):
    found = Simulation(1, 1, same).run(poisson(load, exponential, 60_000, seed=1))
    wait, error = spread(found)
    assert abs(wait - load / (1 - load)) < 4 * error < 0.2 * wait
    above = mean(
        r.latency > 3.0 for r in found
    )  # the time of all is exponential with rate 1 - load
    assert above == pytest.approx(math.exp(-3 * (1 - load)), abs=0.03)


@pytest.mark.parametrize(("servers", "load"), [(2, 0.8), (10, 0.9)])
def test_many_servers_are_m_m_c(servers, load):
    rate = servers * load
    found = Simulation(servers, 1, same, ahead=False).run(
        poisson(rate, exponential, 160_000, seed=2)
    )
    wait, error = spread(found)
    expected = erlang_c(servers, rate) / (servers - rate)
    assert abs(wait - expected) < 4 * error < 0.3 * wait
    assert mean(waited(r) > 1e-6 for r in found) == pytest.approx(erlang_c(servers, rate), abs=0.03)


def test_rows_of_one_seat_are_m_g_1():
    """Pollaczek and Khinchine: W = rate E[S^2] / 2 (1 - load)."""

    def draw(made):
        return (5, 1.0) if made.random() < 0.9 else (50, 1.0)

    first, second, load = 0.9 * 5 + 0.1 * 50, 0.9 * 25 + 0.1 * 2500, 0.7
    rate = load / first
    found = Simulation(1, 1, lambda entries: 1.0).run(poisson(rate, draw, 60_000, seed=3))
    wait, error = spread(found)
    assert abs(wait - rate * second / 2 / (1 - load)) < 4 * error < 0.3 * wait


def test_random_routing_is_many_single_servers():
    found = Simulation(8, 1, same, "random").run(poisson(8 * 0.7, exponential, 80_000, seed=4))
    wait, error = spread(found)
    assert abs(wait - 0.7 / 0.3) < 4 * error < 0.2 * wait


def test_two_choices_lie_between():
    waits = [
        spread(
            Simulation(20, 1, same, how, ahead=False).run(poisson(18, exponential, 40_000, seed=5))
        )[0]
        for how in ("shared", "two", "random")
    ]
    assert waits[0] < waits[1] < waits[2] / 3


def test_seats_step_together_and_who_comes_joins_at_the_rows_end():
    first, second = Request(0.0, 3), Request(0.5, 2)
    Simulation(1, 2, lambda entries: 1.0 + 0.5 * (entries - 1)).run([first, second])
    assert (first.started, first.done) == (0.0, 3.5)  # rows of 1, of 1 with a draw, of 1.5
    assert (second.started, second.done) == (1.0, 4.5)


def test_a_third_waits_for_a_seat():
    requests = [Request(0.0, 2), Request(0.0, 5), Request(0.1, 1)]
    Simulation(1, 2, lambda entries: 1.0).run(requests)
    assert [r.done for r in requests] == [2.0, 7.0, 3.0]
    assert [r.wait for r in requests] == pytest.approx([0.0, 1.0, 0.9])


@pytest.mark.parametrize("routing", ["shared", "two", "random"])
def test_who_was_on_a_lost_replica_is_made_again(routing):
    made = Simulation(4, 3, lambda entries: 1.0, routing, seed=6)
    made.at(50.2, lambda: made.lose(made.replicas[0]))
    made.at(90.0, made.add)
    draw = random.Random(1)
    requests = [Request(i / 2, draw.randint(1, 8)) for i in range(300)]
    found = made.run(requests)
    assert sorted(r.at for r in found) == [r.at for r in requests]
    assert all(r.latency >= r.rows for r in found)
    again = [r for r in found if r.lost]
    assert 1 <= len(again) <= 3 and all(r.latency > r.rows for r in again)
    assert len(made.replicas) == 4 and not made.backlog()


def test_without_a_replica_it_says_so():
    made = Simulation(1, 1, same)
    made.at(0.5, lambda: made.lose(made.replicas[0]))
    with pytest.raises(RuntimeError, match="no replica is left"):
        made.run([Request(0.0, 5)])


class Clocked(torch.nn.Module):
    """A network whose call takes a time of a clock that only it moves, and who comes meanwhile asks."""

    def __init__(self, row_s, coming):
        super().__init__()
        self.now, self.row_s, self.coming = 0.0, row_s, deque(coming)
        self.ask = lambda request: None

    def forward(self, x, label):
        self.now += self.row_s(len(x))
        while self.coming and self.coming[0].at <= self.now:
            self.ask(self.coming.popleft())
        return torch.zeros_like(x)


def test_the_engine_does_what_the_model_does():
    """One busy period of an Engine on a clock that its network moves: the same latencies."""
    draw = random.Random(8)
    requests = [Request(0.45 * i, draw.choice((2, 3, 5, 9))) for i in range(80)]

    def row_s(entries):
        return 1.0 + 0.25 * (entries - 1)

    expected = {r.at: r.latency for r in Simulation(1, 4, row_s).run(copy.deepcopy(requests))}
    module, found, all_of_them = Clocked(row_s, requests[1:]), {}, threading.Event()
    network = ScoreNetwork(module, VP(), (1, 2, 2))
    with Engine(network, 4, probe=False, clock=lambda: module.now) as engine:

        def ask(request):
            def ended(handle):
                found[request.at] = handle.status == "done" and module.now - request.at
                if len(found) == len(requests):
                    all_of_them.set()

            spec = {"solver": "ddim", "steps": request.rows}
            engine.submit(spec, seeds=[1]).add_done_callback(ended)

        module.ask = ask
        ask(requests[0])
        assert all_of_them.wait(60)
    assert found == pytest.approx(expected)
