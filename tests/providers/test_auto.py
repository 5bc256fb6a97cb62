"""The executor that measures the others: which it keeps, where that is kept, and that nothing is between."""

import copy
import json
import math
import pickle
import threading

import pytest
import torch
from auto_cases import Machine, Said
from executor_cases import CONDITIONAL, PLAIN, elementwise
from native_cases import gradient, small
from tape import launches_are_recorded, taping  # noqa: F401
from torch import nn

from diffusion_engine import Sampler, ScoreNetwork
from diffusion_engine.backends import machine as processor
from diffusion_engine.choices import files
from diffusion_engine.engine import Engine
from diffusion_engine.executors import Capacity
from diffusion_engine.native import Native
from diffusion_engine.processes import CLD, VP
from diffusion_engine.providers import auto as auto_file
from diffusion_engine.providers import measure
from diffusion_engine.providers.auto import Auto
from diffusion_engine.providers.candidates import Candidate, candidates
from diffusion_engine.providers.chosen import AutoError

CPU = torch.device("cpu")


@pytest.fixture
def machine(monkeypatch):
    return Machine(monkeypatch)


def made(network=PLAIN, executor=None, n=2, steps=3, **request):
    sampler = Sampler(network, "ddim", steps, executor=Auto() if executor is None else executor)
    return sampler, sampler.sample(n, seed=1, **request)


def test_the_fastest_is_kept_and_runs_what_is_asked(machine):
    eager, native, other = machine.has(eager=3.0, native=1.0, openvino=2.0)
    executor = Auto()
    sampler, result = made(executor=executor)
    assert executor.runs(sampler.network) is native and sampler.choice.kept.executor == "native"
    before = (eager.calls, other.calls, native.calls)
    sampler.sample(2, seed=1)
    assert (eager.calls, other.calls, native.calls) == (*before[:2], before[2] + 3)
    assert result.recipe["network_form"] == "native/said" and result.recipe["threads"] == 1
    assert executor.packed(sampler.network) == 77 and eager.forgotten == other.forgotten == 1
    assert native.forgotten == 0
    capacity = Capacity.of(sampler.network, [sampler.plan()], 2, device=CPU)
    with executor.batch(sampler.network, capacity) as batch:
        assert type(batch.stages) is Said


def test_the_table_says_what_was_measured_and_why_one_was_kept(machine):
    machine.has(
        eager=0.0032,
        native=(0.001, {"error": 1e-5}),
        onnxruntime="onnxruntime is not installed",
        openvino=(0.0022, {"error": 1e-3}),
    )
    sampler, _ = made()
    head, titles, *rows, why = str(sampler.choice).splitlines()
    assert head.startswith("network, calls of 2 entries, measured in ")
    assert titles.split() == ["executor", "dtype", "threads", "ms", "a", "row", "error"]
    assert [row.split()[:5] for row in rows[:2]] == [
        ["eager", "float32", "1", "3.2"], ["*", "native", "float32", "1", "1"],
    ]  # fmt: skip
    assert "1.0e-05" in rows[1] and rows[2].endswith("onnxruntime is not installed")
    assert "1.0e-03" in rows[3] and "off by more than 1e-04 of the largest" in rows[3]
    assert why == "native: 1 ms a row, 3.2x faster than the next (eager)"


@pytest.mark.parametrize("seconds, kept", [(0.98, "eager"), (0.96, "native")])
def test_of_times_that_are_nearly_the_same_the_simplest_is_kept(machine, seconds, kept):
    machine.has(eager=1.0, native=seconds, openvino=seconds - 0.005)
    sampler, _ = made()
    assert sampler.choice.kept.executor == kept
    assert "the simpler of the two" in str(sampler.choice)


def test_one_that_is_far_behind_is_timed_no_further(machine):
    eager, native, _ = machine.has(eager=3.5, native=1.0, openvino=2.5)
    sampler, _ = made()
    assert eager.calls == 2 and native.calls > 5
    assert sampler.choice.tried[0].ms == pytest.approx(3500)


def test_one_that_raises_is_a_reason(machine):
    machine.has(eager=2.0, native=(1.0, {"fails": lambda count: True}), openvino=1.5)
    sampler, _ = made()
    assert sampler.choice.kept.executor == "openvino"
    assert sampler.choice.tried[1].reason == "native takes no 2"


