"""The shipped networks: what they cost, that they heed their inputs, that bad files are refused."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch.utils.flop_counter import FlopCounterMode

from diffusion_engine import zoo

HERE = Path(zoo.__file__).parent
Inputs = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    return zoo.load("digits")


@pytest.fixture
def inputs() -> Inputs:
    x = torch.randn(11, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    return x, torch.linspace(1e-3, 1.0, 11), torch.arange(11)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The shipped network's two files in a folder of their own."""
    for suffix in (".safetensors", ".json"):
        shutil.copy(HERE / f"digits{suffix}", tmp_path / f"mine{suffix}")
    return tmp_path / "mine.safetensors"


def rewrite(path: Path, change: Callable[[dict[str, torch.Tensor]], Any], **extra: Any) -> None:
    """Change the tensors of a copy, the checksum in its JSON with them."""
    state = safetensors.torch.load_file(path)
    change(state)
    path.write_bytes(safetensors.torch.save(state))
    seal(path, **extra)


def seal(path: Path, **extra: Any) -> None:
    config = json.loads(path.with_suffix(".json").read_text())
    config |= {"sha256": hashlib.sha256(path.read_bytes()).hexdigest(), **extra}
    path.with_suffix(".json").write_text(json.dumps(config))


def test_size_and_flops(network: torch.nn.Module) -> None:
    assert (HERE / "digits.safetensors").stat().st_size <= 3_000_000
    assert sum(p.numel() for p in network.parameters()) <= 1_400_000
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.zeros(1, 1, 32, 32), torch.zeros(1), torch.zeros(1, dtype=torch.int64))
    assert 0 < counter.get_total_flops() <= 100_000_000


def test_config_describes_the_network() -> None:
    assert {"digits", "digits_genie", "flow"} <= set(zoo.names())
    config = zoo.config("digits")
    assert config["prediction"] == "eps"
    assert config["process"] == {"name": "vp", "beta_min": 0.1, "beta_max": 20.0}
    assert config["shape"] == [1, 32, 32]
    assert config["classes"] == list("0123456789")
    assert config["null"] == config["architecture"]["classes"] == 10
    training = config["training"]
    assert training["steps_done"] == training["steps"]
    assert f"--steps {training['steps']}" in training["command"]


def test_output(network: torch.nn.Module, inputs: Inputs) -> None:
    assert not network.training
    with torch.no_grad():
        first, again = network(*inputs), network(*inputs)
    assert first.shape == inputs[0].shape
    assert first.dtype == torch.float32
    assert first.isfinite().all()
    torch.testing.assert_close(first, again, rtol=0, atol=0)


def test_batch_items_do_not_touch(network: torch.nn.Module, inputs: Inputs) -> None:
    with torch.no_grad():
        whole = network(*inputs)
        part = network(*(value[3:5] for value in inputs))
    torch.testing.assert_close(whole[3:5], part, rtol=1e-4, atol=1e-4)


def test_class_and_time_matter(network: torch.nn.Module, inputs: Inputs) -> None:
    x = inputs[0][:1].expand(11, -1, -1, -1)
    half, classes = torch.full((11,), 0.5), torch.arange(11)
    with torch.no_grad():
        by_class = network(x, half, classes).flatten(1)
        by_time = network(x, inputs[1], torch.full((11,), 3)).flatten(1)
    apart = 1.0 - torch.eye(11)
    assert (torch.cdist(by_class, by_class) + 9.0 * (1.0 - apart)).min() > 0.1
    assert (torch.cdist(by_time, by_time) + 9.0 * (1.0 - apart)).min() > 0.1


def test_pure_noise_is_recognised(network: torch.nn.Module, inputs: Inputs) -> None:
    """At t = 1 the input is all noise (alpha = 0.007), so eps is the input itself."""
    with torch.no_grad():
        eps = network(inputs[0], torch.ones(11), inputs[2])
    assert (eps - inputs[0]).square().mean() < 0.01


def test_half_precision_follows(inputs: Inputs) -> None:
    network = zoo.load("digits")
    x, t, y = (value[4:6] for value in inputs)
    with torch.no_grad():
        exact = network(x, t, y)
        near = network.to(torch.bfloat16)(x.bfloat16(), t, y)
    assert near.dtype == torch.bfloat16
    assert (near.float() - exact).square().mean().sqrt() < 0.1


