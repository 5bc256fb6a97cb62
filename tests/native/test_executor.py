"""executor="native": what changes in a network is seen, what cannot be recorded is said."""

import copy
import json
import multiprocessing
import pickle
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from command import run
from native_cases import SHAPE, Small, function, gradient, small
from torch import nn

from diffusion_engine import Sampler, ScoreNetwork, profile
from diffusion_engine.native import Native, NativeError, export, pools, record
from diffusion_engine.processes import VP

GIVEN = {"seeds": [1, 2, 3], "condition": [0, 1, 0]}


def close(sampler, given=None, **how):
    """The samples, which are those of torch within rounding."""
    made = sampler.sample(**given or GIVEN).samples
    want = Sampler(sampler._derived.own, "ddim", 3, **how).sample(**given or GIVEN).samples
    assert torch.allclose(made, want, rtol=1e-4, atol=1e-4)
    return made


@pytest.fixture
def sampler():
    return Sampler(small(), "ddim", 3, executor="native")


def scaled(module):
    return {name: tensor * 1.5 for name, tensor in module.state_dict().items()}


def in_place(module):
    with torch.no_grad():
        module.first.weight.mul_(1.5)


def behind_torch(module):
    module.first.weight.data.numpy()[:] *= 1.5


def replaced(module):
    module.first.weight = nn.Parameter(module.first.weight.detach() * 1.5)


def of_other_layers(module):
    module.last = nn.Conv2d(8, 1, 1)


