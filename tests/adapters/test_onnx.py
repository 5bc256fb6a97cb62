"""Networks in ONNX files through `from_onnx`, against the torch modules that they were exported from."""

import copy
import pickle
import sys
import threading
import warnings

import onnx_cases
import pytest
import torch
from onnx_cases import DOUBLE, FLOAT, HALF, INT32, INT64, port, saved, wanted
from optional import needs
from torch import nn

from diffusion_engine import Sampler, ScoreNetwork, from_onnx
from diffusion_engine.choices import structure
from diffusion_engine.engine import Engine
from diffusion_engine.networks.onnx import OnnxModule
from diffusion_engine.processes import CLD, VP, Discrete

for package in ("onnx", "onnxruntime"):
    needs(package)

SHAPE = (3, 4, 4)


def close(got, want):
    return float((got - want).abs().max() / want.abs().max()) < 1e-5


def inputs(n, *sizes):
    """x, labels that differ, and whatever else, in float32."""
    numbers = torch.Generator().manual_seed(0)
    x = torch.randn(n, *SHAPE, generator=numbers)
    return x, 1.0 + torch.arange(n), *(torch.randn(n, *s, generator=numbers) for s in sizes)


def exported(module, given, path, opset, free):
    """By the exporter that takes tenths of a second, and opsets from 13 on."""
    needs("onnxscript")
    names = list(given)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module, tuple(given.values()), path, dynamo=False, opset_version=opset, input_names=names,
            dynamic_axes={name: {0: "N"} for name in names} if free else None,
        )  # fmt: skip
    return path


def by_torch_export(module, given, path):
    needs("onnxscript")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module, tuple(given.values()), dynamo=True, verbose=False,
            dynamic_shapes=tuple({0: torch.export.Dim.DYNAMIC} for _ in given),
        )  # fmt: skip
    program.save(path)
    return path


class Tiny(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 3, 3, padding=1)
        self.told = nn.Linear(1, 8)
        self.classes = nn.Embedding(5, 8)

    def forward(self, sample, timestep, class_labels):
        told = self.told(timestep[:, None] / 1000) + self.classes(class_labels)
        return self.last(torch.nn.functional.silu(self.first(sample) + told[:, :, None, None]))


def tiny():
    torch.manual_seed(0)
    given = {"sample": inputs(4)[0], "timestep": torch.ones(4), "class_labels": torch.arange(4)}
    return Tiny().eval(), given


@pytest.mark.parametrize("opset", [13, 17])
@pytest.mark.parametrize("free", [False, True])
def test_samples_are_those_of_the_module(tmp_path, opset, free):
    module, given = tiny()
    path = exported(module, given, tmp_path / "tiny.onnx", opset, free)
    process = Discrete.linear()
    network = from_onnx(path, process, classes=4, null=4)
    own = ScoreNetwork(module, process, SHAPE, classes=4, null=4)
    assert (network.shape, network.name, network.module.batch) == (
        SHAPE,
        "tiny",
        None if free else 4,
    )
    # 6 entries a call: the file with a fixed batch is called twice, with two that are repeated.
    made = [
        Sampler(net, "dpmpp_2m", 4, guidance=2.0).sample(3, condition=[0, 3, 2], seed=1).samples
        for net in (network, own)
    ]
    assert close(*made)


@pytest.mark.slow  # docs/your-network.md does it
def test_a_file_of_torch_export(tmp_path):
    module, given = tiny()
    network = from_onnx(by_torch_export(module, given, tmp_path / "tiny.onnx"), VP())
    x, label, y = inputs(3)[0], torch.tensor([1.0, 2.0, 3.0]), torch.tensor([4, 0, 1])
    with torch.no_grad():
        assert close(network(x, label, y)[0], module(x, label, y))


UNETS = {
    "UNet2DModel": {},
    "UNet2DConditionModel, Stable Diffusion 1": {"encoder_hidden_states": (7, 16)},
}


