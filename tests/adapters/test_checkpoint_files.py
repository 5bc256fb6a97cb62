"""Checkpoints as files: what is read, and what is refused before any of its numbers is used."""

import json
import os
import struct
import zipfile
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

from diffusion_engine.adapters.checkpoint import (
    Fields,
    fill,
    on_meta,
    open_checkpoint,
    read,
    safe_file,
)
from diffusion_engine.models import network_of

TENSORS = {
    "a.weight": torch.randn(3, 2),
    "b": torch.arange(5),
    "c": torch.tensor(2.5, dtype=torch.float64),
    "d": torch.randn(2, 0, 3),
    "e": torch.randn(7).bfloat16(),
    "f": torch.tensor([True, False, True]),
    "g": torch.randn(3).half(),
}


def folder(path, tensors=TENSORS, **config):
    path.mkdir(exist_ok=True)
    safetensors.torch.save_file(tensors, path / "model.safetensors", metadata={"about": "it"})
    (path / "config.json").write_text(json.dumps({"format": "tiny", **config}))
    return path


def written(path, header, data=b"", length=None):
    """A safetensors file of a header that may lie."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    return path


def tensor(shape=(2,), ends=(0, 8), dtype="F32"):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(ends)}


def test_a_folder_and_a_file_are_read(tmp_path):
    made = read(folder(tmp_path / "net", width=3), "tiny")
    assert (made.name, made.config) == ("net", {"format": "tiny", "width": 3})
    assert made.tensors.keys() == TENSORS.keys()
    for name, own in TENSORS.items():
        assert made.tensors[name].dtype == own.dtype
        assert torch.equal(made.tensors[name], own)
    (tmp_path / "net" / "model.safetensors").rename(tmp_path / "it.safetensors")
    (tmp_path / "net" / "config.json").rename(tmp_path / "it.json")
    assert read(tmp_path / "it.safetensors").name == "it"


LIES = {
    "header beyond the file": (b"{}", b"", 1 << 40, "is cut off"),
    "header beyond the bound": (b"{" + b" " * (16 << 20) + b"}", b"", None, "at most 16777216 are read"),
    "header of other text": (b" {}", b"", None, "does not begin with {"),
    "header of a list": (b"[1, 2]", b"", None, "does not begin with {"),
    "no JSON": (b"{'a': 1}", b"", None, "is not JSON"),
    "not UTF-8": (b'{"\xff": 1}', b"", None, "is not JSON"),
    "too deep": (b'{"a": ' + b"[" * 9 + b"]" * 9 + b"}", b"", None, "nested deeper"),
    "far too deep": (b'{"a": ' + b"[" * 100_000, b"", None, "is not JSON"),
    "a name twice": (b'{"a": {}, "a": {}}', b"", None, "'a' stands twice"),
    "a name of other letters": ({"\u0430": tensor()}, bytes(8), None, "printable ASCII"),
    "an unknown dtype": ({"a": tensor(dtype="O")}, bytes(8), None, "has the dtype 'O'"),
    "a dtype that is a list": ({"a": tensor(dtype=[])}, bytes(8), None, "has the dtype"),
    "a size below zero": ({"a": tensor((-2,))}, bytes(8), None, "has the shape"),
    "a long shape": ({"a": tensor((0,) * 9_000, (0, 0))}, b"", None, r"has the shape .{80}; it is up to"),
    "a size of True": ({"a": tensor((True, 2))}, bytes(8), None, "has the shape"),
    "many axes": ({"a": tensor((1,) * 9, (0, 4))}, bytes(4), None, "has the shape"),
    "a product of many": ({"a": tensor((1 << 40, 1 << 40), (0, 8))}, bytes(8), None, "takes 48357032784"),
    "too few bytes": ({"a": tensor((3,))}, bytes(8), None, "takes 12 bytes, .* say 8"),
    "ends that turn": ({"a": tensor((0,), (8, 0))}, bytes(8), None, "takes 0 bytes"),
    "another field": ({"a": tensor() | {"code": "x"}}, bytes(8), None, "and nothing else"),
    "notes of numbers": ({"__metadata__": {"a": 1}}, b"", None, "may hold text"),
    "overlap": ({"a": tensor(), "b": tensor((1,), (4, 8))}, bytes(8), None, "has another tensor's"),
    "a hole": ({"a": tensor(), "b": tensor((1,), (12, 16))}, bytes(16), None, "leaves bytes out before b"),
    "cut off": ({"a": tensor()}, bytes(7), None, "is cut off: they take 8 bytes, and there are 7"),
    "more behind": ({"a": tensor()}, bytes(9), None, "something else behind its tensors"),
    "empty": (b"", b"", None, "is no safetensors file"),
}  # fmt: skip


@pytest.mark.parametrize("name", LIES)
def test_a_file_that_lies_is_refused(tmp_path, name):
    header, data, length, said = LIES[name]
    with pytest.raises(ValueError, match=said):
        safe_file.load(written(tmp_path / "it.safetensors", header, data, length))


def test_a_header_of_too_many_tensors_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(safe_file, "TENSORS", 3)
    header = {str(i): tensor((0,), (0, 0)) for i in range(4)}
    with pytest.raises(ValueError, match="tells of 4 tensors: at most 3"):
        safe_file.load(written(tmp_path / "it.safetensors", header))


def test_a_tensor_larger_than_memory_is_refused(tmp_path):
    """In a file that is as long, and takes no place on a disk."""
    size = 1 << 43
    path = written(tmp_path / "it.safetensors", {"a": tensor((size // 4,), (0, size))})
    os.truncate(path, path.stat().st_size + size)
    with pytest.raises(ValueError, match=f"a takes {size} bytes, more than there are"):
        safe_file.load(path)


def test_a_zip_behind_the_tensors_is_refused(tmp_path):
    """torch.save's files and Python's wheels are zips, which are read from their end."""
    path = folder(tmp_path / "net") / "model.safetensors"
    with zipfile.ZipFile(path, "a") as both:
        both.writestr("data.pkl", b"cos\nsystem\n.")
    assert zipfile.is_zipfile(path)
    with pytest.raises(ValueError, match="something else behind its tensors"):
        read(path.parent)


def test_a_pickle_is_told_what_to_do(tmp_path):
    folder(tmp_path / "net")
    (tmp_path / "net" / "model.safetensors").write_bytes(b"PK\x03\x04" + bytes(100))
    with pytest.raises(ValueError, match=r"is no safetensors file.*diffusion-engine convert"):
        read(tmp_path / "net")


CONFIGS = {
    "twice": (b'{"format": "tiny", "a": 1, "a": 2}', "'a' stands twice"),
    "twice, behind many": (
        b"{%s}" % b", ".join(b'"%d": 1' % (i % 60_000) for i in range(60_001)),
        "'0' stands",
    ),
    "without end": (b'{"a": 1e999}', "1e999 is larger than any number"),
    "NaN": (b'{"a": NaN}', "NaN is no number of JSON"),
    "a list": (b"[]", "holds a list"),
    "deep": (b'{"a": ' + b"[" * 17 + b"]" * 17 + b"}", "deeper than 16"),
    "long": (b" " * (1 << 20) + b"{}", "longer than 1048576 bytes"),
    "empty": (b"", "is not JSON"),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_config_is_bounded(tmp_path, name):
    text, said = CONFIGS[name]
    (folder(tmp_path / "net") / "config.json").write_bytes(text)
    with pytest.raises(ValueError, match=said):
        read(tmp_path / "net")


def test_what_is_not_there_is_named(tmp_path):
    with pytest.raises(
        ValueError, match=r"net is not there: a checkpoint is a folder of config\.json"
    ):
        read(tmp_path / "net")
    (tmp_path / "it.pt").write_bytes(b"")
    with pytest.raises(ValueError, match=r"it\.pt is no \.safetensors file"):
        read(tmp_path / "it.pt")
    for name in ("config.json", "model.safetensors"):
        (folder(tmp_path / "net") / name).unlink()
        with pytest.raises(ValueError, match=f"{name} is not there"):
            read(tmp_path / "net")
    with pytest.raises(ValueError, match="is of the format 'tiny', not 'edm'"):
        read(folder(tmp_path / "net"), "edm")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_links_out_of_the_folder_are_refused(tmp_path, name):
    file = folder(tmp_path / "net") / name
    file.rename(tmp_path / name)
    file.symlink_to(tmp_path / name)
    with pytest.raises(ValueError, match=f"{name} is a link to .*, outside of its folder"):
        read(tmp_path / "net")


def test_a_cache_of_the_hub_is_read(tmp_path):
    blobs, names = tmp_path / "hub" / "blobs", tmp_path / "hub" / "snapshots" / "1a2b"
    blobs.mkdir(parents=True), names.mkdir(parents=True)
    for file in folder(tmp_path / "net").iterdir():
        file.rename(blobs / file.name[::-1])
        (names / file.name).symlink_to(Path("../../blobs") / file.name[::-1])
    assert read(names, "tiny").tensors.keys() == TENSORS.keys()


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "it.safetensors")
    with pytest.raises(ValueError, match="is no file"):
        safe_file.load(tmp_path / "it.safetensors")


# --- fields


def test_fields():
    fields = Fields(
        {
            "format": "x",
            "a": 3,
            "b": 0.5,
            "c": True,
            "d": "vp",
            "e": [1, 2],
            "f": {"g": 1},
            "h": None,
        }
        | {"i": 2},
        "it",
    )
    assert fields.whole("a", 1, 4) == 3
    assert fields.number("b", 0, 1) == 0.5
    assert fields.number("i", 0, 4) == 2.0
    assert fields.flag("c") is True
    assert fields.choice("d", ("vp", "ve")) == "vp"
    assert fields.wholes("e", 1, 2) == (1, 2)
    assert fields.whole("h", 1, 2, None) is None
    assert fields.whole("absent", 1, 4, 2) == 2
    with pytest.raises(
        ValueError, match="it has the unknown 'f'; known are a, absent, b, c, d, e, h, i"
    ):
        fields.done()
    assert fields.inner("f").whole("g", 1, 1) == 1
    fields.done()


def test_many_unknown_fields_are_counted():
    with pytest.raises(ValueError, match="'k106', 'k107' and 92 more; known"):
        Fields({f"k{i}": 0 for i in range(100, 200)}, "it").done()


WRONG = {
    "low": (lambda f: f.whole("a", 4, 9), "it: a=3: give a whole number from 4 to 9"),
    "high": (lambda f: f.number("b", 0, 0.25), "it: b=0.5: give a number from 0 to 0.25"),
    "no whole number": (lambda f: f.whole("b", 0, 9), "it: b=0.5"),
    "a flag as a number": (lambda f: f.whole("c", 0, 9), "it: c=True"),
    "a number as a flag": (lambda f: f.flag("a"), "it: a=3: give True or False"),
    "no choice": (lambda f: f.choice("d", ("ve",)), "it: d='vp': choose ve"),
    "a number as a choice": (lambda f: f.choice("c", (1, 2)), "it: c=True: choose 1, 2"),
    "no list": (lambda f: f.wholes("a", 0, 9), "it: a=3: give a list"),
    "a long list": (lambda f: f.wholes("e", 0, 9, longest=1), "give a list of 1 to 1"),
    "no object": (lambda f: f.inner("a"), "it: a=3: it is an object"),
    "absent": (lambda f: f.whole("aa", 0, 9), "it lacks 'aa'; did you mean a?"),
    "within": (lambda f: f.inner("f").whole("g", 2, 3), "it: f: g=1"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_field_is_checked(name):
    call, said = WRONG[name]
    with pytest.raises(ValueError) as error:
        call(Fields({"a": 3, "b": 0.5, "c": True, "d": "vp", "e": [1, 2], "f": {"g": 1}}, "it"))
    assert str(error.value).startswith(said) or said in str(error.value)


@pytest.mark.parametrize(
    "config",
    [
        {"network": "mine.module:Network"},
        {"network": "os:system('id')"},
        {"_target_": "torch.nn.Linear"},
        {"a": [{"b": {"__reduce__": 1}}]},
        {"py/object": "os.system"},
    ],
)
def test_a_config_that_names_code_is_refused(config):
    with pytest.raises(ValueError, match=r"it names code, .* nothing of it is run"):
        Fields(config, "it")


# --- fill


class Tiny(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Linear(2, 3), nn.BatchNorm1d(3)


def test_a_module_is_filled():
    torch.manual_seed(0)
    own = Tiny()
    given = {k: v.double() if v.is_floating_point() else v for k, v in own.state_dict().items()}
    made = fill(on_meta(Tiny), given | {"ema.decay": torch.ones(1)}, "it", ignored=("ema.decay",))
    assert not made.training
    for name, tensor in own.state_dict().items():
        assert torch.equal(made.state_dict()[name], tensor)
        assert made.state_dict()[name].dtype == tensor.dtype


CHANGES = {
    "missing": (
        lambda s: s.pop("first.bias"),
        "it lacks 1 of the tensors of the network's 7: first.bias; the config",
    ),
    "extra": (lambda s: s.update(x=s["first.bias"]), "it has 1 besides: x; the config"),
    "shape": (
        lambda s: s.update({"first.bias": torch.ones(4)}),
        r"1 tensors of another shape: first.bias \[4\] in place of \[3\]",
    ),
    "kind": (
        lambda s: s.update({"first.bias": torch.ones(3, dtype=torch.int64)}),
        "of another kind: first.bias torch.int64 in place of torch.float32",
    ),
    "NaN": (
        lambda s: s["first.bias"].fill_(float("nan")),
        "1 tensors with values that are not finite: first.bias",
    ),
    "too large": (
        lambda s: s.update({"first.bias": torch.full((3,), 1e300, dtype=torch.float64)}),
        "not finite: first.bias",
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_tensors_of_another_network_are_refused(name):
    change, said = CHANGES[name]
    state = Tiny().state_dict()
    change(state)
    with pytest.raises(ValueError, match=said):
        fill(on_meta(Tiny), state, "it")


def test_a_network_of_no_size_is_refused():
    with pytest.raises(ValueError, match="the config makes no network: "):
        on_meta(lambda: nn.Linear(1 << 40, 1 << 40))


def test_what_a_state_dict_does_not_hold_is_found():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("table", torch.ones(3), persistent=False)

    with pytest.raises(RuntimeError, match="Own holds table outside of its state_dict"):
        fill(on_meta(Own), {}, "it")


# --- formats


def test_an_unknown_format_is_refused(tmp_path):
    with pytest.raises(ValueError, match="names the format 'tiny'; known are "):
        open_checkpoint(folder(tmp_path / "net"))
    (tmp_path / "net" / "config.json").write_text("{}")
    with pytest.raises(ValueError, match='names no "format"; known are '):
        network_of(str(tmp_path / "net"))


def test_a_folder_of_a_shipped_name_is_not_looked_at(tmp_path, monkeypatch):
    (tmp_path / "exact").mkdir()
    monkeypatch.chdir(tmp_path)
    assert network_of("exact").shape
