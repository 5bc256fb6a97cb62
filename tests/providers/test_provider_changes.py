"""executor="onnxruntime" and "openvino": what changes of a network is seen, what cannot be run is said."""

import gc
import importlib.util
import os
import pickle
import sys
import tempfile

import pytest
import torch
from native_cases import SHAPE, Small, function, small
from optional import needs
from torch import nn

from diffusion_engine import Sampler, ScoreNetwork
from diffusion_engine.backends import machine
from diffusion_engine.executors import GraphError
from diffusion_engine.native import held
from diffusion_engine.processes import VP
from diffusion_engine.providers import OnnxRuntime, OpenVINO, ProviderError, export, opened
from diffusion_engine.providers.runtime import Setting

GIVEN = {"seeds": [1, 2, 3], "condition": [0, 1, 0]}
EACH = {"onnxruntime": OnnxRuntime, "openvino": OpenVINO}


@pytest.fixture(params=EACH)
def provider(request):
    needs("onnx"), needs("onnxscript"), needs(request.param)
    return EACH[request.param]


@pytest.fixture
def every():
    """Those that are installed: a network is exported once for all of them."""
    needs("onnx"), needs("onnxscript")
    here = [kind for name, kind in EACH.items() if importlib.util.find_spec(name)]
    return here or pytest.skip("onnxruntime and openvino are not installed")


@pytest.fixture(scope="module")
def network():
    """Stays as it is."""
    return small()


@pytest.fixture(scope="module")
def changing():
    """Has other weights from test to test."""
    return small(seed=1)


@pytest.fixture
def counted(monkeypatch):
    """How often something was exported."""
    made, real = [], export.traced

    def traced(*given):
        made.append(given)
        return real(*given)

    monkeypatch.setattr(export, "traced", traced)
    return made


def close(sampler, given=None):
    given = GIVEN if given is None else given
    made = sampler.sample(**given).samples
    want = Sampler(sampler.network, "ddim", 3).sample(**given).samples
    assert torch.allclose(made, want, rtol=1e-4, atol=1e-4)
    return made


def scaled(module):
    return {name: tensor * 1.5 for name, tensor in module.state_dict().items()}


def in_place(module):
    with torch.no_grad():
        module.first.weight.mul_(1.5)


def behind_torch(module):
    module.norm.bias.data.numpy()[:] += 1.5


def replaced(module):
    module.first.weight = nn.Parameter(module.first.weight.detach() * 1.5)


VALUES = {
    "in place": in_place,
    "behind torch": behind_torch,
    "load_state_dict": lambda module: module.load_state_dict(scaled(module)),
}
PARTS = {
    "a parameter": replaced,
    "an attribute": lambda module: setattr(module.norm, "eps", 0.5),
    "a forward": lambda module: setattr(module, "forward", lambda x, label, y: 0.5 * x),
}


def test_values_that_change(provider, changing, counted):
    """Other sessions of the same export have them."""
    sampler = Sampler(changing, "ddim", 3, executor=provider(threads=1))
    before = close(sampler)
    made = len(counted)
    weights = {name: t.clone() for name, t in changing.module.state_dict().items()}
    for change in VALUES.values():
        change(changing.module)
        after = close(sampler)
        assert not torch.equal(after, before)
        before = after
    sampler.update_weights(weights)
    close(sampler)
    assert len(counted) == made


def test_weights_that_change_between_rows(provider, changing):
    sampler, last = Sampler(changing, "ddim", 3, executor=provider(threads=1)), changing.module.last
    before = last.weight.detach().clone()

    def halve(progress):
        with torch.no_grad():
            last.weight.mul_(0.5)

    made = sampler.sample(**GIVEN, on_step=halve).samples
    with torch.no_grad():
        last.weight.copy_(before)
    want = Sampler(changing, "ddim", 3).sample(**GIVEN, on_step=halve).samples
    with torch.no_grad():
        last.weight.copy_(before)
    assert torch.allclose(made, want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "change",
    ["a parameter", *(pytest.param(n, marks=pytest.mark.slow) for n in list(PARTS)[1:])],
)
def test_parts_that_change(every, counted, change):
    own = small()
    samplers = [Sampler(own, "ddim", 3, executor=kind(threads=1)) for kind in every]
    before = [close(sampler) for sampler in samplers]
    PARTS[change](own.module)
    for sampler, one in zip(samplers, before, strict=True):
        assert not torch.equal(close(sampler), one)
    assert len(counted) == 2