def test_of_several_outputs_none_may_be_no_number(machine, monkeypatch):
    both = [torch.ones(2), torch.ones(2)]
    monkeypatch.setattr(measure, "as_called", lambda network: lambda *given: both)
    monkeypatch.setattr(measure.Trial, "outputs", lambda trial: [both[0], math.nan * both[1]])
    machine.has(eager=3.0, native=1.0)
    sampler, _ = made()
    assert sampler.choice.kept.executor == "eager" and "1e-04" in sampler.choice.tried[1].reason


def test_where_all_others_fail_the_module_runs(machine):
    machine.has(eager=2.0, native=(1.0, {"error": 1.0}), openvino="is not installed")
    sampler, _ = made()
    assert str(sampler.choice).endswith("eager: nothing else runs this network here")


def test_an_error_of_the_module_is_the_runs_own(machine):
    def broken(x, label):
        raise ZeroDivisionError("of the module")

    machine.has(eager=2.0, native=1.0)
    with pytest.raises(ZeroDivisionError, match="of the module"):
        made(ScoreNetwork(broken, VP(), (3, 5, 7)))


def test_where_nobody_is_left_the_reasons_are_said(machine):
    bf16 = torch.bfloat16
    machine.has(native=(1.0, {"error": 0.5, "dtype": bf16}), openvino="is not installed")
    said = r"native in bfloat16: .* 2e-02 of the largest; openvino: is not installed"
    with pytest.raises(AutoError, match=said):
        made(executor=Auto(dtype=bf16))
    machine.has(native="no such processor")
    objection = Auto(dtype=bf16).objection(CPU)
    assert "native: no such processor" in objection and "dtype='auto'" in objection


def test_bfloat16_has_a_bound_of_its_own(machine):
    bf16 = torch.bfloat16
    machine.has(eager=3.0, native=(1.0, {"error": 1e-2, "dtype": bf16}))
    executor = Auto(dtype=bf16, fallback=True)
    sampler, _ = made(executor=executor)
    assert executor.precision == bf16 == executor.dtype_of(sampler.network)
    assert sampler.choice.kept.name == "native in bfloat16"


def test_float32_beside_it_is_kept_where_bfloat16_is_off(machine):
    bf16 = torch.bfloat16
    machine.has(eager=3.0, native=(1.0, {"error": 3e-2, "dtype": bf16}))
    executor = Auto(dtype=bf16, fallback=True)
    sampler, _ = made(executor=executor)
    assert executor.dtype_of(sampler.network) == torch.float32
    assert sampler.choice.kept.name == "eager"


def test_later_processes_take_the_choice_and_make_no_others(machine):
    machine.has(eager=3.0, native=(1.0, {"error": 1e-5}))
    first, _ = made()
    (file,) = files("executors")
    assert list(json.loads(file.read_text())) == ["2"]
    eager, native = machine.has(eager=0.1, native=1.0)
    later, _ = made(ScoreNetwork(elementwise, VP(), (3, 5, 7), name="again"))
    assert eager.opened == 0 and native.opened > 0
    assert later.choice.read and later.choice.tried == first.choice.tried
    assert "found on disk" in str(later.choice) and str(later.choice).startswith("again")


@pytest.mark.parametrize(
    "other", ["size", "shape", "installed", "threads", "bf16", "damaged", "missing"]
)
def test_what_a_choice_holds_for(machine, monkeypatch, other):
    machine.has(eager=3.0, native=1.0)
    made()
    (file,) = files("executors")
    how = {"size": {"n": 3}, "shape": {"network": ScoreNetwork(elementwise, VP(), (3, 5, 8))}}
    again = how.get(other, {}) | {"executor": Auto(threads=1) if other == "threads" else Auto()}
    eager, _ = machine.has(eager=0.5, native=1.0)
    if other == "installed":
        monkeypatch.setattr(auto_file, "installed", lambda: ["onnxruntime 9"])
    if other == "bf16":
        here = processor.Bf16("another", 1.0, "it has another kind")
        monkeypatch.setattr(processor, "bf16", lambda: here)
    if other == "damaged":
        file.write_text('{"2": {"seconds": 1.0, "tried": [{"executor": 3, "dtype": "x"}]}}')
    if other == "missing":
        eager, _ = machine.has(eager=0.5, native="the compiled module is missing")
    sampler, _ = made(**again)
    assert not sampler.choice.read and sampler.choice.kept.executor == "eager" and eager.opened


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda it: pickle.loads(pickle.dumps(it))])
def test_copies_take_the_choice_along(machine, copied):
    machine.has(eager=3.0, native=1.0)
    executor = Auto("cpp", threads=1)
    made(executor=executor)
    next(iter(files("executors"))).unlink()
    eager, native = machine.has(eager=0.1, native=1.0)
    other = copied(executor)
    sampler, _ = made(executor=other)
    assert (other.backend, other.threads) == ("cpp", 1)
    assert other.runs(sampler.network) is native and eager.opened == 0