@pytest.mark.parametrize(
    ("name", "opset"),
    [
        ("UNet2DModel", 14),
        *((name, 17) for name in UNETS),
        *(pytest.param(name, "torch.export", marks=pytest.mark.slow) for name in UNETS),
    ],
)
def test_networks_of_diffusers(tmp_path, name, opset):
    needs("diffusers")
    from small_networks import made

    class First(nn.Module):
        def __init__(self, module):
            super().__init__()
            self.module = module

        def forward(self, sample, timestep, encoder_hidden_states=None):
            given = [t for t in (sample, timestep, encoder_hidden_states) if t is not None]
            return self.module(*given, return_dict=False)[0]

    _, case = made(name)
    given = dict(zip(case.inputs, case.of(2), strict=True))
    module, path = First(case.module), tmp_path / "unet.onnx"
    if opset == "torch.export":
        by_torch_export(module, given, path)
    else:
        exported(module, given, path, opset, free=True)
    network = from_onnx(path, Discrete.linear())
    assert network.label_dtype == torch.int64
    assert [p.name for p in network.module.conditions] == list(UNETS[name])
    more = case.of(3)
    with torch.no_grad():
        assert close(network(more[0], more[1], *(more[2:] or [None]))[0], module(*more))


# --- inputs are found

X = port("sample", ["N", *SHAPE])
LABEL = port("timestep", ["N"])
FOUND = {
    "by name": ([port("x", ["N", *SHAPE]), port("y", ["N", *SHAPE]), port("t", ["N"])], "x", "t"),
    "by shape": ([port("b", ["N"]), port("a", ["N", *SHAPE])], "a", "b"),
    "by name alone": ([X, port("c", ["N", 5]), LABEL, port("w", ["N"])], "sample", "timestep"),
    "as it is said": ([X, port("t", ["N"]), port("label", ["N"])], "sample", "t"),
}


@pytest.mark.parametrize("name", FOUND)
def test_inputs_are_found(tmp_path, name):
    ports, x, label = FOUND[name]
    path = saved(tmp_path / "it.onnx", ports, x=x, label=label)
    said = {"label": "t"} if name == "as it is said" else None
    network = from_onnx(path, VP(), inputs=said)
    others = [p.name for p in network.module.conditions]
    assert others == [p.name for p in ports if p.name not in (x, label)]
    sizes = {"y": SHAPE, "c": (5,), "w": (), "label": ()}
    given = inputs(3, *(sizes[other] for other in others))
    condition = dict(zip(others, given[2:], strict=True))
    assert torch.allclose(network(*given[:2], condition or None)[0], wanted(*given))


LABELS = {
    "one for all": ((), FLOAT),
    "one number of each": (("N", 1), FLOAT),
    "one as a list": ((1,), FLOAT),
    "whole": (("N",), INT64),
    "whole and one for all": ((), INT64),
    "whole in 32 bits": (("N",), INT32),
    "double": (("N",), DOUBLE),
    "half": (("N",), HALF),
}
LABEL_DTYPES = {INT64: torch.int64, INT32: torch.int64, DOUBLE: torch.float64, HALF: torch.float16}


@pytest.mark.parametrize("batch", ["N", 2])
@pytest.mark.parametrize("name", LABELS)
def test_labels_are_told_as_the_file_takes_them(tmp_path, name, batch):
    shape, dtype = LABELS[name]
    shape = [batch if size == "N" else size for size in shape]
    ports = [port("sample", [batch, *SHAPE]), port("timestep", shape, dtype)]
    network = from_onnx(saved(tmp_path / "it.onnx", ports), VP())
    assert network.label_dtype == LABEL_DTYPES.get(dtype, torch.float32)
    for n in (1, 2, 5):
        x, label = inputs(n)
        assert torch.equal(network(x, label.to(network.label_dtype), None)[0], wanted(x, label))
    x, label = inputs(4)
    label[2] = label[0]
    assert torch.equal(network(x, label.to(network.label_dtype), None)[0], wanted(x, label))


def test_a_number_that_all_entries_share(tmp_path):
    path = saved(tmp_path / "it.onnx", [X, LABEL, port("weight", [])])
    network, given = from_onnx(path, VP()), inputs(4, ())
    given[2][3] = given[2][1]
    assert torch.allclose(network(*given)[0], wanted(*given))


def test_half_precision_is_the_files_own(tmp_path):
    ports = [port("sample", ["N", *SHAPE], HALF), LABEL]
    network = from_onnx(saved(tmp_path / "it.onnx", ports), VP())
    for dtype in (torch.float32, torch.float16):
        made = Sampler(network, "ddim", 3, dtype=dtype).sample(2, seed=0)
        assert made.samples.isfinite().all()
    x, label = inputs(2)
    got = network(x, label, None)[0]
    assert got.dtype == torch.float32
    assert torch.equal(got, wanted(x.half(), label).float())