def test_a_function_whose_tensor_changes(every):
    scale, given = torch.tensor(0.5), {"n": 2, "seed": 1}
    own = function(scale)
    samplers = [Sampler(own, "ddim", 3, executor=kind(threads=1)) for kind in every]
    before = [close(sampler, given) for sampler in samplers]
    scale.fill_(0.75)
    for sampler, one in zip(samplers, before, strict=True):
        assert not torch.equal(close(sampler, given), one)


def test_a_model_beyond_protobuf(provider, network, monkeypatch, tmp_path):
    """Its weights lie beside it in a folder that goes away."""
    monkeypatch.setattr(export, "PROTOBUF", 0)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    close(Sampler(network, "ddim", 3, executor=provider(threads=1)))
    assert not os.listdir(tmp_path)


def test_threads_are_measured_and_kept(provider, network, monkeypatch, tmp_path):
    monkeypatch.setenv("DIFFUSION_ENGINE_CACHE", str(tmp_path))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    own, made = network, provider()
    close(Sampler(own, "ddim", 3, executor=made))
    (found,) = made.made(own)
    ways = [Setting(1, False), Setting(2, False), Setting(2, True)]
    assert list(found.times[3]) == (ways if provider is OnnxRuntime else [Setting(1), Setting(2)])
    assert made.threads_of(own) == {"3": found.settings[3].threads}
    other = provider()
    close(Sampler(own, "ddim", 3, executor=other))
    (again,) = other.made(own)
    assert not again.times and again.settings == found.settings


def test_waiting_as_openmp_is_told(monkeypatch):
    for policy, spinning in (("passive", False), ("ACTIVE", True)):
        monkeypatch.setenv("OMP_WAIT_POLICY", policy)
        assert OnnxRuntime().settings([1, 4]) == [Setting(1, False), Setting(4, spinning)]


class Drawing(Small):
    def forward(self, x, label, y):
        return x + torch.randn_like(x)


class Branching(Small):
    def forward(self, x, label, y):
        return x if x.sum() > 0 else -x


class Unknown(Small):
    def forward(self, x, label, y):
        return torch.igamma(x.abs() + 1, x.abs())


@pytest.mark.parametrize(
    ("module", "why"),
    [
        (Drawing, "differ by"),
        (Branching, "depends on the numbers in a tensor"),
        (Unknown, "torch.onnx cannot take it: .*igamma"),
    ],
)
def test_what_cannot_be_run_is_said(module, why):
    needs("onnx"), needs("onnxscript"), needs("onnxruntime")
    own = ScoreNetwork(module(), VP(), SHAPE, null=2, classes=3, name="odd")
    sampler = Sampler(own, "ddim", 3, executor=OnnxRuntime(threads=1))
    with pytest.raises(ProviderError, match=f"'onnxruntime' cannot run .*'odd': .*{why}.*eager"):
        sampler.sample(**GIVEN)


def test_what_differs_too_much_is_said(provider, network, monkeypatch):
    monkeypatch.setattr(held, "WITHIN", 0.0)
    with pytest.raises(ProviderError, match=r"differ by .*e-\d+ of the largest"):
        Sampler(network, "ddim", 3, executor=provider(threads=1)).sample(**GIVEN)


