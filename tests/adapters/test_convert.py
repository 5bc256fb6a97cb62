"""`convert`: checkpoints of torch.save, numpy and flax to folders, in a process that can do little else."""

import argparse
import json
import os
import pickle
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from command import run
from optional import needs

import diffusion_engine
from diffusion_engine.adapters.checkpoint import formats, read, safe_file
from diffusion_engine.adapters.convert import child, convert, limits, loaded, parent
from diffusion_engine.adapters.convert.chosen import chosen
from diffusion_engine.cli.convert import _lines

W = {"a.weight": torch.randn(3, 2), "b": torch.randn(4)}
E = {name: tensor + 1.0 for name, tensor in W.items()}
BUFFER = {"sigmas": torch.ones(5)}


def put(prefix, tensors):
    return {prefix + name: tensor for name, tensor in tensors.items()}


def same(got, want):
    return got.keys() == want.keys() and all(torch.equal(got[name], want[name]) for name in want)


@pytest.fixture
def tiny(monkeypatch):
    """A format whose reader reads the folder and asks for the field `width`."""
    monkeypatch.setitem(formats.READERS, "tiny", "diffusion_engine.adapters.checkpoint:read")


# --- the process


def test_a_checkpoint_of_training_becomes_a_folder(tmp_path, tiny, monkeypatch):
    """As score_sde saves: averages as a list, parallel names, a buffer that is none of the averages."""
    monkeypatch.setattr(parent, "_names", lambda config: list(W))
    state = {
        "model": put("module.", W | BUFFER),
        "ema": {"decay": 0.9999, "num_updates": 7, "shadow_params": list(E.values())},
        "optimizer": {"state": {0: {"exp_avg": torch.ones(9)}}},
        "step": 3,
    }
    torch.save(state, tmp_path / "checkpoint_3.pth")
    (tmp_path / "it.json").write_text('{"width": 4}')
    report = convert(
        tmp_path / "checkpoint_3.pth", tmp_path / "net", "tiny", config=tmp_path / "it.json"
    )
    made = read(tmp_path / "net", "tiny")
    assert same(made.tensors, E | BUFFER)
    assert made.config == {"format": "tiny", "width": 4}
    assert sorted(os.listdir(tmp_path)) == ["checkpoint_3.pth", "it.json", "net"]
    assert sorted(os.listdir(tmp_path / "net")) == ["config.json", "model.safetensors"]
    assert "\n".join(_lines(report)).startswith(
        f"{tmp_path / 'net'}: tiny, 3 tensors (3 float32), 15 numbers\n"
        "kept: ema of decay 0.9999\n"
        "not averaged, as they are: sigmas\n"
        "dropped: model, optimizer, step\n"
        "limits: at most "
    )
    assert json.loads(json.dumps(report)) == report
    with pytest.raises(ValueError, match=r"net is there already: name a folder that is not"):
        convert(tmp_path / "checkpoint_3.pth", tmp_path / "net", "tiny")


SHUT = """
import errno, fcntl, importlib.util, os, resource, socket, subprocess, sys, termios, threading
spec = importlib.util.spec_from_file_location("system_calls", sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
kept, read = open(sys.argv[2] + "/kept", "wb"), open(sys.argv[1])
if objection := module.give_up():
    sys.exit(print("skip", objection))
tried = {
    "socket": lambda: socket.socket(),
    "pair": lambda: socket.socketpair(),
    "fork": lambda: os.fork(),
    "program": lambda: os.execv("/bin/true", ["true"]),
    "spawn": lambda: os.posix_spawn("/bin/true", ["true"], {}),
    "write": lambda: open(sys.argv[2] + "/new", "w"),
    "append": lambda: open(sys.argv[1], "a"),
    "unlink": lambda: os.unlink(sys.argv[2] + "/kept"),
    "rename": lambda: os.rename(sys.argv[2] + "/kept", sys.argv[2] + "/other"),
    "folder": lambda: os.mkdir(sys.argv[2] + "/new"),
    "kill": lambda: os.kill(os.getppid(), 0),
    "times": lambda: os.utime(sys.argv[1]),
    "mode": lambda: os.fchmod(read.fileno(), 0o600),
    "owner": lambda: os.fchown(read.fileno(), os.getuid(), -1),
    "attribute": lambda: os.setxattr(read.fileno(), "user.a", b"1"),
    "process": lambda: os.pidfd_open(os.getppid()),
    "priority": lambda: os.setpriority(os.PRIO_PROCESS, os.getppid(), 1),
    "memory": lambda: os.memfd_create("a"),
    "terminal": lambda: fcntl.ioctl(read, termios.TIOCSTI, b"a"),
    "limits": lambda: resource.setrlimit(resource.RLIMIT_NOFILE, resource.getrlimit(resource.RLIMIT_NOFILE)),
}
for name, call in tried.items():
    try:
        call()
        print("done", name)
    except (OSError, ValueError) as error:  # setrlimit has no OSError of its own
        denied = (errno.EPERM, errno.ENOSYS, errno.ENOTTY)
        assert getattr(error, "errno", errno.EPERM) in denied, (name, error)
threads = [threading.Thread(target=kept.write, args=(b"12",)) for _ in range(2)]
[t.start() for t in threads], [t.join() for t in threads]
kept.close()
print("threads", open(sys.argv[2] + "/kept").read())
"""


