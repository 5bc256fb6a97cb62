"""Every public object from several threads: the same bits as alone, no crash (thread_runs.py)."""

import json
import os
import subprocess
import sys

import pytest
import thread_runs
import torch

from diffusion_engine import trace
from diffusion_engine.ops import functional


def run(*arguments, timeout=850):
    environment = os.environ | {"OMP_WAIT_POLICY": "passive"}
    command = [sys.executable, thread_runs.__file__, *arguments]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=timeout, check=False
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return {
        line.pop("name"): line for line in lines
    }, f"exit status {done.returncode}: {done.stderr[-2000:]}"


@pytest.fixture(scope="module")
def reports():
    """All runs in one process: those after one that crashed fail, too."""
    return run()


@pytest.mark.timeout(900)  # seconds where the machine is its own, minutes where others crowd it
@pytest.mark.parametrize("name", thread_runs.RUNS)
def test_same_bits_from_every_thread(reports, name):
    found, end = reports
    assert name in found, end
    assert (found[name]["wrong"], found[name]["errors"]) == (0, [])


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["group_norm", "add_group_norm", "attention", "triton"])
def test_same_bits_on_the_gpu(name):
    found, end = run("--cuda", name)
    assert name in found, end
    assert (found[name]["wrong"], found[name]["errors"]) == (0, [])


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", thread_runs.RUNS)
def test_same_bits_at_length(name):
    found, end = run("--at-length", name, timeout=1700)
    assert name in found, end
    assert (found[name]["wrong"], found[name]["errors"]) == (0, [])


def test_launches_enter_a_device_each_by_itself(monkeypatch):
    """A context remembers the device to return to, which is the thread's."""
    from diffusion_engine.kernels.launch import on_device

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    enter = on_device(torch.device("cuda", 1))
    assert isinstance(enter(), torch.cuda.device) and enter() is not enter()


def test_a_launch_bound_while_listening_begins_is_not_kept(monkeypatch):
    """It was bound without its range, by a thread that had looked before."""
    heard, plain, traced = [], trace.span("plain"), trace.traced

    def listener(name, payload):
        heard.append(name)
        return plain

    x = torch.randn(1, 2, 3, 5, 7)
    with trace.listening("first", listener):
        pass  # nothing is kept
    begun = trace.listening("second", listener)

    def late(name, call):
        call = traced(name, call)
        begun.__enter__()
        return call

    with monkeypatch.context() as patch:
        patch.setattr(trace, "traced", late)
        functional.group_norm(x, 2)
    assert heard == []
    functional.group_norm(x, 2)
    begun.__exit__(None, None, None)
    assert heard == ["group_norm"]
