"""dtype="auto", and bfloat16 on processors that have it and that do not."""

import copy
import json
import pickle
import warnings

import pytest
import torch
from command import run

from diffusion_engine import Engine, Sampler, ScoreNetwork
from diffusion_engine.backends import machine
from diffusion_engine.executors import Eager
from diffusion_engine.networks import placement
from diffusion_engine.networks.placement import named_dtype, place
from diffusion_engine.processes import VP
from diffusion_engine.sampler import named

BF16, F32 = torch.bfloat16, torch.float32
KINDS = {"amx": BF16, "avx512_bf16": F32, "": F32}


@pytest.fixture
def processor(monkeypatch):
    """Has this machine's processor be another."""

    def kind(name):
        found = machine.Bf16(name, 1.0 if name else machine.SLOWER, "the processor is of a test")
        monkeypatch.setattr(machine, "bf16", lambda: found)

    return kind


class Net(torch.nn.Module):
    """What it was given in which dtype: `seen`."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Conv2d(1, 1, 3, padding=1)
        self.seen = []

    def forward(self, x, label):
        self.seen.append(x.dtype)
        return self.layer(x)


def network(dtype=F32):
    torch.manual_seed(0)
    return ScoreNetwork(Net().to(dtype), VP(), (1, 4, 4))


class Halving(Eager):
    """Computes float32 networks in bfloat16, as executors with a precision do; 7 is one it does not."""

    precision = BF16

    def form(self, network):
        return "openvino/0/bfloat16"

    def dtype_of(self, network):
        return F32 if network.shape == (1, 7, 7) else self.precision


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("own", [F32, BF16, torch.float16, torch.float64])
def test_it_is_what_suits_the_processor(processor, kind, own):
    processor(kind)
    sampler = Sampler(network(own), "ddim", 2, dtype="auto")
    result = sampler.sample(1, progress=False)
    wanted = KINDS[kind]
    assert sampler.dtype == sampler.input_dtype == wanted
    assert set(sampler.network.module.seen) == {wanted}
    assert sampler.spec.dtype == result.recipe["dtype"] == str(wanted).removeprefix("torch.")
    assert result.samples.dtype == F32


def test_elsewhere_it_is_the_modules_own(processor, monkeypatch):
    processor("amx")
    monkeypatch.setattr(placement, "_device", torch.device)
    assert place(Net(), "auto", "cuda")[0] == F32
    assert place(Net().half(), "auto", "cuda")[0] == torch.float16
    assert place(lambda x, label: x, "auto", None)[0] == F32  # whose weights nobody can cast


def test_what_it_came_to_is_replayed_on_another_processor(processor):
    processor("amx")
    made = Sampler(network(), "ddim", 2, dtype="auto").sample(2, progress=False)
    processor("avx512_bf16")
    again = Sampler.replay(network(), json.loads(json.dumps(made.recipe)))
    assert again.recipe == made.recipe and torch.equal(again.samples, made.samples)


def test_an_engine_settles_it_for_each_network(processor):
    processor("amx")
    nets = {"one": network(), "two": network(torch.float16)}
    with Engine(nets, dtype="auto") as engine:
        for name in nets:
            made = engine.submit("ddim", 1, network=name).result()
            assert made.recipe["dtype"] == "bfloat16"
        with pytest.raises(ValueError, match=r"asks for torch.float32 .* in torch.bfloat16"):
            engine.submit({"solver": "ddim", "dtype": "float32"}, 1, network="one")


def test_an_executor_with_a_precision_has_a_float32_network():
    for given in (None, "auto", BF16):
        own = network(BF16)
        sampler = Sampler(own, "ddim", 2, executor=Halving(), dtype=given)
        result = sampler.sample(1, progress=False)
        assert sampler.dtype == BF16 and sampler.input_dtype == sampler.state_dtype == F32
        assert set(sampler.network.module.seen) == {F32}
        assert result.recipe["dtype"] == "bfloat16"
    with pytest.raises(ValueError, match=r"float32 and Halving\(dtype=torch.bfloat16\) contradict"):
        Sampler(own, "ddim", 2, executor=Halving(), dtype=F32)
    with pytest.raises(ValueError, match=r"dtype=.* 'auto'"):
        Sampler(own, "ddim", 2, dtype="bf16")


def test_recipes_say_what_a_network_was_computed_in():
    own = ScoreNetwork(Net(), VP(), (1, 7, 7))
    sampler = Sampler(own, "ddim", 2, executor=Halving(), dtype="auto", batch_size=1)
    assert sampler.sample(2, progress=False).recipe["dtype"] == "float32"
    for other in (copy.deepcopy(sampler), pickle.loads(pickle.dumps(sampler))):
        assert other.dtype == F32 and other.place.dtype == BF16


def test_an_engine_runs_an_executor_with_a_precision():
    with Engine(network(BF16), executor=Halving()) as engine:
        made = engine.submit({"solver": "ddim", "steps": 2, "dtype": "bfloat16"}, 2).result()
        later = engine.submit({"solver": "euler", "steps": 2}, 1).result()
    assert made.recipe["dtype"] == later.recipe["dtype"] == "bfloat16"


@pytest.mark.parametrize("executor", ["native", "openvino", "auto"])
@pytest.mark.parametrize("own", [F32, BF16])
def test_bfloat16_that_would_be_emulated_is_refused(processor, executor, own):
    processor("")
    said = (
        rf"executor='{executor}' in torch.bfloat16: the processor is of a test, .* 5 times as long"
    )
    with pytest.raises(ValueError, match=said):
        Sampler(network(own), "ddim", 2, executor=executor, dtype=None if own == BF16 else BF16)
    with pytest.raises(ValueError, match=said):
        Engine(network(own), executor=executor, dtype=None if own == BF16 else BF16)


def test_torch_emulates_it_with_a_warning(processor):
    processor("")
    with pytest.warns(RuntimeWarning, match="emulated takes about 5 times as long as float32"):
        Sampler(network(), "ddim", 2, dtype=BF16)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Sampler(network(BF16), "ddim", 2)  # as the module is
        Sampler(network(), "ddim", 2, dtype="auto")
        processor("avx512_bf16")
        Sampler(network(), "ddim", 2, dtype=BF16)


@pytest.mark.parametrize("executor", ["native", "onnxruntime", "openvino", "auto"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_dtypes_that_no_executor_of_its_own_has(processor, executor, dtype):
    processor("amx")
    said = rf"executor='{executor}' runs in float32.* in {dtype}: say dtype=torch.float32"
    with pytest.raises(ValueError, match=said):
        Sampler(network(), "ddim", 2, executor=executor, dtype=dtype)
    with pytest.raises(ValueError, match=said):
        Sampler(network(dtype), "ddim", 2, executor=executor)


def test_onnx_runtime_computes_in_float32_alone(processor):
    processor("amx")
    with pytest.raises(
        ValueError, match=r"'onnxruntime' runs in float32, and .* in torch.bfloat16"
    ):
        named.executor("onnxruntime", dtype=BF16)


def test_names_of_dtypes():
    assert named_dtype(None) is None and named_dtype("auto") == "auto"
    assert named_dtype("bfloat16") == BF16
    for wrong in ("half", "int8", "load", "no_such"):
        with pytest.raises(ValueError, match="a network computes in float32"):
            named_dtype(wrong)


@pytest.mark.parametrize("kind", KINDS)
def test_the_processors_own_kind(monkeypatch, kind):
    class Built:
        @staticmethod
        def bf16s():
            return [kind] if kind else []

    monkeypatch.setattr("diffusion_engine.backends.native.module", lambda name: Built)
    found = machine.bf16()
    assert found.kind == kind and found.slower == (1.0 if kind else machine.SLOWER)
    assert machine.KINDS.get(kind, "neither AMX nor AVX512_BF16") in found.reason


def test_without_the_compiled_module_nothing_is_known(monkeypatch):
    monkeypatch.setattr("diffusion_engine.backends.native.module", lambda name: "it is not built")
    found = machine.bf16()
    assert found.kind == "" and "it is not built" in found.reason


@pytest.mark.parametrize("kind", KINDS)
def test_doctor_says_what_it_is(processor, kind, capsys):
    processor(kind)
    found = json.loads(run(capsys, "doctor", "--json")[0])
    wanted = str(KINDS[kind]).removeprefix("torch.")
    assert found["bf16"]["kind"] == kind and found["bf16"]["auto"] == wanted
    assert f"dtype='auto' is {wanted} on this CPU" in run(capsys, "doctor")[0]
    own = {row["executor"]: row for row in found["executors"]}
    assert [*own] == [*named.NAMES] and own["eager"]["reason"] is None
    assert ("bfloat16" in own["native"]["dtypes"]) == bool(kind)


def test_the_command_line(capsys, tmp_path, processor):
    processor("amx")
    for command in (
        ["sample", "--out", tmp_path / "a.npz"],
        ["profile", "--out", tmp_path / "b.json"],
    ):
        asked = ["--n", 1, "--steps", 2, "--class", 3, "--dtype"]
        run(capsys, *command, *asked, "auto", *(["--runs", 1] if command[0] == "profile" else []))
        _, err = run(capsys, *command, *asked, "half", code=2)
        assert "dtype='half'" in err and err.count("\n") == 1
    said = run(
        capsys, "sample", "--recipe", tmp_path / "a.npz", "--out", tmp_path / "c.npz", "--json"
    )[0]
    assert json.loads(said)["recipe"]["dtype"] == "bfloat16"
    _, err = run(
        capsys, "sample", "--recipe", tmp_path / "a.npz", "--out", tmp_path / "c.npz", "--dtype", "auto",
        code=2,
    )  # fmt: skip
    assert "leave out --dtype" in err