def test_several_outputs_count_on(tmp_path):
    path = saved(tmp_path / "it.onnx", outputs=("eps", "logvar"))
    network = from_onnx(path, VP(), outputs=("eps", "logvar"), variance="learned")
    x, label = inputs(2)
    assert [
        torch.equal(o, (i + 1) * wanted(x, label)) for i, o in enumerate(network(x, label, None))
    ]
    assert torch.equal(
        from_onnx(path, VP(), outputs="logvar")(x, label, None)[0], 2 * wanted(x, label)
    )
    named = saved(tmp_path / "named.onnx", outputs=("other", "out_sample"))
    assert torch.equal(from_onnx(named, VP())(x, label, None)[0], 2 * wanted(x, label))


def test_sizes_that_are_free(tmp_path):
    path = saved(tmp_path / "it.onnx", [port("sample", ["N", 3, "H", "W"]), LABEL])
    x, label = torch.randn(2, 3, 8, 6), torch.ones(2)
    assert torch.equal(from_onnx(path, VP(), shape=(3, 8, 6))(x, label, None)[0], wanted(x, label))
    with pytest.raises(ValueError, match=r"free, sample float32 \[N, 3, H, W\]: give shape="):
        from_onnx(path, VP())


def test_a_latent_and_both_states_of_cld(tmp_path):
    ports = [port("x_t", ["N", 5]), port("t", ["N"]), port("z", ["N", 7])]
    path = saved(tmp_path / "it.onnx", ports, x="x_t", label="t")
    network = from_onnx(path, VP(), latent=7)
    x, label, z, y = torch.randn(2, 5), torch.ones(2), torch.randn(2, 7), torch.randn(2, 3)
    assert torch.allclose(network(x, label, None, z)[0], wanted(x, label, z))
    more = saved(tmp_path / "more.onnx", [*ports, port("y", ["N", 3])], x="x_t", label="t")
    assert torch.allclose(
        from_onnx(more, VP(), latent=7)(x, label, y, z)[0], wanted(x, label, z, y)
    )
    both = saved(tmp_path / "cld.onnx", [port("u", ["N", 4, 2]), LABEL], x="u")
    assert from_onnx(both, CLD(), prediction="velocity").shape == (2, 2)
    with pytest.raises(ValueError, match="moves 2 states"):
        from_onnx(path, CLD(), prediction="velocity", latent=7)


# --- inputs that are not found, or are not what they are said to be

SAME = [port("a", ["N", *SHAPE]), port("b", ["N", *SHAPE]), port("c", ["N"])]
LISTED = (
    r"The file's inputs are a float32 \[N, 3, 4, 4\]; b float32 \[N, 3, 4, 4\]; c float32 \[N\]"
)
OPEN = {
    "two of a shape": (SAME, {}, rf"a and b may all be x.*inputs={{'x': NAME}}. {LISTED}"),
    "two names": (
        [X, port("t", ["N"]), port("label", ["N"])],
        {"label": "t"},
        "t and label may all be label.*inputs={'label': NAME}",
    ),
    "no x": ([port("a", ["N"]), port("t", ["N"])], {"x": "a", "label": "t"}, "no input of the file can be x"),
    "no label": ([X, port("a", ["N", 7])], {"label": "a"}, "no input of the file can be label"),
    "two batches": ([port("sample", [2, 3]), LABEL, port("y", [4, 3])], {}, "inputs of several batches"),
}  # fmt: skip


@pytest.mark.parametrize("name", OPEN)
def test_what_is_open_is_asked_for(tmp_path, name):
    ports, made, said = OPEN[name]
    made = {"x": ports[0].name, "label": ports[-1].name} | made
    path = saved(tmp_path / "it.onnx", ports, **({} if name == "two batches" else made))
    with pytest.raises(ValueError, match=said):
        from_onnx(path, VP())


