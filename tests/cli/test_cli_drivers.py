"""Drivers on the command line: by name or of the user's own, their options, their list, and recipes."""

import json

import numpy as np
import pytest
from command import run

from diffusion_engine.drivers import DRIVERS, driver

OWN = """
from dataclasses import dataclass

from diffusion_engine.drivers.adaptive import Adaptive


@dataclass(frozen=True)
class Coarse(Adaptive):
    name = "coarse"
    rtol: float = 0.5


READY = Coarse(atol=0.5)
"""
LED = ("--n", 2, "--class", "3,8", "--steps", 4)


def samples(path):
    with np.load(path) as arrays:
        return arrays["samples"]


def test_a_driver_by_name_with_options(capsys, tmp_path):
    out = tmp_path / "x.npz"
    text, _ = run(
        capsys, "sample", "--out", out, *LED, "--driver", "dpm_adaptive", "--driver-option", "order=2",
        "--driver-option", "rule=batch", "--driver-option", "rtol=0.3", "--json",
    )  # fmt: skip
    said = json.loads(text)
    options = said["recipe"]["driver"]["options"]
    assert (options["order"], options["rule"], options["rtol"]) == (2, "batch", 0.3)
    assert [report["calls"] for report in said["reports"]] == [said["nfe"]] * 2
    again = tmp_path / "y.npz"
    text, _ = run(capsys, "sample", "--out", again, "--recipe", out)
    assert f"{said['nfe']} calls at most" in text
    assert np.array_equal(samples(out), samples(again))


@pytest.mark.parametrize("name", ["Coarse", "READY"])
def test_a_driver_of_the_users_own(capsys, tmp_path, monkeypatch, name):
    (tmp_path / "own_driver.py").write_text(OWN, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    mine = ("--driver", f"own_driver:{name}")
    options = ("--driver-option", "atol=0.3") if name == "Coarse" else ()
    run(capsys, "sample", "--out", "x.npz", *LED, *mine, *options)
    run(capsys, "sample", "--out", "y.npz", "--recipe", "x.npz", *mine, *options)
    assert np.array_equal(samples("x.npz"), samples("y.npz"))
    run(capsys, "sample", "--out", "z.npz", "--recipe", "x.npz", code=2)
    if name == "READY":
        given = (*mine, "--driver-option", "atol=1")
        _, said = run(capsys, "sample", "--out", "z.npz", *LED, *given, code=2)
        assert "is an object and has its options already" in said


def test_drivers_lists_every_driver(capsys):
    text, _ = run(capsys, "drivers")
    rows = json.loads(run(capsys, "drivers", "--json")[0])
    assert [row["name"] for row in rows] == list(DRIVERS)
    for row in rows:
        assert row["about"] and row["source"] and row["name"] in text
    adaptive = rows[0]
    assert driver("adaptive", **adaptive["options"]).options() == adaptive["options"].keys()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--driver", "adaptve"], "driver='adaptve': choose adaptive"),
        (
            ["--driver", "adaptive", "--driver-option", "rtoll=1"],
            "takes no rtoll; did you mean rtol?",
        ),
        (
            ["--driver", "adaptive", "--driver-option", "rtol"],
            "--driver-option 'rtol': write it as",
        ),
        (
            ["--driver", "adaptive", "--driver-option", "rtol=0"],
            "rtol=0: a tolerance is a finite number",
        ),
        (["--driver-option", "rtol=0.1"], "--driver-option rtol: say by --driver whose that is"),
        (["--driver", "adaptive", "--noise", "brownian"], "adaptive"),
        (["--driver", "json:nothing"], "--driver"),
    ],
)
def test_bad_drivers_are_one_sentence_and_no_file(capsys, tmp_path, arguments, sentence):
    out = tmp_path / "x.npz"
    _, said = run(capsys, "sample", "--out", out, "--n", 1, *arguments, code=2)
    assert sentence in said and said.count("\n") == 1 and not out.exists()


def test_a_measurement_is_followed_and_given_again(capsys, tmp_path):
    y, out, again = tmp_path / "y.npz", tmp_path / "x.npz", tmp_path / "again.npz"
    np.savez(y, np.linspace(-1.0, 1.0, 64, dtype=np.float32).reshape(1, 8, 8))
    follows = (
        "--driver",
        "diffpir",
        "--driver-option",
        'operator={"name":"super_resolution","factor":4}',
    )
    run(capsys, "sample", "--out", out, *LED, *follows, "--measurement", y)
    run(capsys, "sample", "--out", again, "--recipe", out, "--measurement", y)
    assert np.array_equal(samples(out), samples(again))
    means = samples(out).reshape(2, 8, 4, 8, 4).mean(axis=(2, 4))
    assert np.abs(means - np.load(y)["arr_0"]).mean() < 0.5
    for more, sentence in (
        (("--recipe", out), "made with measurement; give them again"),
        ((*LED, *follows), "this sampler follows a measurement"),
        ((*LED, "--measurement", y), "this sampler has none"),
        ((*LED, *follows, "--measurement", tmp_path / "none.npz"), "none.npz"),
        ((*LED, *follows, "--measurement", out), "measurement has shape"),
    ):
        _, error = run(capsys, "sample", "--out", tmp_path / "bad.npz", *more, code=2)
        assert sentence in error, error
    assert not (tmp_path / "bad.npz").exists()
