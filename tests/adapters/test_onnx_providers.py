"""Networks in ONNX files under executors that read the file themselves, and under those that cannot."""

import onnx_cases
import pytest
import torch
from onnx_cases import HALF, INT64, port, saved
from optional import needs
from torch import nn

from diffusion_engine import Sampler, ScoreNetwork, from_onnx
from diffusion_engine.native import NativeError
from diffusion_engine.processes import VP

for package in ("onnx", "onnxruntime", "onnxscript"):
    needs(package)

SHAPE = (3, 4, 4)
X, LABEL = port("sample", ["N", *SHAPE]), port("timestep", ["N"])
EXECUTORS = ("onnxruntime", "openvino")


def samples(network, executor, **request):
    needs(executor)
    made = Sampler(network, "dpmpp_2m", 3, executor=executor, threads=1).sample(seed=3, **request)
    assert made.recipe["network_form"].startswith(f"{executor}/")
    return made.samples


def near(got, want):
    return float((got - want).abs().max() / want.abs().max()) < 1e-5


FILES = {
    "without a condition": ([X, LABEL], {}),
    "with one": ([X, LABEL, port("y", ["N", 5])], torch.linspace(0, 1, 15).view(3, 5)),
    "with two": (
        [port("y", ["N"], INT64), X, port("c", ["N", 2, 2]), LABEL],
        {"c": torch.linspace(0, 1, 12).view(3, 2, 2), "y": torch.tensor([2, 0, 1])},
    ),
    "with whole labels": ([X, port("timestep", ["N"], INT64)], {}),
    "with a name that nothing reads": ([X, LABEL, port("y", ["N", 5])], None),
}


@pytest.mark.parametrize("executor", EXECUTORS)
@pytest.mark.parametrize("name", FILES)
def test_a_file_is_its_own_export(tmp_path, name, executor, monkeypatch):
    ports, condition = FILES[name]
    if condition is None:
        model = onnx_cases.model(ports[:2])
        model.graph.input.append(ports[2])
        path, condition = tmp_path / "it.onnx", torch.ones(3, 5)
        path.write_bytes(model.SerializeToString())
    else:
        path = saved(tmp_path / "it.onnx", ports)
    network = from_onnx(path, VP(), label="t" if "whole" not in name else "1000t")
    request = (
        {"n": 3} if isinstance(condition, dict) and not condition else {"condition": condition}
    )
    wanted = Sampler(network, "dpmpp_2m", 3).sample(seed=3, **request).samples
    monkeypatch.setattr(torch.onnx, "export", None)
    assert near(samples(network, executor, **request), wanted)


@pytest.mark.parametrize("executor", EXECUTORS)
def test_weights_beside_the_file_are_read(tmp_path, executor):
    onnx_cases.weights(tmp_path / "beside.bin")
    network = from_onnx(onnx_cases.outside(tmp_path / "it.onnx", "beside.bin"), VP())
    wanted = Sampler(network, "dpmpp_2m", 3).sample(2, seed=3).samples
    assert near(samples(network, executor, n=2), wanted)


REFUSED = {
    "one label for all": ([X, port("timestep", [])], "takes timestep float32 .. and a call gives"),
    "a label of two axes": ([X, port("timestep", ["N", 1])], "takes timestep float32 \\[N, 1\\]"),
    "half precision": ([port("sample", ["N", *SHAPE], HALF), LABEL], "takes sample float16"),
    "a fixed batch": ([port("sample", [3, *SHAPE]), port("timestep", [3])], "has a batch of 3, and a call 2"),
}  # fmt: skip


@pytest.mark.parametrize("executor", EXECUTORS)
@pytest.mark.parametrize("name", REFUSED)
def test_a_call_that_is_not_the_files_is_refused(tmp_path, name, executor):
    ports, said = REFUSED[name]
    network = from_onnx(saved(tmp_path / "it.onnx", ports), VP())
    with pytest.raises(
        ValueError, match=rf"executor='{executor}' cannot run .*{said}.*executor='eager'"
    ):
        samples(network, executor, n=2)
    assert Sampler(network, "dpmpp_2m", 3).sample(2, seed=3).samples.isfinite().all()


@pytest.mark.parametrize("executor", EXECUTORS)
def test_a_file_that_changed_is_refused(tmp_path, executor):
    path = saved(tmp_path / "it.onnx")
    network = from_onnx(path, VP())
    saved(path, outputs=("another",))
    with pytest.raises(ValueError, match="has changed since a network was made of it"):
        samples(network, executor, n=1)


class Around(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x, label):
        return 2.0 * self.inner(x, label)


@pytest.mark.parametrize("executor", ["native", *EXECUTORS])
def test_a_module_around_a_file_is_refused(tmp_path, executor):
    if executor != "native":
        needs(executor)
    inner = from_onnx(saved(tmp_path / "it.onnx"), VP()).module
    network = ScoreNetwork(Around(inner), VP(), SHAPE)
    with pytest.raises(
        ValueError, match="a part of it is an ONNX file, which has no module to record"
    ):
        Sampler(network, "ddim", 3, executor=executor).sample(1)
    assert Sampler(network, "ddim", 3).sample(1).samples.isfinite().all()


def test_there_is_nothing_to_record(tmp_path):
    network = from_onnx(saved(tmp_path / "it.onnx"), VP())
    said = "it is an ONNX file, which has no module to record; executor='onnxruntime' and 'openvino' read it"
    with pytest.raises(NativeError, match=said):
        Sampler(network, "ddim", 3, executor="native").sample(1)