CHANGES = {
    "in place": in_place,
    "behind torch": behind_torch,
    "a parameter": replaced,
    "a submodule": of_other_layers,
    "load_state_dict": lambda module: module.load_state_dict(scaled(module)),
    "assigned": lambda module: module.load_state_dict(scaled(module), assign=True),
    "an attribute": lambda module: setattr(module.norm, "eps", 0.5),
    "a forward": lambda module: setattr(module, "forward", lambda x, label, y: 0.5 * x),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_seen(sampler, change):
    before = close(sampler)
    CHANGES[change](sampler.network.module)
    assert not torch.equal(close(sampler), before)


def test_weights_that_come_back_are_packed_still(sampler):
    before = close(sampler)
    own = {name: tensor.clone() for name, tensor in sampler.network.module.state_dict().items()}
    sampler.update_weights(scaled(sampler.network.module))
    assert not torch.equal(close(sampler), before)
    sampler.update_weights(own)
    assert torch.equal(close(sampler), before)


@pytest.mark.parametrize("between", [True, False])
def test_weights_that_come_back_elsewhere(sampler, between):
    """What is read where it lies is read where it lies now."""
    bias = sampler.network.module.first.bias
    before, own, memory = close(sampler), bias.detach().clone(), bias.data
    if between:
        memory.mul_(3.0)
        assert not torch.equal(close(sampler), before)
    bias.data = own
    assert torch.equal(close(sampler), before)
    memory.fill_(9.0)
    assert torch.equal(close(sampler), before)


def test_samples_are_those_of_any_batch(sampler):
    made = sampler.sample(5, seed=1, condition=[0, 1, 0, 1, 1], guidance=2.0)
    for size in (1, 2, 3):
        again = sampler.sample(5, seed=1, condition=[0, 1, 0, 1, 1], guidance=2.0, batch_size=size)
        assert torch.equal(made.samples, again.samples)


def test_train_mode_is_as_for_the_eager_executor(sampler):
    before = close(sampler)
    sampler.network.module.train()
    assert torch.equal(close(sampler), before)
    assert sampler.network.module.training


def test_a_hook_put_on_later(sampler):
    close(sampler)
    sampler.network.module.norm.register_forward_hook(lambda *_: None)
    with pytest.raises(NativeError, match=r"hook on 'norm' would not be called.*executor='eager'"):
        sampler.sample(**GIVEN)


class Told(Small):
    def forward(self, x, label, y):
        return self.last(self.first(x) + y.mean(1)[:, None, None, None])


def test_conditions_of_another_shape():
    sampler = Sampler(ScoreNetwork(Told(), VP(), SHAPE), "ddim", 3, executor="native")
    for width in (2, 7, 2):
        close(sampler, {"condition": torch.randn(3, width), "seed": 1})
    assert len(sampler.recording.recordings) == 2


def test_channels_that_lie_together():
    module = nn.Conv2d(3, 3, 3, padding=1)

    def called(x, label):
        return module(x)

    own = ScoreNetwork(called, VP(), (3, 6, 5), memory_format=torch.channels_last)
    close(Sampler(own, "ddim", 3, executor="native"), {"n": 3, "seed": 1})


def test_a_function_whose_tensor_changes():
    scale = torch.tensor(0.5)
    sampler = Sampler(function(scale), "ddim", 3, executor="native")
    before = close(sampler, {"n": 2, "seed": 1})
    scale.fill_(0.75)
    assert not torch.equal(close(sampler, {"n": 2, "seed": 1}), before)


def test_copies_and_pickles(sampler):
    made = close(sampler)
    for other in (copy.deepcopy(sampler), pickle.loads(pickle.dumps(sampler))):
        assert torch.equal(other.sample(**GIVEN).samples, made)
        assert other.executor is not sampler.executor
    assert pickle.loads(pickle.dumps(Native(threads=2))).threads == 2


def test_a_fork(sampler):
    made = close(sampler)
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    child = context.Process(target=lambda: queue.put(sampler.sample(**GIVEN).samples.tolist()))
    child.start()
    assert torch.equal(torch.tensor(queue.get()), made)
    child.join(30)
    assert child.exitcode == 0


def test_a_fork_while_another_thread_records():
    """Nobody in the child gives back what that thread holds."""
    sampler = Sampler(small(), "ddim", 3, executor=Native(threads=2))
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()

    def run():
        torch.set_num_threads(1)  # OpenMP's own threads are not there after a fork
        queue.put(sampler.sample(**GIVEN).samples.tolist())

    with export._tracing, pools._lock:
        child = context.Process(target=run, daemon=True)
        child.start()
    child.join(60)
    assert child.exitcode == 0
    assert torch.equal(torch.tensor(queue.get()), close(sampler))


def test_threads_share_a_sampler(sampler):
    want = Sampler(sampler.network, "ddim", 3, executor="native").sample(8, condition=[0, 1] * 4)
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(4) as pool:
            seeds = [[i % 8, (i + 3) % 8] for i in range(16)]
            asked = [
                pool.submit(sampler.sample, seeds=two, condition=[s % 2 for s in two])
                for two in seeds
            ]
            made = [one.result(60).samples for one in asked]
    finally:
        sys.setswitchinterval(before)
    for two, samples in zip(seeds, made, strict=True):
        assert torch.equal(samples, want.samples[two])


def test_threads_that_call_the_module_while_it_is_recorded():
    """torch.export puts others in the place of a module's parameters."""
    own = small()
    x, label, y = torch.randn(2, *SHAPE), torch.zeros(2), torch.zeros(2, dtype=torch.int64)
    want, done = own.module(x, label, y), []
    with ThreadPoolExecutor(2) as pool:
        recorded = pool.submit(Sampler(own, "ddim", 3, executor="native").sample, **GIVEN)
        while not recorded.done() or not done:
            done.append(torch.equal(own.module(x, label, y), want))
        recorded.result()
    assert all(done)


def test_a_recording_keeps_no_other_network_waiting(monkeypatch):
    executor, begun, end, made = Native(), threading.Event(), threading.Event(), []
    slow = Sampler(small(), "ddim", 3, executor=executor)
    slow.network.module.slow = True
    quick = Sampler(small(seed=1), "ddim", 3, executor=executor)
    quick.sample(**GIVEN)
    traced = record.exported

    def exported(module, inputs, dynamic):
        made.append(hasattr(module.network.module, "slow"))
        if made[-1]:
            begun.set()
            assert end.wait(60)
        return traced(module, inputs, dynamic=dynamic)

    monkeypatch.setattr(record, "exported", exported)

    def others():
        quick.sample(**GIVEN)
        quick.sample(5, condition=1)  # of a size that is new
        assert str(quick.recording)
        Sampler(small(seed=2), "ddim", 3, executor=executor).sample(**GIVEN)  # and a network
        executor.forget(quick.network)

    with ThreadPoolExecutor(3) as pool:
        waiting = [pool.submit(slow.sample, **GIVEN) for _ in range(2)]
        try:
            assert begun.wait(60)
            pool.submit(others).result(30)
            assert not any(one.done() for one in waiting)
        finally:
            end.set()
        first, second = [one.result(60).samples for one in waiting]
    assert torch.equal(first, second)
    assert made == [True, False]  # the two that waited have one recording
    assert not executor._locks._wanted


class Half(Small):
    def __init__(self):
        super().__init__()
        self.told.half()


class Drawing(Small):
    def forward(self, x, label, y):
        return x + torch.randn_like(x)


class Branching(Small):
    def forward(self, x, label, y):
        return x if x.sum() > 0 else -x


class Counting(Small):
    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x, label, y):
        self.calls += 1
        return x * self.calls