ASKED = {
    "no name": ({"inputs": {"x": "latents"}}, "the file's inputs are sample"),
    "no mapping": ({"inputs": "sample"}, "give names of inputs of the file"),
    "no role": ({"inputs": {"time": "timestep"}}, "inputs takes no time; it takes label, x"),
    "twice": ({"inputs": {"x": "sample", "label": "sample"}}, "is not two things"),
    "of other sizes": ({"inputs": {"x": "timestep"}}, "x is floats"),
    "no label": ({"inputs": {"label": "sample"}, "shape": SHAPE}, r"label is numbers \[\] or"),
    "another shape": ({"shape": (3, 8, 8)}, r"no input of the file can be x, floats \[batch, 3, 8, 8"),
    "no shape": ({"shape": 3}, "one sample's shape"),
    "no output": ({"outputs": "eps"}, r"the file's outputs are out float32 \[N, 3, 4, 4\]; say"),
    "no outputs": ({"outputs": ()}, "the file's outputs are"),
    "another option": ({"predicton": "v"}, "did you mean prediction"),
    "another process": ({"process": None}, "process"),
}  # fmt: skip


@pytest.mark.parametrize("name", ASKED)
def test_what_is_asked_for_is_checked(tmp_path, name):
    asked, said = ASKED[name]
    asked = {"process": VP()} | asked
    with pytest.raises(ValueError, match=said):
        from_onnx(saved(tmp_path / "it.onnx"), **asked)


def test_outputs_that_are_open_are_asked_for(tmp_path):
    path = saved(tmp_path / "it.onnx", outputs=("a", "b"))
    with pytest.raises(ValueError, match=r"a float32 .*; b float32 .*: say outputs="):
        from_onnx(path, VP())


X3, ONE = torch.zeros(2, *SHAPE), torch.zeros(2)
Y, W = torch.zeros(2, 5), torch.zeros(2, dtype=torch.int64)
BOTH = {"y": Y, "k": W}
CALLS = {
    "no condition": ((X3, ONE, None), r"takes the conditions y float32 .*; k int64 .*, and was given none"),
    "one of two": ((X3, ONE, Y), "give a mapping by their names"),
    "a name too few": ((X3, ONE, {"y": Y}), "and was given y$"),
    "a name too many": ((X3, ONE, {**BOTH, "z": Y}), "and was given y, k, z$"),
    "a role's name": ((X3, ONE, {**BOTH, "sample": X3}), "and was given y, k, sample$"),
    "another size": ((X3, ONE, {**BOTH, "y": Y[:, :3]}), r"takes y float32 \[N, 5\], and was .* \[2, 3\]"),
    "no whole numbers": ((X3, ONE, {**BOTH, "k": ONE}), r"takes k int64 \[N\], and was given float32"),
    "another x": ((X3[:, :2], ONE, BOTH), r"takes sample .* and was given float32 \[2, 2, 4, 4\]"),
    "another dtype": ((X3.double(), ONE, BOTH), "float64.*: leave dtype out"),
    "bfloat16": ((X3.bfloat16(), ONE, BOTH), "bfloat16.*: leave dtype out"),
    "another device": ((X3.to("meta"), ONE, BOTH), "on meta: say device='cpu'"),
    "a derivative": ((X3.clone().requires_grad_(), ONE, BOTH), "takes no derivatives, and one is wanted"),
}  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
def test_a_call_is_checked(tmp_path, name):
    ports = [X, LABEL, port("y", ["N", 5]), port("k", ["N"], INT64)]
    network = from_onnx(saved(tmp_path / "it.onnx", ports), VP())
    given, said = CALLS[name]
    with pytest.raises(ValueError, match=said):
        network(*given)
    assert torch.equal(network(X3, ONE, BOTH)[0], X3)


def test_forward_derivatives_are_refused(tmp_path):
    network = from_onnx(saved(tmp_path / "it.onnx"), VP())
    said = "takes no derivatives, and one is wanted"
    with pytest.raises(ValueError, match=said):
        torch.func.jvp(lambda x: network(x, ONE, None)[0], (X3,), (X3,))
    with torch.autograd.forward_ad.dual_level(), pytest.raises(ValueError, match=said):
        network(torch.autograd.forward_ad.make_dual(X3, X3), ONE, None)


# --- files that are none, or that reach out

NO_FILES = {
    "of text": b"hello, world\n",
    "empty": b"",
    "a pickle": pickle.dumps({"weight": [1.0]}),
    "of zeros": bytes(1000),
}


@pytest.mark.parametrize("name", NO_FILES)
def test_a_foreign_file_is_refused(tmp_path, name):
    path = tmp_path / "it.onnx"
    path.write_bytes(NO_FILES[name])
    with pytest.raises(ValueError, match="is no ONNX file, or is cut off"):
        from_onnx(path, VP())