def test_bfloat16(network, monkeypatch):
    needs("openvino"), needs("onnx"), needs("onnxscript")
    own = network
    fast = machine.Bf16("avx512_bf16", 1.0, "it has it")
    monkeypatch.setattr(machine, "bf16", lambda: fast)
    made = OpenVINO(threads=1, dtype=torch.bfloat16)
    sampler = Sampler(own, "ddim", 3, executor=made)
    got, want = sampler.sample(**GIVEN), Sampler(own, "ddim", 3).sample(**GIVEN)
    assert got.samples.dtype == torch.float32
    assert got.recipe["network_form"].endswith("/bfloat16")
    largest = want.samples.abs().max()
    assert 0 < (got.samples - want.samples).abs().max() < 0.02 * largest
    slow = machine.Bf16("", 8.0, "it has none")
    monkeypatch.setattr(machine, "bf16", lambda: slow)
    with pytest.raises(ValueError, match="it has none, and bfloat16 that is emulated"):
        Sampler(own, "ddim", 3, executor=OpenVINO(dtype=torch.bfloat16))
    needs("onnxruntime")
    with pytest.raises(GraphError, match="ONNX Runtime computes in float32"):
        Sampler(own, "ddim", 3, executor=OnnxRuntime(dtype=torch.bfloat16))


def test_where_bfloat16_is_too_coarse(network, monkeypatch):
    """Refused, or done in float32 from then on: calls of all sizes, whatever the weights become."""
    needs("openvino"), needs("onnx"), needs("onnxscript")
    monkeypatch.setattr(machine, "bf16", lambda: machine.Bf16("amx", 1.0, "it has it"))
    how = {"executor": "openvino", "threads": 1}
    sampler = Sampler(network, "ddim", 3, dtype="auto", **how)
    forms = [sampler.sample(**GIVEN).recipe["network_form"]]
    monkeypatch.setattr(opened, "HALF_WITHIN", 0.0)
    with pytest.raises(ProviderError, match=r"in torch.bfloat16 its outputs differ .*dtype='auto'"):
        Sampler(network, "ddim", 3, dtype=torch.bfloat16, **how).sample(**GIVEN)
    assert sampler.executor.coarse(network) is None
    plain = Sampler(network, "ddim", 3, **how)
    for given in ({"seeds": [1, 2], "condition": [0, 1]}, GIVEN):
        made, want = sampler.sample(**given), plain.sample(**given)
        assert torch.equal(made.samples, want.samples) and made.recipe == want.recipe
        forms.append(made.recipe["network_form"])
    kind = f"openvino/{sampler.executor.version}"
    assert forms == [f"{kind}/bfloat16", f"{kind}/float32", f"{kind}/float32"]
    assert sampler.dtype == torch.float32
    assert sampler.executor.coarse(network).startswith("in torch.bfloat16 its outputs differ by")
    again = pickle.loads(pickle.dumps(sampler.executor))
    assert again.fallback and again.precision == torch.bfloat16


@pytest.mark.parametrize("name", EACH)
def test_what_is_not_installed_is_named(name, monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(
        "diffusion_engine.providers.provider.find_spec",
        lambda package: None if package == name else real("sys"),
    )
    extra = {"onnxruntime": "onnx", "openvino": "openvino"}[name]
    with pytest.raises(
        GraphError, match=rf"needs {name}: pip install 'diffusion-engine\[{extra}\]'"
    ):
        Sampler(small(), "ddim", 3, executor=name)


@pytest.mark.parametrize("kind", EACH.values())
def test_other_places_and_dtypes(kind, monkeypatch):
    monkeypatch.setattr(
        "diffusion_engine.providers.provider.find_spec", lambda package: sys.__spec__ or True
    )
    assert "on the CPU, not on cuda" in kind().objection(torch.device("cuda"))
    for dtype in (torch.float16, torch.float64):
        with pytest.raises(ProviderError, match="is given float32"):
            Sampler(small(), "ddim", 3, executor=kind(), dtype=dtype).sample(**GIVEN)
    with pytest.raises(ValueError, match="dtype"):
        kind(dtype=torch.float16)
    with pytest.raises(ValueError, match="steps by 'auto', 'torch' or 'cpp'"):
        kind("triton")


def test_nothing_is_printed_and_nothing_stays(capfd):
    needs("onnx"), needs("onnxscript"), needs("onnxruntime")
    own, made = function(torch.tensor(0.5)), OnnxRuntime(threads=1)
    Sampler(own, "ddim", 3, executor=made).sample(2)
    assert capfd.readouterr() == ("", "")
    made.forget(own)
    assert not made.made(own)
    before = len(export._known)
    del own
    gc.collect()
    assert len(export._known) < before