@pytest.mark.parametrize(
    ("module", "why"),
    [
        (Half, "'told.weight' is not in float32"),
        (Drawing, "random"),
        (Branching, "depends on the numbers in a tensor"),
        (Counting, "changes the buffer"),
    ],
)
def test_what_cannot_be_recorded_is_said(module, why):
    own = ScoreNetwork(module(), VP(), SHAPE, null=2, classes=3)
    sampler = Sampler(own, "ddim", 3, executor="native", dtype=torch.float32)
    if module is Half:
        own.module.told.half()
    with pytest.raises(NativeError, match=f"cannot be recorded: .*({why}).*executor='eager'"):
        sampler.sample(**GIVEN)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_other_dtypes(dtype):
    with pytest.raises(ValueError, match=f"'native' runs in float32 or bfloat16, .* in {dtype}"):
        Sampler(small(), "ddim", 3, executor="native", dtype=dtype)
    with pytest.raises(NativeError, match="runs in float32"):
        Sampler(small(), "ddim", 3, executor=Native(), dtype=dtype).sample(**GIVEN)


def test_other_devices():
    assert "on the CPU, not on cuda" in Native().objection(torch.device("cuda"))


@pytest.mark.parametrize("how", [{"accelerate": True}, {"compile": True}])
def test_other_forms_of_a_network(how):
    with pytest.raises(NativeError, match=f"leave {next(iter(how))} out"):
        Sampler(small(), "ddim", 3, executor="native", **how).sample(**GIVEN)


def test_a_network_that_differentiates():
    sampler = Sampler(gradient(), "ddim", 3, executor="native")
    made = sampler.sample(**GIVEN)
    want = Sampler(sampler.network, "ddim", 3).sample(**GIVEN)
    assert torch.equal(made.samples, want.samples) and made.recipe == want.recipe
    assert "it differentiates in its forward" in str(sampler.recording)


def test_a_recording_prints(sampler):
    assert "nothing is recorded before the first run" in str(sampler.recording)
    close(sampler)
    lines = str(sampler.recording).splitlines()
    assert lines[0] == "small, 1x6x5 in float32 on the CPU"
    assert "0 of them done by torch" in lines[1] and "calls of 3: 1 thread" in lines[2]
    assert any("conv" in line and line.endswith("%") for line in lines)
    assert Sampler(small(), "ddim", 3).recording is None


def test_a_recipe_names_it(sampler):
    made = sampler.sample(**GIVEN)
    recipe = json.loads(json.dumps(made.recipe))
    own = sampler.network
    assert recipe["network_form"].startswith("native/")
    again = Sampler.replay(own, recipe)
    assert torch.equal(again.samples, made.samples) and again.recipe == made.recipe
    again = Sampler.replay(own, recipe, how={"executor": Native(threads=2), "batch_size": 2})
    assert torch.equal(again.samples, made.samples)
    with pytest.raises(ValueError, match=r"computed by native/.* and is computed by torch here"):
        Sampler.replay(own, recipe, how={"executor": "eager"})
    with pytest.raises(ValueError, match="native/sve and is computed by native/"):
        Sampler.replay(own, recipe | {"network_form": "native/sve"})
    with pytest.raises(ValueError, match="network_form"):
        Sampler.replay(own, recipe | {"network_form": "onnx"})
    eager = Sampler.replay(own, recipe | {"network_form": None})
    assert eager.recipe["network_form"] is None


def test_a_recipe_that_cannot_be_followed_here(sampler, monkeypatch):
    recipe = sampler.sample(**GIVEN).recipe
    monkeypatch.setattr("diffusion_engine.native.executor.missing", lambda: "there is no _cpu")
    with pytest.raises(ValueError, match=r"there is no _cpu.*network_form None"):
        Sampler.replay(sampler.network, recipe)


def test_the_command_line(capsys, tmp_path):
    made, again = tmp_path / "made.png", tmp_path / "again.png"
    asked = ("--steps", 2, "--n", 2, "--class", "3", "--executor", "native", "--out", made)
    run(capsys, "sample", *asked)
    run(capsys, "sample", "--recipe", made, "--out", again)
    assert made.read_bytes() == again.read_bytes()
    found = json.loads(run(capsys, "doctor", "--json")[0])["native"]
    assert found["ran"] and found["ok"] and "classifier's gradient" in found["result"]


def test_a_profile_has_the_operations_of_the_recording(sampler):
    found = profile(sampler, 2, [0, 1], runs=1)
    kinds = {op.kind for op in found.ops}
    assert {"convolution", "normalisation"} <= kinds and "between ops" not in kinds
    network = next(part for part in found.parts if part.name == "network")
    assert sum(op.seconds for op in found.ops) == pytest.approx(network.seconds)