def test_a_file_that_is_cut_off_is_refused(tmp_path):
    whole = saved(tmp_path / "it.onnx").read_bytes()
    path = tmp_path / "part.onnx"
    for end in range(0, len(whole), 7):
        path.write_bytes(whole[:end])
        with pytest.raises(ValueError, match="is no ONNX file, or is cut off"):
            from_onnx(path, VP())


def test_a_path_of_no_file_is_refused(tmp_path):
    for given, said in (
        (tmp_path, "is a folder"),
        (tmp_path / "a.onnx", "is not there"),
        (3, "path=3"),
    ):
        with pytest.raises(ValueError, match=said):
            from_onnx(given, VP())


def test_types_that_are_not_taken_are_refused(tmp_path):
    text = [port("sample", ["N", 3]), LABEL, port("prompt", ["N"], 8)]
    with pytest.raises(ValueError, match="the input 'prompt' is of a type that is not taken"):
        from_onnx(saved(tmp_path / "it.onnx", text), VP())


def test_what_the_runtime_does_not_take_is_refused(tmp_path):
    model = onnx_cases.model([X, LABEL])
    model.graph.node[0].op_type = "Mule"
    path = tmp_path / "it.onnx"
    path.write_bytes(model.SerializeToString())
    network = from_onnx(path, VP())
    with pytest.raises(ValueError, match=r"is not taken by ONNX Runtime \d.*Mule"):
        network(X3, ONE, None)


def test_what_the_runtime_fails_at_is_said(tmp_path):
    ports = [X, LABEL, port("y", ["M", *SHAPE])]
    onnx = needs("onnx")
    model = onnx_cases.model(ports)
    model.graph.node.insert(0, onnx.helper.make_node("Add", ["sample", "y"], ["both"]))
    model.graph.node[1].input[0] = "both"
    path = tmp_path / "it.onnx"
    path.write_bytes(model.SerializeToString())
    network = from_onnx(path, VP(), inputs={"x": "sample"})
    with pytest.raises(
        ValueError, match=r"cannot be run on sample \[2, 3, 4, 4\], .*y \[5, 3, 4, 4\]"
    ):
        network(X3, ONE, torch.zeros(5, *SHAPE))


OUT = "which is not in the file's own folder; nothing else is read"


@pytest.mark.parametrize(
    "place", ["../beside.bin", "{}/beside.bin", "inner/../../beside.bin", "link.bin", ""]
)
def test_weights_outside_of_the_folder_are_not_read(tmp_path, place, monkeypatch):
    folder = tmp_path / "inner"
    folder.mkdir()
    (folder / "inner").mkdir()
    onnx_cases.weights(tmp_path / "beside.bin")
    (folder / "link.bin").symlink_to(tmp_path / "beside.bin")
    path = onnx_cases.outside(folder / "it.onnx", place.format(tmp_path))
    monkeypatch.setitem(sys.modules, "onnxruntime", None)  # it sees none of this
    with pytest.raises(ValueError, match=OUT):
        from_onnx(path, VP())


def test_weights_in_the_folder_are_read(tmp_path):
    onnx_cases.weights(tmp_path / "beside.bin")
    network = from_onnx(onnx_cases.outside(tmp_path / "it.onnx", "beside.bin"), VP())
    x, label = inputs(2)
    assert torch.allclose(network(x, label, None)[0], wanted(x, label) + 12.0)


def test_a_cache_of_links_is_read(tmp_path):
    """As Hugging Face's hub keeps files: a folder of names that are links into another."""
    blobs, names = tmp_path / "blobs", tmp_path / "snapshot"
    blobs.mkdir(), names.mkdir()
    onnx_cases.weights(blobs / "1")
    onnx_cases.outside(blobs / "2", "beside.bin")
    (names / "beside.bin").symlink_to("../blobs/1")
    (names / "it.onnx").symlink_to("../blobs/2")
    network = from_onnx(names / "it.onnx", VP())
    x, label = inputs(2)
    assert torch.allclose(network(x, label, None)[0], wanted(x, label) + 12.0)


def test_weights_that_are_missing_or_cut_off_are_refused(tmp_path):
    path = onnx_cases.outside(tmp_path / "it.onnx", "beside.bin")
    with pytest.raises(ValueError, match=r"'beside' lies in 'beside\.bin', which is not there"):
        from_onnx(path, VP())
    (tmp_path / "beside.bin").write_bytes(bytes(47))
    with pytest.raises(
        ValueError, match=r"ends at byte 48 of 'beside\.bin', which is cut off: it has 47"
    ):
        from_onnx(path, VP())