def test_system_calls_are_given_up(tmp_path):
    file = Path(diffusion_engine.__file__).parent / "adapters" / "convert" / "system_calls.py"
    done = subprocess.run(
        [sys.executable, "-c", SHUT, str(file), str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert not done.stderr
    if done.stdout.startswith("skip"):
        pytest.skip(done.stdout)
    assert done.stdout == "threads 1212\n"
    assert os.listdir(tmp_path) == ["kept"]


def test_a_pickle_is_read_where_the_system_confines_its_reader(tmp_path, monkeypatch):
    monkeypatch.setattr(child, "limit", lambda size: (["none"], "no filter here"))
    torch.save(W, tmp_path / "it.pt")
    safetensors.torch.save_file(W, tmp_path / "it.safetensors")

    def answer(name, unconfined):
        handle = os.open(tmp_path / "out", os.O_WRONLY | os.O_CREAT)
        asked = {"source": str(tmp_path / name), "handle": handle, "ema": "auto", "names": None}
        return child.answer(asked | {"unconfined": unconfined})

    said = answer("it.pt", False)["refused"]
    assert said.startswith("it.pt is a pickle, and what reads it cannot be kept from network")
    assert "(no filter here): where you trust it, --unconfined reads it" in said
    assert answer("it.pt", True)["limits"] == ["none"]
    assert answer("it.safetensors", False)["tensors"] == 2


def test_limits_are_never_raised(monkeypatch):
    made = {}
    kind = limits.resource.RLIMIT_CPU
    monkeypatch.setattr(limits.resource, "setrlimit", made.__setitem__)
    monkeypatch.setattr(limits.resource, "getrlimit", lambda kind: (5, 7))
    assert limits._lowered(kind, 9) == 7
    assert limits._lowered(kind, 3) == 3
    assert made == {kind: (3, 3)}


class Payload:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def hostile(tmp_path, kind):
    path, payload = tmp_path / "it.pt", Payload(tmp_path / "ran")
    if kind == "pickle":
        path.write_bytes(pickle.dumps({"ema": payload}, protocol=4))
    else:
        torch.save({"model": W, "x": payload}, path, _use_new_zipfile_serialization=kind == "zip")
    return path


@pytest.mark.parametrize("kind", ["zip", "legacy", "pickle"])
@pytest.mark.filterwarnings("ignore")  # torch warns of the pickle's protocol
def test_a_payload_is_refused_and_named(tmp_path, kind):
    with pytest.raises(
        ValueError, match=r"it\.pt wants to call (posix|nt)\.mkdir: nothing of it was run"
    ):
        loaded.load(hostile(tmp_path, kind))
    assert os.listdir(tmp_path) == ["it.pt"]
    pickle.loads(pickle.dumps(Payload(tmp_path / "ran")))  # else this test would show nothing
    assert (tmp_path / "ran").is_dir()


@pytest.mark.slow  # the same through the process
def test_a_payload_leaves_nothing(tmp_path, tiny):
    with pytest.raises(ValueError, match="wants to call"):
        convert(hostile(tmp_path, "zip"), tmp_path / "net", "tiny")
    assert os.listdir(tmp_path) == ["it.pt"]


def test_what_else_is_no_tensor_is_told_what_to_do(tmp_path):
    path = tmp_path / "content.pth"
    torch.save({"netG_dict": W, "args": argparse.Namespace(lr=1e-4)}, path)
    with pytest.raises(
        ValueError, match=r"wants to call argparse\.Namespace: .* as netG_\*\.pth of"
    ):
        loaded.load(path)
    # EDM's files: a class of a module that is not here, which is only named.
    path.write_bytes(b"\x80\x02}X\x03\x00\x00\x00emactorch_utils.persistence\n_made\n)Rs.")
    with pytest.raises(
        ValueError, match=r"torch_utils\.persistence\._made: it is a network pickled with its"
    ):
        loaded.load(path)


DAMAGED = {
    "random": b"\x80\x02" + bytes(range(256)),
    "a zip that is none": b"PK\x03\x04" + bytes(100),
    "text": b"hello, world",
    "empty": b"",
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_file_is_refused(tmp_path, name):
    needs("msgspec")
    path = tmp_path / "it.pt"
    path.write_bytes(DAMAGED[name])
    with pytest.raises(ValueError, match=r"it\.pt is no"):
        loaded.load(path)


def test_nothing_is_half_written(tmp_path, tiny, monkeypatch):
    torch.save(W, tmp_path / "it.pt")

    def cut_off(source, weights, how):
        weights.write_bytes(b"{")
        return {}

    monkeypatch.setattr(parent, "_asked", cut_off)
    with pytest.raises(ValueError, match="is no safetensors file, or is cut off"):
        convert(tmp_path / "it.pt", tmp_path / "net", "tiny")
    assert os.listdir(tmp_path) == ["it.pt"]


def test_a_process_that_ends_is_told(tmp_path, tiny, monkeypatch):
    torch.save(W, tmp_path / "it.pt")
    monkeypatch.setattr(parent, "CHILD", "this_is_no_module")
    with pytest.raises(
        ValueError, match=r"the process ended with 1 .*No module named this_is_no_module"
    ):
        convert(tmp_path / "it.pt", tmp_path / "net", "tiny")
    assert os.listdir(tmp_path) == ["it.pt"]


ASKED = {
    "no file": ({"source": "other.pt"}, r"other\.pt is not there: give a file"),
    "a folder": ({"source": "."}, "is a folder: give a file"),
    "no format": ({"format": None}, "no format is said: write --format"),
    "a format that is a list": (
        {"format": None, "config": {"format": []}},
        r"format \[\] is unknown",
    ),
    "no folder around it": ({"out": "a/net"}, r"net cannot be made \(No such file"),
    "an unknown format": ({"format": "tini"}, "the format 'tini' is unknown"),
    "two formats": (
        {"config": {"format": "other"}},
        "config says the format 'other', and --format tiny",
    ),
    "no config": ({"config": "it.json"}, "it.json cannot be read"),
}


@pytest.mark.parametrize("name", ASKED)
def test_what_is_asked_for_is_checked(tmp_path, tiny, name, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(W, "it.pt")
    asked, said = ASKED[name]
    with pytest.raises(ValueError, match=said):
        convert(**{"source": "it.pt", "out": "net", "format": "tiny"} | asked)
    assert os.listdir() == ["it.pt"]


def test_the_command(capsys, tmp_path, tiny, monkeypatch):
    torch.save(put("module.", W), tmp_path / "it.pt")

    def here(source, weights, how):
        handle = os.open(weights, os.O_WRONLY | os.O_CREAT)
        made = child.convert(source, handle, how["ema"], how["names"])
        return made | {"limits": ["none, in this process"]}

    monkeypatch.setattr(parent, "_asked", here)
    words = ("convert", tmp_path / "it.pt", tmp_path / "net", "--format", "tiny")
    assert run(capsys, *words) == (
        f"{tmp_path / 'net'}: tiny, 2 tensors (2 float32), 10 numbers\nkept: tensors\n"
        "dropped of all names: module.\nlimits: none, in this process\n",
        "",
    )
    _, err = run(capsys, *words, code=2)
    assert (
        err == f"diffusion-engine: {tmp_path / 'net'} is there already: name a folder that is not\n"
    )
    out, _ = run(capsys, *words[:2], tmp_path / "other", *words[3:], "--json")
    assert json.loads(out)["tensors"] == 2


# --- what is kept

LIST = {"shadow_params": list(E.values()), "decay": 0.9}
LIGHTNING = put("model.", W | BUFFER) | {"model_ema.aweight": E["a.weight"], "model_ema.b": E["b"]}
LIGHTNING |= {"model_ema.decay": torch.tensor(0.9999), "first_stage_model.w": torch.ones(1)}
LUCIDRAINS = put("online_model.", W) | put("ema_model.", E) | {"step": torch.ones(1)}
FLAX = {"step": 3, "params": {"a": {"b": W["b"]}}, "ema_params": {"a": {"b": E["b"]}}}
FORMS = {
    "a state_dict": (W, "auto", W, "tensors"),
    "of DataParallel": (put("module.", W), "auto", W, "tensors"),
    "of torch.compile and DataParallel": (put("module._orig_mod.", W), "auto", W, "tensors"),
    "one name alone begins so": (W | put("module.", W), "auto", W | put("module.", W), "tensors"),
    "weights": ({"state_dict": W, "epoch": 3}, "auto", W, "state_dict"),
    "averages by name": ({"model": W, "ema": E, "step": 3}, "auto", E, "ema"),
    "and a buffer": (
        {"net": W | BUFFER, "model_ema": put("module.", E)},
        "auto",
        E | BUFFER,
        "model_ema",
    ),
    "weights beside averages": ({"model": W, "ema_state_dict": E}, "none", W, "model"),
    "their decay": ({"model": W, "ema": E, "ema_decay": 0.999}, "0.999", E, "ema"),
    "a list": ({"model": W | BUFFER, "ema": LIST}, "0.9", E | BUFFER, "ema"),
    "a list, not wanted": ({"model": W, "ema": {"shadow_params": []}}, "none", W, "model"),
    "lightning's": ({"state_dict": LIGHTNING}, "0.9999", E | BUFFER, "state_dict"),
    "lightning's weights": ({"state_dict": LIGHTNING}, "none", W | BUFFER, "state_dict"),
    "lucidrains'": ({"ema": LUCIDRAINS}, "auto", E, "ema"),
    "ddim's list": ([W, {"state": {}}, 3, 7, put("module.", E)], "auto", E, "ema"),
    "a tree of flax": (FLAX, "auto", {"a/b": E["b"]}, "ema_params"),
}


@pytest.mark.parametrize("name", FORMS)
def test_the_networks_own_tensors_are_kept(name):
    loaded, ema, want, kept = FORMS[name]
    made = chosen(loaded, ema, list(W))
    assert same(made.tensors, want)
    assert made.kept == kept
    assert "optimizer" not in made.tensors


REFUSED = {
    "no tensors": (
        {"epoch": 3},
        "auto",
        "no tensors of a network are found under epoch; with the repo",
    ),
    "a number": (3, "auto", "it holds a int, no tensors by name"),
    "no averages": (W, "0.9999", "holds no averages .* as ema_0.9999_"),
    "no decay": ({"model": W, "ema": E}, "0.999", "the checkpoint says no decay"),
    "another decay": (
        {"model": W, "ema": E, "ema_decay": 0.9},
        "0.999",
        "has averages of 0.9; take",
    ),
    "no number": ({"model": W, "ema": E}, "yes", "--ema yes: give auto, none, or a decay"),
    "another network": (
        {"model": W, "ema": {"shadow_params": [E["b"]]}},
        "auto",
        "list of 1, and the .* has 2",
    ),
    "other shapes": (
        {"model": W, "ema": {"shadow_params": [E["b"], E["b"]]}},
        "auto",
        r"average of a.weight is \[4\] and its weight \[3, 2\]: is --config",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_there_is_not_kept(name):
    loaded, ema, said = REFUSED[name]
    with pytest.raises(ValueError, match=said):
        chosen(loaded, ema, list(W))


def test_one_mapping_in_many_places_is_refused(monkeypatch):
    monkeypatch.setattr(safe_file, "TENSORS", 100)
    within = W
    for _ in range(40):
        within = {"a": within, "b": within}
    with pytest.raises(ValueError, match="it holds more than 100 tensors"):
        chosen(within, "auto", None)


def test_what_a_terminal_would_take_is_not_quoted():
    assert chosen({"model": W, "\x1b[2J": 3}, "auto", None).dropped == [r"'\x1b[2J'"]
    with pytest.raises(ValueError, match=r"under '\\x1b\[2J'; with"):
        chosen({"\x1b[2J": 3}, "auto", None)


def test_a_list_needs_names():
    with pytest.raises(
        ValueError, match="averages are a list of 2 tensors without names: say by --format"
    ):
        chosen({"model": W, "ema": {"shadow_params": list(E.values())}}, "auto", None)


UNFIT = {
    "sparse": (
        {"a": torch.eye(2).to_sparse()},
        "a is torch.float32, torch.sparse_coo; known are F64",
    ),
    "complex": ({"a": torch.ones(2, dtype=torch.complex64)}, "a is torch.complex64"),
    "without numbers": (
        {"a": torch.ones(2, device="meta")},
        "a has no numbers: it was saved on meta",
    ),
    "of another name": ({"\u0430": torch.ones(2)}, "names are printable ASCII"),
}


@pytest.mark.parametrize("name", UNFIT)
def test_tensors_that_a_file_cannot_hold_are_refused(tmp_path, name):
    tensors, said = UNFIT[name]
    torch.save(tensors, tmp_path / "it.pt")
    handle = os.open(tmp_path / "out", os.O_WRONLY | os.O_CREAT)
    with pytest.raises(ValueError, match=said):
        child.convert(tmp_path / "it.pt", handle, "none", None)
    os.close(handle)


def test_views_are_written_whole(tmp_path):
    """Transposed, expanded and shared tensors, and one without numbers."""
    base = torch.randn(4, 3)
    tensors = {
        "t": base.T,
        "e": base[:1].expand(2, 3),
        "s": base[1:],
        "none": torch.ones(0, 3),
        "one": base[0, 0],
    }
    torch.save({"state_dict": tensors}, tmp_path / "it.ckpt")
    handle = os.open(tmp_path / "out.safetensors", os.O_WRONLY | os.O_CREAT)
    report = child.convert(tmp_path / "it.ckpt", handle, "auto", None)
    assert (report["kept"], report["numbers"]) == ("state_dict", 12 + 6 + 9 + 0 + 1)
    assert same(safe_file.load(tmp_path / "out.safetensors"), tensors)


# --- files that are no pickles


def test_arrays_of_numpy(tmp_path):
    np.savez(tmp_path / "it.npz", **{name: tensor.numpy() for name, tensor in W.items()})
    assert same(loaded.load(tmp_path / "it.npz"), W)
    np.savez(tmp_path / "it.npz", a=np.array([Payload(tmp_path / "ran")]))
    with pytest.raises(ValueError, match=r"no \.npz file of plain arrays"):
        loaded.load(tmp_path / "it.npz")
    assert os.listdir(tmp_path) == ["it.npz"]


def packed(tensor, dtype):
    """An array as flax.serialization writes it."""
    msgspec = needs("msgspec")
    content = tensor.contiguous().view(torch.uint8).numpy().tobytes()
    return msgspec.msgpack.Ext(1, msgspec.msgpack.encode((tuple(tensor.shape), dtype, content)))


def test_a_checkpoint_of_flax(tmp_path):
    msgspec = needs("msgspec")
    parts = {"__msgpack_chunked_array__": True, "shape": {"0": 3, "1": 2}}
    halves = W["a.weight"].reshape(-1).split(3)
    parts["chunks"] = {str(i): packed(half, "float32") for i, half in enumerate(halves)}
    tree = {
        "step": 3,
        "ema_params": {"a": {"kernel": parts, "bias": packed(W["b"].bfloat16(), "bfloat16")}},
        "opt_state": {"0": {}},
    }
    (tmp_path / "checkpoint_3").write_bytes(msgspec.msgpack.encode(tree))
    made = chosen(loaded.load(tmp_path / "checkpoint_3"), "auto", None)
    assert same(made.tensors, {"a/kernel": W["a.weight"], "a/bias": W["b"].bfloat16()})


@pytest.mark.parametrize("kind", [0, 2, 5])
def test_another_extension_of_msgpack_is_refused(tmp_path, kind):
    msgspec = needs("msgspec")
    (tmp_path / "it").write_bytes(msgspec.msgpack.encode({"a": msgspec.msgpack.Ext(kind, b"1")}))
    with pytest.raises(ValueError, match=f"an extension of kind {kind}, which is no array"):
        loaded.load(tmp_path / "it")
    tree = {
        "a": msgspec.msgpack.Ext(
            1, msgspec.msgpack.encode(((2,), "object", struct.pack("<2q", 1, 2)))
        )
    }
    (tmp_path / "it").write_bytes(msgspec.msgpack.encode(tree))
    with pytest.raises(ValueError, match="an array of object"):
        loaded.load(tmp_path / "it")