def test_path_of_a_users_file(
    network: torch.nn.Module, copy: Path, inputs: Inputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    with torch.no_grad():
        torch.testing.assert_close(zoo.load(copy)(*inputs), network(*inputs), rtol=0, atol=0)
    monkeypatch.chdir(copy.parent)
    assert zoo.config("mine.safetensors") == zoo.config("digits")


def test_save_then_load(network: torch.nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "again.safetensors"
    zoo.save(path, network, zoo.config("digits"))
    assert path.read_bytes() == (HERE / "digits.safetensors").read_bytes()
    assert zoo.config(path) == zoo.config("digits")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["again.json", "again.safetensors"]
    with pytest.raises(ValueError, match=r"does not end in \.safetensors"):
        zoo.save(tmp_path / "again.pt", network, {})


def test_save_refuses_what_float16_cannot_hold(network: torch.nn.Module, tmp_path: Path) -> None:
    large = torch.nn.Linear(2, 2)
    torch.nn.init.constant_(large.weight, 1e6)
    with pytest.raises(ValueError, match="weight holds values that are not finite"):
        zoo.save(tmp_path / "large.safetensors", large, {})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["", "cats", "../digits", "digits.pt"])
def test_unknown_name(name: str) -> None:
    with pytest.raises(
        ValueError, match=r"does not ship with the package; use one of classifier, cld"
    ):
        zoo.load(name)


def test_absent_files(copy: Path) -> None:
    with pytest.raises(ValueError, match=r"none\.safetensors does not exist"):
        zoo.load(copy.with_name("none.safetensors"))
    copy.with_suffix(".json").unlink()
    with pytest.raises(ValueError, match=r"mine\.json does not exist"):
        zoo.load(copy)


def test_checksum(copy: Path) -> None:
    data = bytearray(copy.read_bytes())
    data[-1] ^= 1
    copy.write_bytes(data)
    with pytest.raises(ValueError, match="checksum"):
        zoo.load(copy)


@pytest.mark.parametrize("keep", [0, 7, 100, 20_000, -1])
def test_truncated(copy: Path, keep: int) -> None:
    copy.write_bytes(copy.read_bytes()[:keep])
    seal(copy)
    with pytest.raises(ValueError, match="not a safetensors file"):
        zoo.load(copy)


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x04\x95\x0c\x00\x00\x00\x00\x00\x00\x00\x8c\x08builtins\x94.",  # A pickle.
        b"\xff" * 64,  # A header of 2^64 - 1 bytes.
        (2).to_bytes(8, "little") + b"[]",
        (1 << 20).to_bytes(8, "little") + b"[" * (1 << 20),
        (62).to_bytes(8, "little")
        + b'{"a":{"dtype":"F16","shape":[4294967296],"data_offsets":[0,2]}}'[:62]
        + b"\0\0",
    ],
)
def test_hostile(copy: Path, data: bytes) -> None:
    copy.write_bytes(data)
    seal(copy)
    with pytest.raises(ValueError, match="not a safetensors file"):
        zoo.load(copy)


def test_wrong_tensors(copy: Path) -> None:
    whole = copy.read_bytes()
    for change, message in [
        (lambda s: s.pop("head.bias"), r"lacks the tensors \['head\.bias'\] and has \[\]"),
        (lambda s: s.update(more=torch.zeros(1)), r"lacks the tensors \[\] and has \['more'\]"),
        (lambda s: s.update({"head.bias": s["head.bias"][:3]}), r"shape \(3,\), not \(4,\)"),
        (lambda s: s.update({"head.bias": s["head.bias"].double()}), r"float64, not float16"),
        (lambda s: s.update({"head.bias": s["head.bias"].short()}), r"int16, not float16"),
        (lambda s: s["head.bias"].fill_(torch.nan), "head.bias holds values that are not finite"),
        (lambda s: s["gain.weight"].fill_(torch.inf), "gain.weight holds values that are not"),
    ]:
        copy.write_bytes(whole)
        rewrite(copy, change)
        with pytest.raises(ValueError, match=message):
            zoo.load(copy)


@pytest.mark.parametrize(
    "architecture",
    [
        None,
        [],
        {},
        {"name": "resnet"},
        {"name": ["unet"]},
        {"name": "unet", "depth": 3},
        {"name": "unet", "channels": [32, 64]},
        {"name": "unet", "channels": [44, 64, 128]},
        {"name": "unet", "channels": [-32, 64, 128]},
        {"name": "unet", "channels": [0, 0, 0]},
        {"name": "unet", "channels": "abc"},
        {"name": "unet", "emb": 127},
        {"name": "unet", "classes": 1 << 70},
    ],
)
def test_wrong_architecture(copy: Path, architecture: Any) -> None:
    seal(copy, architecture=architecture)
    with pytest.raises(ValueError, match=r"cannot be built|architecture=\S+: input should be"):
        zoo.load(copy)


def test_a_large_architecture_is_refused_before_it_is_allocated(copy: Path) -> None:
    seal(copy, architecture={"name": "unet", "channels": [1 << 20] * 3})
    with pytest.raises(ValueError, match="has shape"):
        zoo.load(copy)


@pytest.mark.parametrize("text", ["", "{", "[1]", "null", "[" * 100_000])
def test_wrong_json(copy: Path, text: str) -> None:
    copy.with_suffix(".json").write_text(text)
    with pytest.raises(ValueError, match=r"mine\.json (is not JSON|holds a)"):
        zoo.load(copy)
