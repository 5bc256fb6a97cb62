"""The command `train`."""

import json
import signal
import sys
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from diffusion_engine.cli.app import app
from diffusion_engine.training import Trainer, names


@pytest.fixture
def handlers(monkeypatch):
    """What the command would have done on signals: in a process that runs other tests none is sent."""
    made = {}
    told = SimpleNamespace(SIGINT=signal.SIGINT, SIGTERM=signal.SIGTERM, signal=made.__setitem__)
    monkeypatch.setattr(sys.modules["diffusion_engine.cli.train"], "signal", told)
    return made


@pytest.fixture
def run(handlers):
    return lambda *args: CliRunner().invoke(app, ["train", *map(str, args)])


def test_recipes_are_listed(run):
    assert [line.split()[0] for line in run().stdout.splitlines()] == names()
    listed = json.loads(run("--json").stdout)
    assert [one["name"] for one in listed] == names()


def test_weights_card_and_log_are_written(run, tmp_path):
    made = run("flow", "--steps", 2, "--batch", 2, "--out", tmp_path, "--json")
    assert made.exit_code == 0, made.output
    report = json.loads(made.stdout[made.stdout.index("{") :])
    assert report["weights"] == str(tmp_path / "flow.safetensors") and report["steps"] == 2
    assert sorted(p.suffix for p in tmp_path.iterdir()) == [".csv", ".json", ".safetensors"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_leaves_a_checkpoint_that_resumes(
    run, handlers, tmp_path, monkeypatch, number
):
    advance = Trainer.advance

    def interrupted(trainer):
        advance(trainer)
        if trainer.step == 3:
            handlers[number](number, None)

    monkeypatch.setattr(Trainer, "advance", interrupted)
    made = run("flow", "--steps", 10**6, "--batch", 2, "--out", tmp_path)
    assert made.exit_code == 0 and "go on with --resume" in made.stdout, made.output
    assert [p.name for p in tmp_path.iterdir()] == ["flow.checkpoint.safetensors"]


def test_a_folder_that_cannot_be_made_is_named(run, tmp_path):
    (tmp_path / "file").touch()
    made = run("flow", "--steps", 2, "--batch", 2, "--out", tmp_path / "file")
    assert made.exit_code != 0 and "file cannot be made (File exists)" in str(made.exception)


@pytest.mark.parametrize(
    "args, message",
    [
        (["flwo"], "there is no recipe 'flwo'"),
        (["flow", "--steps", "0"], "steps=0"),
        (["flow", "--every", "0"], "--every 0"),
        (["flow", "--resume"], "there is no checkpoint"),
        (["flow", "--teacher", "digits"], "learns from no teacher; leave 'digits' out"),
        (["flow", "--start", "digits"], "the weights of 'digits' are no beginning for 'flow'"),
    ],
)
def test_what_cannot_be_trained(run, args, message, tmp_path):
    made = run(*args, "--out", tmp_path)
    assert made.exit_code != 0 and message in str(made.exception)
    assert not list(tmp_path.iterdir())