def test_a_constant_within_a_branch_is_looked_at(tmp_path):
    """A weight may also stand in an operation, and in the graph of a branch."""
    onnx = needs("onnx")
    made = onnx_cases.model([X, LABEL])
    weight = onnx.TensorProto(name="w", data_type=FLOAT, dims=[1])
    weight.data_location = onnx.TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="/etc/passwd")
    inner = onnx.helper.make_graph(
        [onnx.helper.make_node("Constant", [], ["c"], value=weight)], "g", [], []
    )
    made.graph.node.append(
        onnx.helper.make_node("If", ["b"], ["c"], then_branch=inner, else_branch=inner)
    )
    path = tmp_path / "it.onnx"
    path.write_bytes(made.SerializeToString())
    with pytest.raises(ValueError, match=OUT):
        from_onnx(path, VP())


# --- one of many modules


def test_copies_open_the_file_again(tmp_path):
    path = saved(tmp_path / "it.onnx", outputs=("a", "b"))
    network = from_onnx(path, VP(), outputs=("b", "a"), inputs={"x": "sample"})
    x, label = inputs(2)
    outs = network(x, label, None)
    for other in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        again = other(x, label, None)
        assert other.module is not network.module
        assert all(torch.equal(a, b) for a, b in zip(outs, again, strict=True))


def test_a_file_that_changed_is_not_taken_for_the_old_one(tmp_path):
    path = saved(tmp_path / "it.onnx")
    network, early = from_onnx(path, VP()), from_onnx(path, VP())
    kept, before = pickle.dumps(network), early(*inputs(1), None)[0]
    saved(path, outputs=("another",))
    for late in (lambda: pickle.loads(kept), lambda: network(*inputs(1), None)):
        with pytest.raises(ValueError, match="has changed since a network was made of it"):
            late()
    assert torch.equal(early(*inputs(1), None)[0], before)


def test_two_files_are_two_networks(tmp_path):
    """Choices that are kept on disk are found by it."""
    (tmp_path / "other").mkdir()
    first = saved(tmp_path / "a.onnx")
    other = saved(tmp_path / "other" / "a.onnx", outputs=("another",))
    about = [structure(OnnxModule(path)) for path in (first, other)]
    assert about[0] != about[1]


def test_threads_share_a_module(tmp_path):
    ports = [port("sample", [3, *SHAPE]), port("timestep", [])]
    network, wrong = from_onnx(saved(tmp_path / "it.onnx", ports), VP()), []

    def work(seed):
        for n in range(1, 8):
            x = torch.randn(n, *SHAPE, generator=torch.Generator().manual_seed(seed + n))
            label = torch.arange(n) % 2 + float(seed)
            if not torch.equal(network(x, label, None)[0], wanted(x, label)):
                wrong.append((seed, n))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_results_stay_when_the_network_is_called_again(tmp_path):
    network = from_onnx(saved(tmp_path / "it.onnx"), VP())
    x, label = inputs(2)
    first = network(x, label, None)[0]
    kept = first.clone()
    for _ in range(5):
        network(-x, label, None)
    assert torch.equal(first, kept)


def test_an_engine_and_a_number_of_threads(tmp_path):
    network = from_onnx(saved(tmp_path / "it.onnx"), VP())
    one = Sampler(network, "ddim", 3, threads=1).sample(2, seed=4)
    two = Sampler(network, "ddim", 3, threads=2).sample(2, seed=4)
    assert torch.equal(one.samples, two.samples)
    assert sorted(network.module._sessions._made) == [1, 2]
    spec = {"solver": "ddim", "steps": 3}
    with Engine(network, capacity=4) as engine:
        handles = [engine.submit(spec, seeds=[seed]) for seed in one.recipe["seeds"]]
        made = torch.cat([handle.result().samples for handle in handles])
    assert torch.equal(made, one.samples)


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_a_missing_package_is_named(tmp_path, package, monkeypatch):
    path = saved(tmp_path / "it.onnx")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(
        ModuleNotFoundError, match=rf"{package}, which .*'diffusion-engine\[onnx\]'"
    ):
        from_onnx(path, VP())(*inputs(1), None)