def test_threads_that_ask_at_once_measure_once(machine):
    eager, _ = machine.has(eager=3.0, native=1.0)
    executor, start = Auto(), threading.Barrier(3)
    sampler, found = Sampler(PLAIN, "ddim", 3, executor=executor), []

    def ask():
        start.wait()
        found.append(sampler.sample(2, seed=1).samples)

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert eager.opened == 1 and all(torch.equal(found[0], other) for other in found)


class Layers(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(3, 3, 1)

    def forward(self, x, label):
        return self.layer(x)


def test_other_weights_keep_the_choice_and_another_structure_measures_anew(machine):
    eager, _ = machine.has(eager=3.0, native=1.0)
    network, executor = ScoreNetwork(Layers(), VP(), (3, 5, 7)), Auto()
    made(network, executor)
    with torch.no_grad():
        network.module.layer.weight.mul_(2.0)
    network.module.layer.weight = nn.Parameter(network.module.layer.weight * 0.5)
    made(network, executor)
    assert eager.opened == 1
    network.module.layer = nn.Conv2d(3, 3, 3, padding=1)
    made(network, executor)
    assert eager.opened == 2


def test_one_that_another_choice_replaces_lets_go_of_the_network(machine):
    eager, native = machine.has(eager=3.0, native=1.0)
    network, executor = ScoreNetwork(Layers(), VP(), (3, 5, 7)), Auto()
    made(network, executor)
    native.seconds, network.module.layer = 5.0, nn.Conv2d(3, 3, 3, padding=1)
    made(network, executor)
    assert executor.runs(network) is eager
    opened, forgotten = eager.opened, eager.forgotten
    network.module.layer = nn.Conv2d(3, 3, 1)
    made(network, executor)
    assert executor.runs(network) is native
    assert (eager.opened, eager.forgotten) == (opened, forgotten + 1)


def test_where_the_kept_one_cannot_make_another_size_the_next_takes_the_network(machine):
    fails = {"fails": lambda count: count > 3}
    eager, native, other = machine.has(eager=3.0, native=(1.0, fails), openvino=2.0)
    executor = Auto()
    sampler, _ = made(executor=executor)
    assert executor.runs(sampler.network) is native
    sampler.sample(4, seed=1)
    assert executor.runs(sampler.network) is other and native.forgotten == 1
    assert sampler.choice.tried[1].reason == "a call of 4: native takes no 4"
    before = native.calls
    assert sampler.sample(2, seed=1).recipe["network_form"] == "openvino/said"
    assert native.calls == before
    other.fails = lambda count: count == 5
    sampler.sample(5, seed=1)
    assert executor.runs(sampler.network) is eager


def test_before_the_first_run(machine):
    machine.has(eager=3.0, native=1.0)
    executor = Auto()
    sampler = Sampler(PLAIN, "ddim", 3, executor=executor)
    assert sampler.choice is None and executor.runs(PLAIN) is executor
    assert executor.form(PLAIN) is None and executor.threads_of(PLAIN) is None
    assert executor.packed(PLAIN) == 0 and executor.dtype_of(PLAIN) is None
    assert sampler.recipe()["network_form"] is None
    executor.forget(PLAIN)


def test_calls_without_a_batch_choose_too(machine):
    _, native = machine.has(eager=3.0, native=1.0)
    executor = Auto()
    sampler, result = made(executor=executor, bucket=4)
    assert sampler.choice.entries == 4 and executor.runs(sampler.network) is native
    assert torch.equal(result.samples, sampler.sample(2, seed=1).samples)


def test_an_engine_chooses_at_its_own_size(machine):
    machine.has(eager=3.0, native=1.0)
    executor = Auto()
    with Engine(CONDITIONAL, capacity=3, executor=executor) as engine:
        handle = engine.submit({"solver": "ddim", "steps": 3}, condition=[1, 2], guidance=2.0)
        result = handle.result(60)
        (choice,) = [one.choice for one in executor._chosen.values()]
    assert choice.entries == 6 and choice.kept.executor == "native"
    assert result.recipe["network_form"] == "native/said" and result.recipe["calls"] is None


def of_two(x, label):
    return x[:, :3] * 0.5


def latent(x, label, z):
    return x * z.mean(dim=1).view(-1, 1, 1, 1)


KINDS = {
    "guided": (CONDITIONAL, {}, {"condition": [1, 2], "guidance": 2.0}),
    "velocity": (ScoreNetwork(of_two, CLD(), (3, 5, 7), "velocity"), {"solver": "cld_ode"}, {}),
    "latent": (ScoreNetwork(latent, VP(), (3, 5, 7), latent=4), {"solver": "ddim"}, {}),
    "brownian": (PLAIN, {"solver": "dpmpp_2m_sde"}, {"noise": "brownian"}),
    "image": (PLAIN, {}, {"x": torch.ones(2, 3, 5, 7), "start": 0.5}),
    "region": (PLAIN, {}, {"mask": torch.ones(3, 5, 7), "known": torch.ones(2, 3, 5, 7)}),
    "wide": (PLAIN, {"dtype": torch.float64}, {}),
    "guider": (CONDITIONAL, {"guider": "apg"}, {"condition": [1, 2], "guidance": 2.0}),
    "one call": (PLAIN, {"steps": 1}, {}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_batch_is_measured(machine, kind):
    network, how, request = KINDS[kind]
    machine.has(eager=3.0, native=1.0)
    options = {"solver": "dpmpp_2m", "steps": 4} | how
    sampler = Sampler(network, executor=Auto(), **options)
    samples = sampler.sample(2, seed=1, **request).samples
    assert [one.reason for one in sampler.choice.tried] == [None, None]
    assert all(one.ms for one in sampler.choice.tried)
    want = Sampler(network, **options).sample(2, seed=1, **request).samples
    assert torch.equal(samples, want)


def test_graphs_are_measured_as_they_replay(machine):
    machine.has(eager=1e-9)
    graph = taping()
    machine.found.append(Candidate("graph", torch.float32, graph))
    sampler, _ = made()
    assert [one.ms is not None for one in sampler.choice.tried] == [True, True]
    assert graph._recorder.recorded > 0


def test_what_differentiates_is_called_by_torch(machine):
    _, native = machine.has(eager=3.0, native=1.0)
    network = gradient()
    sampler = Sampler(network, "ddim", 2, executor=Auto())
    sampler.sample(1, condition=1)
    assert native.opened == 0 and "differentiates" in sampler.choice.tried[1].reason
    assert sampler.choice.kept.executor == "eager" and not list(files("executors"))


def names(device=CPU, **how):
    given = {"backend": "auto", "threads": None, "dtype": torch.float32, "fallback": False}
    found = candidates(device, **given | how)
    return [(one.name, str(one.dtype).removeprefix("torch.")) for one in found]


def test_who_is_measured():
    others = ("native", "onnxruntime", "openvino")
    assert names() == [("eager", "float32"), *((name, "float32") for name in others)]
    assert names(dtype=torch.bfloat16) == [(name, "bfloat16") for name in others]
    both = [(name, dtype) for name in others for dtype in ("float32", "bfloat16")]
    assert names(dtype=torch.bfloat16, fallback=True) == [("eager", "float32"), *both]
    gpu = candidates(torch.device("cuda"), "auto", None, torch.float32, False)
    assert [one.name for one in gpu] == ["eager", "graph"]


def test_threads_are_of_the_cpu():
    assert Auto(threads=1).objection(CPU) is None
    assert "threads=1 are of the CPU" in Auto(threads=1).objection(torch.device("cuda"))


@pytest.mark.parametrize(
    "given", [{"dtype": torch.float16}, {"threads": 0}, {"backend": "x"}, {"fallback": 1}], ids=str
)
def test_what_makes_no_sense_is_refused(given):
    with pytest.raises(ValueError, match=next(iter(given))):
        Auto(**given)


def test_a_network_that_is_recorded():
    """The real thing: nothing is between, and a replay runs what was kept."""
    network = small()
    sampler = Sampler(network, "ddim", 2, executor="auto", threads=1)
    request = {"seeds": [1, 2, 3], "condition": [0, 1, 0]}
    result = sampler.sample(**request)
    choice, kept = sampler.choice, sampler.executor.runs(sampler.network)
    assert choice.tried[0].ms and choice.tried[1].ms and choice.tried[1].error < 1e-5
    if isinstance(kept, Native):  # which of them is the faster one depends on the machine
        own = Sampler(network, "ddim", 2, executor=Native(threads=1))
        assert result.recipe["network_form"] == own.form
    else:
        own = Sampler(network, "ddim", 2, threads=1)
    assert torch.equal(own.sample(**request).samples, result.samples)
    for how in ({}, {"executor": "auto"}):
        again = Sampler.replay(network, json.loads(json.dumps(result.recipe)), how)
        assert torch.equal(again.samples, result.samples)
